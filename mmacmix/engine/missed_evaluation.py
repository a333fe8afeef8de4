"""An evaluation that a kill ended is made up for when the training goes on.

mmengine writes a checkpoint before it evaluates, and goes on after the evaluation: without this, a figure would be
missing, the last one for good, and with it perhaps the best checkpoint.
"""

import os
import os.path as osp

from mmengine.dist import broadcast_object_list
from mmengine.fileio import LocalBackend
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

#: In the work dir: the iteration of the last evaluation that was finished.
MARK = 'last_evaluation'


def mark_evaluation(runner: Runner, backend: LocalBackend) -> None:
    """Notes that the evaluation after the iteration that the runner is at is finished. For the main process."""
    backend.put_text(str(runner.iter), osp.join(runner.work_dir, MARK))


def forget_evaluations(runner: Runner) -> None:
    """Removes the note of an earlier run in the same folder. For the main process."""
    if osp.isfile(osp.join(runner.work_dir, MARK)):
        os.remove(osp.join(runner.work_dir, MARK))


def missed_evaluation(runner: Runner) -> bool:
    """Whether a run that has been resumed should have evaluated the checkpoint it goes on from, and did not."""
    loop = runner.train_loop
    if runner.iter == 0 or runner.val_loop is None or not _due(loop):
        return False
    answer = [_marked(osp.join(runner.work_dir, MARK)) < runner.iter]
    broadcast_object_list(answer)  # of the main process: others may have another disk
    return answer[0]


def _due(loop: object) -> bool:
    """Whether a loop of mmengine evaluates where it stands."""
    if type(loop) is EpochBasedTrainLoop:
        done, last = loop.epoch, loop.max_epochs
        if loop.iter != done * len(loop.dataloader):  # within an epoch
            return False
    elif type(loop) is IterBasedTrainLoop:
        done, last = loop.iter, loop.max_iters
    else:
        return False
    loop._decide_current_val_interval()
    return done >= loop.val_begin and (done % loop.val_interval == 0 or done == last)


def _marked(path: str) -> int:
    if not osp.isfile(path):
        return 0
    with open(path, encoding='utf-8') as file:
        text = file.read().strip()
    return int(text) if text.isdecimal() else 0
