"""What runs beside training and testing: checks before the start and of the checkpoint, and records of the rates."""

from mmacmix.engine.checkpoint_guard import CheckpointGuardHook
from mmacmix.engine.data_paths import check_data_paths
from mmacmix.engine.mixing_rates import MixingRatesHook

__all__ = ['CheckpointGuardHook', 'MixingRatesHook', 'check_data_paths']
