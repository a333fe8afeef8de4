"""Checkpoints are whole or not there, and none goes before the next is."""

import errno
import itertools
import json
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


NUMBERS = itertools.count()
EVALUATOR = dict(type='GrowingScore')
LOADER = dict(dataset=[torch.ones(2)], sampler=dict(type='DefaultSampler'), batch_size=1)


def runner(work_dir, resume=False, epochs=4, train_cfg=None, **hook):
    return Runner.from_cfg(Config(dict(
        model=dict(type='KeptModel'), work_dir=str(work_dir), default_scope='mmengine', resume=resume,
        experiment_name=f'{work_dir.name}_{next(NUMBERS)}',
        default_hooks=dict(checkpoint=dict(type='mmacmix.WholeCheckpointHook', interval=1, **hook)),
        train_dataloader=LOADER, train_cfg=train_cfg or dict(by_epoch=True, max_epochs=epochs),
        val_dataloader=LOADER, val_cfg=dict(), val_evaluator=dict(EVALUATOR),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)), randomness=dict(seed=0))))


def files(work_dir):
    return {path.name for path in work_dir.iterdir() if path.is_file()}


@pytest.mark.parametrize('kept, names', [
    (-1, {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth'}), (2, {'epoch_3.pth', 'epoch_4.pth'}),
    (1, {'epoch_4.pth'})])
def test_what_is_kept(tmp_path, kept, names):
    runner(tmp_path, max_keep_ckpts=kept).train()
    found = {name for name in files(tmp_path) if not name.endswith('.py')}
    assert found == {'last_checkpoint', 'last_evaluation', *names}
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


@METRICS.register_module()
class WeightScore(BaseMetric):
    """Says how large the weights are; is killed in evaluation ``dies``, counted from 1."""

    dies, calls = None, 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        WeightScore.calls += 1
        if WeightScore.calls == self.dies:
            raise InterruptedError('killed')
        return dict(score=-self.model().backbone.weight.square().sum().item())


LOOPS = {
    'epochs': (dict(by_epoch=True, max_epochs=5, val_interval=2), dict(), [4, 8, 10]),
    'epochs, denser at last': (
        dict(by_epoch=True, max_epochs=4, val_interval=3, dynamic_intervals=[(3, 1)]), dict(), [4, 6, 8]),
    'iterations': (dict(by_epoch=False, max_iters=5, val_interval=2), dict(by_epoch=False), [2, 4, 5]),
}


@pytest.mark.parametrize('dies', [1, 2, 3])
@pytest.mark.parametrize('loop', LOOPS)
def test_an_evaluation_that_was_killed_is_made_up_for(tmp_path, monkeypatch, loop, dies):
    train_cfg, hook, due = LOOPS[loop]
    hook = dict(hook, save_best='score', rule='greater', max_keep_ckpts=1)

    def train(work_dir, resume=False):
        run = runner(work_dir, resume=resume, train_cfg=train_cfg, **hook)
        monkeypatch.setattr(WeightScore, 'model', lambda self: run.model, raising=False)
        run.train()

    def evaluations(work_dir):
        lines = [json.loads(line) for path in sorted(work_dir.glob('*/vis_data/scalars.json'))
                 for line in path.read_text().splitlines()]
        return [(line['step'], line['score']) for line in lines if 'score' in line]

    monkeypatch.setitem(globals(), 'LOADER', dict(LOADER, dataset=[torch.ones(2)] * 2))
    monkeypatch.setattr(WeightScore, 'calls', 0)
    monkeypatch.setattr(WeightScore, 'dies', None)
    monkeypatch.setitem(EVALUATOR, 'type', 'WeightScore')
    train(tmp_path / 'whole')
    monkeypatch.setattr(WeightScore, 'calls', 0)
    monkeypatch.setattr(WeightScore, 'dies', dies)
    with pytest.raises(InterruptedError):
        train(tmp_path / 'killed')
    assert len(evaluations(tmp_path / 'killed')) == dies - 1
    train(tmp_path / 'killed', resume=True)
    assert evaluations(tmp_path / 'killed') == evaluations(tmp_path / 'whole')
    assert (tmp_path / 'killed' / 'last_evaluation').read_text() == str(due[-1])
    best = [{path.name for path in (tmp_path / name).glob('best*')} for name in ('whole', 'killed')]
    assert best[0] == best[1] and len(best[0]) == 1
    calls = WeightScore.calls
    train(tmp_path / 'killed', resume=True)  # there is nothing left to do
    assert WeightScore.calls == calls


def test_an_earlier_run_in_the_folder_has_evaluated_nothing_of_this_one(tmp_path):
    runner(tmp_path).train()
    assert (tmp_path / 'last_evaluation').read_text() == '4'
    runner(tmp_path, epochs=1, train_cfg=dict(by_epoch=True, max_epochs=1, val_begin=2)).train()
    assert not (tmp_path / 'last_evaluation').exists()


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
