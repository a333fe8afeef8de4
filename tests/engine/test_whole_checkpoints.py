"""Checkpoints are whole or not there, and none goes before the next is."""

import errno
import itertools
import os
import shutil
import socket
import subprocess

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.fileio import LocalBackend
from mmengine.model import BaseModel
from mmengine.registry import METRICS, MODELS
from mmengine.runner import Runner

from mmacmix.checkpoint_files import check_file, load_file
from mmacmix.engine.whole_checkpoints import WholeFileBackend


@MODELS.register_module()
class KeptModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(2, 4)

    def forward(self, *inputs, mode):
        if mode == 'predict':
            return [{}]
        return dict(loss=self.backbone(torch.stack(inputs)).square().mean())


LOADER = dict(dataset=[torch.ones(2)], sampler=dict(type='DefaultSampler'), batch_size=1)


def runner(work_dir, resume=False, epochs=4, **hook):
    return Runner.from_cfg(Config(dict(
        model=dict(type='KeptModel'), work_dir=str(work_dir), default_scope='mmengine', resume=resume,
        experiment_name=f'{work_dir.name}_{torch.rand(1).item()}',
        default_hooks=dict(checkpoint=dict(type='mmacmix.WholeCheckpointHook', interval=1, **hook)),
        train_dataloader=LOADER, train_cfg=dict(by_epoch=True, max_epochs=epochs),
        val_dataloader=LOADER, val_cfg=dict(), val_evaluator=dict(type='GrowingScore'),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))))


def files(work_dir):
    return {path.name for path in work_dir.iterdir() if path.is_file()}


@pytest.mark.parametrize('kept, names', [
    (-1, {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth'}), (2, {'epoch_3.pth', 'epoch_4.pth'}),
    (1, {'epoch_4.pth'})])
def test_what_is_kept(tmp_path, kept, names):
    runner(tmp_path, max_keep_ckpts=kept).train()
    assert files(tmp_path) - {name for name in files(tmp_path) if name.endswith('.py')} == {'last_checkpoint', *names}
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_4.pth')


@pytest.mark.parametrize('name', ['epoch_3.pth', 'last_checkpoint'])
def test_a_write_that_stops_in_the_middle(tmp_path, monkeypatch, name):
    def halved(put):
        def stopped(self, content, path, *args):
            put(self, content[:len(content) // 2], path, *args)
            if f'/{name}.' in str(path) and (tmp_path / 'epoch_2.pth').exists():
                raise OSError(errno.ENOSPC, 'no space left')
            put(self, content, path, *args)
        return stopped

    message = f'{tmp_path}/{name} cannot be written: no space left'
    with monkeypatch.context() as patch, pytest.raises(OSError, match=message) as end:
        for put in ('put', 'put_text'):
            patch.setattr(LocalBackend, put, halved(getattr(LocalBackend, put)))
        runner(tmp_path, max_keep_ckpts=1).train()
    assert end.value.errno == errno.ENOSPC and not list(tmp_path.glob('*.part'))
    named = (tmp_path / 'last_checkpoint').read_text()
    check_file(named)
    again = runner(tmp_path, resume=True, max_keep_ckpts=1)
    again.train()
    assert again.epoch == 4
    assert {name for name in files(tmp_path) if name.endswith(('.pth', '.part'))} == {'epoch_4.pth'}


def test_two_runs_that_write_the_same_file(tmp_path, monkeypatch):
    """The other one begins while the first is about to give the name."""
    path, replace = tmp_path / 'epoch_1.pth', os.replace

    def another_begins(part, name):
        with monkeypatch.context() as patch:
            patch.setattr(os, 'getpid', lambda: 1)
            patch.setattr(os, 'replace', lambda part, name: None)
            WholeFileBackend().put(b'half', str(name))
        replace(part, name)

    monkeypatch.setattr(os, 'replace', another_begins)
    WholeFileBackend().put(b'whole' * 100, str(path))
    assert path.read_bytes() == b'whole' * 100


def test_left_overs_of_killed_runs_go(tmp_path):
    child = subprocess.Popen(['true'])
    child.wait()
    host = socket.gethostname()
    gone = tmp_path / f'epoch_1.pth.{host}-{child.pid}.part'
    stay = [tmp_path / name for name in (
        f'epoch_1.pth.{host}-{os.getppid()}.part', f'epoch_1.pth.another-{child.pid}.part', 'mine.part',
        f'epoch_1.pth.{host}-{"9" * 25}.part')]
    for path in (gone, *stay):
        path.touch()
    runner(tmp_path).train()
    assert not gone.exists() and all(path.exists() for path in stay)


@METRICS.register_module()
class GrowingScore(BaseMetric):
    scores = itertools.count(1.0)

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(score=next(self.scores))


def test_the_best_of_a_copied_run_stays(tmp_path):
    first, copy = tmp_path / 'first', tmp_path / 'copy'
    best = dict(save_best='score', rule='greater')
    runner(first, epochs=2, **best).train()
    shutil.copytree(first, copy)
    (copy / 'last_checkpoint').write_text(str(copy / 'epoch_2.pth'))
    runner(copy, resume=True, **best).train()
    assert [path.name for path in copy.glob('best*')] == ['best_score_epoch_4.pth']
    assert [path.name for path in first.glob('best*')] == ['best_score_epoch_2.pth']
    load_file(str(copy / 'best_score_epoch_4.pth'))
