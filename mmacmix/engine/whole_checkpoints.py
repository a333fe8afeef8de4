"""Checkpoints that are whole, or not there, however a training ends."""

import os
import os.path as osp
import re
import socket
from glob import escape as glob_escape
from glob import glob
from typing import Callable, Dict, Optional

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmacmix.engine.missed_evaluation import forget_evaluations, mark_evaluation, missed_evaluation
from mmacmix.registry import HOOKS

BACKEND = 'mmacmix.whole_files'


class WholeFileBackend(LocalBackend):
    """Local files that get their name once all of them is on the disk.

    Raises:
        OSError: A file cannot be written, on a full disk for one; the message names it, and nothing is left of it.
    """

    def put(self, obj: bytes, filepath: str) -> None:
        self._write(super().put, obj, filepath)

    def put_text(self, obj: str, filepath: str, encoding: str = 'utf-8') -> None:
        self._write(super().put_text, obj, filepath)

    def _write(self, put: Callable, content: object, filepath: str) -> None:
        part = f'{filepath}.{socket.gethostname()}-{os.getpid()}.part'  # nobody else writes to it
        try:
            put(content, part)
            with open(part, 'rb+') as file:
                os.fsync(file.fileno())
            os.replace(part, filepath)
        except OSError as error:
            if osp.isfile(part):
                os.remove(part)
            raise OSError(error.errno, f'{filepath} cannot be written: {error.strerror or error}') from error


def remove_left_overs(folder: str) -> None:
    """Removes what processes of this machine that are no more left half written in a folder."""
    for path in glob(osp.join(glob_escape(folder), '*.part')):
        found = re.search(rf'\.{re.escape(socket.gethostname())}-(\d{{1,9}})\.part$', path)
        if found and not _runs(int(found[1])):
            os.remove(path)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


register_backend(BACKEND, WholeFileBackend, force=True)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, of whose local files a kill leaves none half written.

    A checkpoint is whole before ``last_checkpoint`` names it, and it is named before an older one, beyond
    ``max_keep_ckpts``, is removed. What is not local is written as mmengine does. Nothing outside of its own folder is
    removed: a run that goes on in a copy of a work dir leaves the best checkpoint of the first one alone.

    A run that was killed while it evaluated a checkpoint evaluates it when it goes on from there.
    """

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if self.file_client_args is None and self.backend_args is None and type(self.file_backend) is LocalBackend:
            self.backend_args = dict(backend=BACKEND)
            if is_main_process():
                remove_left_overs(self.out_dir)
        if self.save_best and len(self.key_indicators) == 1:
            self.best_ckpt_path = self._own(self.best_ckpt_path)
        elif self.save_best:
            self.best_ckpt_path_dict = {name: self._own(path) for name, path in self.best_ckpt_path_dict.items()}
        if missed_evaluation(runner):
            runner.logger.info(f'The evaluation after iteration {runner.iter} was not finished; it comes first.')
            runner.val_loop.run()
        if not runner.iter and is_main_process():
            forget_evaluations(runner)

    def after_val_epoch(self, runner: Runner, metrics: Optional[Dict[str, float]] = None) -> None:
        super().after_val_epoch(runner, metrics)
        if runner.iter and is_main_process():
            mark_evaluation(runner, WholeFileBackend())

    def _own(self, path: Optional[str]) -> Optional[str]:
        """A checkpoint of the run that goes on, where this run has it."""
        return path and self.file_backend.join_path(self.out_dir, osp.basename(path))

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        left_over = []
        if self.max_keep_ckpts > 0 and list(self.keep_ckpt_ids)[-1:] != [step]:
            left_over = [*self.keep_ckpt_ids, step][: -self.max_keep_ckpts]
            self.keep_ckpt_ids.append(step)  # and no more than max_keep_ckpts stay
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if not is_main_process():
            return
        WholeFileBackend().put_text(self.last_ckpt, osp.join(runner.work_dir, 'last_checkpoint'))
        for old in left_over:
            path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old))
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
            elif self.file_backend.isdir(path):  # of DeepSpeed
                self.file_backend.rmtree(path)
