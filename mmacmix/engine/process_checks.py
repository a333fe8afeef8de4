"""Do all processes of a training start from the same place? mmengine loads in each what that one finds."""

import hashlib
import os.path as osp

from mmengine import Config
from mmengine.dist import all_gather_object

from mmacmix.engine.config_files import SetupError

TAIL = 2**16


def check_same_start(cfg: Config) -> None:
    """Compares where the processes start; to be called by all of them when they are joined, before a runner is built.

    A runner of a process that goes on knows its seed, and does not wait for the others to draw one together.

    Args:
        cfg: The config of this process, with ``resume`` and ``load_from``.

    Raises:
        SetupError: Some go on from a checkpoint that others do not; in all processes.
    """
    starts = all_gather_object(start_of(cfg))
    other = next((rank for rank, start in enumerate(starts) if start != starts[0]), None)
    if other is not None:
        raise SetupError(
            f'--resume must find the same checkpoint in all processes, got a start {starts[0]} in process 0 and '
            f'{starts[other]} in process {other}: work_dir={cfg.work_dir} must be a folder that all machines share'
        )


def start_of(cfg: Config) -> str:
    """Where this process starts: the name of a checkpoint, its size, and a digest of its end.

    There a checkpoint has the sums of all that is in it, so that the end of another one is another.
    """
    path = cfg.get('load_from') or ''
    if not cfg.get('resume'):
        return 'anew'
    if not osp.isfile(path):
        return f'from {path or "the latest"}'
    with open(path, 'rb') as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL))
        return f'from {osp.basename(path)} ({size} bytes, {hashlib.sha256(file.read()).hexdigest()[:8]})'
