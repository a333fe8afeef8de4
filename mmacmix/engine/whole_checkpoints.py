"""Checkpoints that are whole, or not there, however a training ends."""

import os
import os.path as osp
from typing import Callable

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmacmix.registry import HOOKS

BACKEND = 'mmacmix.whole_files'


class WholeFileBackend(LocalBackend):
    """Local files that get their name once all of them is on the disk."""

    def put(self, obj: bytes, filepath: str) -> None:
        self._write(super().put, obj, filepath)

    def put_text(self, obj: str, filepath: str, encoding: str = 'utf-8') -> None:
        self._write(super().put_text, obj, filepath)

    def _write(self, put: Callable, content: object, filepath: str) -> None:
        part = f'{filepath}.part'
        put(content, part)
        with open(part, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(part, filepath)


register_backend(BACKEND, WholeFileBackend, force=True)


@HOOKS.register_module()
class WholeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, of whose local files a kill leaves none half written.

    A checkpoint is whole before ``last_checkpoint`` names it, and it is named before an older one, beyond
    ``max_keep_ckpts``, is removed. What is not local is written as mmengine does.
    """

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if self.file_client_args is None and self.backend_args is None and type(self.file_backend) is LocalBackend:
            self.backend_args = dict(backend=BACKEND)

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
