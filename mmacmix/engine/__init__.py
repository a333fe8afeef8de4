"""What runs beside training and testing: checks before the start and of the checkpoint."""

from mmacmix.engine.checkpoint_guard import CheckpointGuardHook
from mmacmix.engine.data_paths import check_data_paths

__all__ = ['CheckpointGuardHook', 'check_data_paths']
