"""Checkpoints are whole or not there, and none goes before the next is."""

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmacmix.checkpoint_files import check_file


@MODELS.register_module()
class KeptModel(BaseModel):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Linear(2, 4)

    def forward(self, *inputs, mode):
        return dict(loss=self.backbone(torch.stack(inputs)).square().mean())


def runner(work_dir, resume=False, **hook):
    return Runner.from_cfg(Config(dict(
        model=dict(type='KeptModel'), work_dir=str(work_dir), default_scope='mmengine', resume=resume,
        experiment_name=f'{work_dir.name}_{torch.rand(1).item()}',
        default_hooks=dict(checkpoint=dict(type='mmacmix.WholeCheckpointHook', interval=1, **hook)),
        train_dataloader=dict(dataset=[torch.ones(2)], sampler=dict(type='DefaultSampler'), batch_size=1),
        train_cfg=dict(by_epoch=True, max_epochs=4), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))))


def files(work_dir):
    return {path.name for path in work_dir.iterdir() if path.is_file()}


@pytest.mark.parametrize('kept, names', [
    (-1, {'epoch_1.pth', 'epoch_2.pth', 'epoch_3.pth', 'epoch_4.pth'}), (2, {'epoch_3.pth', 'epoch_4.pth'}),
    (1, {'epoch_4.pth'})])
def test_what_is_kept(tmp_path, kept, names):
    runner(tmp_path, max_keep_ckpts=kept).train()
    assert files(tmp_path) - {name for name in files(tmp_path) if name.endswith('.py')} == {'last_checkpoint', *names}
    assert (tmp_path / 'last_checkpoint').read_text() == str(tmp_path / 'epoch_4.pth')


@pytest.mark.parametrize('ending', ['epoch_3.pth.part', 'last_checkpoint.part'])
def test_a_write_that_stops_in_the_middle(tmp_path, monkeypatch, ending):
    def halved(put):
        def stopped(self, content, path, *args):
            put(self, content[:len(content) // 2], path, *args)
            if str(path).endswith(ending) and (tmp_path / 'epoch_2.pth').exists():
                raise OSError('no space left')
            put(self, content, path, *args)
        return stopped

    with monkeypatch.context() as patch, pytest.raises(OSError, match='no space left'):
        for name in ('put', 'put_text'):
            patch.setattr(LocalBackend, name, halved(getattr(LocalBackend, name)))
        runner(tmp_path, max_keep_ckpts=1).train()
    named = (tmp_path / 'last_checkpoint').read_text()
    check_file(named)
    again = runner(tmp_path, resume=True, max_keep_ckpts=1)
    again.train()
    assert again.epoch == 4
    assert {name for name in files(tmp_path) if name.endswith(('.pth', '.part'))} == {'epoch_4.pth'}
