"""What runs beside training and testing: checks before the start and of the checkpoint, and records of the rates."""

from mmacmix.engine.checkpoint_guard import CheckpointGuardHook
from mmacmix.engine.config_checks import SetupError, check_pretrained, check_work_dir, read_config
from mmacmix.engine.cpu_processes import join_cpu_processes
from mmacmix.engine.data_paths import check_data_paths
from mmacmix.engine.mixing_rates import MixingRatesHook
from mmacmix.engine.start_check import StartCheckHook

__all__ = [
    'CheckpointGuardHook',
    'MixingRatesHook',
    'SetupError',
    'StartCheckHook',
    'check_data_paths',
    'check_pretrained',
    'check_work_dir',
    'join_cpu_processes',
    'read_config',
]
