"""What runs beside training and testing: checks before the start, whole checkpoints, seeds, records of the rates."""

from mmacmix.engine.checkpoint_guard import CheckpointGuardHook
from mmacmix.engine.data_paths import check_data_paths
from mmacmix.engine.mixing_rates import MixingRatesHook
from mmacmix.engine.seeding import SeededBatchSampler, SeedHook
from mmacmix.engine.whole_checkpoints import WholeCheckpointHook

__all__ = [
    'CheckpointGuardHook',
    'MixingRatesHook',
    'SeedHook',
    'SeededBatchSampler',
    'WholeCheckpointHook',
    'check_data_paths',
]
