"""The record of the rates while a model is trained."""

import json

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner

from mmacmix.backbones import ResNetACmix
from mmacmix.engine import MixingRatesHook


@MODELS.register_module()
class MixedModel(BaseModel):
    def __init__(self, paths):
        super().__init__()
        self.backbone = ResNetACmix(26, stem_channels=8, base_channels=8, out_indices=(0,), num_stages=1,
                                    strides=(1,), dilations=(1,), paths=paths)

    def forward(self, images, mode):
        return dict(loss=self.backbone(torch.stack(images))[0].square().mean())


def train(tmp_path, paths=('attention', 'convolution'), interval=2, iterations=5, resume=False):
    torch.manual_seed(0)
    data = [dict(images=torch.randn(3, 16, 16)) for _ in range(4)]
    Runner(
        model=MixedModel(paths),
        work_dir=str(tmp_path),
        train_dataloader=dict(dataset=data, batch_size=2, sampler=dict(type='InfiniteSampler'),
                              collate_fn=pseudo_collate),
        train_cfg=dict(by_epoch=False, max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=iterations)),
        custom_hooks=[dict(type='mmacmix.MixingRatesHook', interval=interval)],
        resume=resume,
        experiment_name=f'rates_{tmp_path.name}_{iterations}',
        log_level='ERROR',
    ).train()


def record(tmp_path):
    files = sorted(tmp_path.glob('*/vis_data/scalars.json'))[-1:]
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [line for line in lines if any('mixing_rates' in key for key in line)]


def test_rates_are_recorded(tmp_path):
    train(tmp_path)
    lines = record(tmp_path)
    assert [line.pop('step') for line in lines] == [0, 2, 4, 5]
    names = ['mixing_rates/layer1.0.conv2.attention', 'mixing_rates/layer1.0.conv2.convolution']
    assert all(list(line) == names for line in lines)
    assert list(lines[0].values()) == [0.5, 0.5]
    state = torch.load(tmp_path / 'iter_5.pth', weights_only=True)['state_dict']
    expected = [state[f'backbone.layer1.0.conv2.{rate}'].item() for rate in ('rate1', 'rate2')]
    assert list(lines[-1].values()) == expected and expected != [0.5, 0.5]
    train(tmp_path, iterations=6, resume=True)
    lines = record(tmp_path)[-2:]  # of a second run in the same second, one file holds both
    assert [line['step'] for line in lines] == [5, 6]
    assert [lines[0][name] for name in names] == expected


def test_a_model_without_rates_is_trained_all_the_same(tmp_path):
    train(tmp_path, paths=('attention',), iterations=1)
    assert record(tmp_path) == []
    assert (tmp_path / 'iter_1.pth').exists()


@pytest.mark.parametrize('interval', [0, -1, 2.0, True, '5'])
def test_wrong_interval(interval):
    with pytest.raises(ValueError, match='interval must be a positive integer, got interval='):
        MixingRatesHook(interval)
