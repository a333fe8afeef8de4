"""What runs beside training and testing: checks before the start, whole checkpoints, seeds, records of the rates."""

from mmacmix.engine.checkpoint_guard import CheckpointGuardHook
from mmacmix.engine.config_checks import SetupError, check_pretrained, check_work_dir, read_config
from mmacmix.engine.config_files import host_of, type_name
from mmacmix.engine.data_paths import check_data_paths
from mmacmix.engine.mixing_rates import MixingRatesHook
from mmacmix.engine.process_checks import check_same_start
from mmacmix.engine.processes import join_processes
from mmacmix.engine.seeding import SeededBatchSampler, SeedHook
from mmacmix.engine.start_check import StartCheckHook
from mmacmix.engine.whole_checkpoints import WholeCheckpointHook

__all__ = [
    'CheckpointGuardHook',
    'MixingRatesHook',
    'SeedHook',
    'SeededBatchSampler',
    'SetupError',
    'StartCheckHook',
    'WholeCheckpointHook',
    'check_data_paths',
    'check_pretrained',
    'check_same_start',
    'check_work_dir',
    'host_of',
    'join_processes',
    'read_config',
    'type_name',
]
