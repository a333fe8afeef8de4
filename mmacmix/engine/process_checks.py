"""Do all processes of a training start from the same place? mmengine loads in each what that one finds."""

import os.path as osp

from mmengine import Config
from mmengine.dist import all_gather_object

from mmacmix.engine.config_files import SetupError


def check_same_start(cfg: Config) -> None:
    """Compares where the processes start; to be called by all of them when they are joined.

    Args:
        cfg: The config of this process, with ``resume`` and ``load_from``.

    Raises:
        SetupError: Some go on from a checkpoint that others do not; in all processes.
    """
    start = f'from {osp.basename(cfg.get("load_from") or "the latest")}' if cfg.get('resume') else 'anew'
    starts = all_gather_object(start)
    other = next((rank for rank, start in enumerate(starts) if start != starts[0]), None)
    if other is not None:
        raise SetupError(
            f'--resume must find the same checkpoint in all processes, got a start {starts[0]} in process 0 and '
            f'{starts[other]} in process {other}: work_dir={cfg.work_dir} must be a folder that all machines share'
        )
