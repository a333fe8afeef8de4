"""Every family learns: a narrow detector knows 8 images of the demo by heart in 150 iterations.

Through tools/train.py and tools/test.py, with the heads and the measure of MMDetection. Neck and head alone can do that
too, on a backbone that stays as it is, so the rates of every layer must have learnt as well: gradients reach all of it.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmacmix.checkpoints import read_checkpoint
from mmacmix.state_dicts import mixing_layers

ROOT = Path(__file__).resolve().parents[2]
# The narrow backbone of each family, and the channels of its maps.
BACKBONES = dict(
    resnet=("type='mmacmix.ResNetACmix', depth=26, stem_channels=8, base_channels=8", [32, 64, 128, 256]),
    swin=("type='mmacmix.SwinACmix', drop_path_rate=0., window_size=4, "
          'arch=dict(embed_dims=16, depths=[1, 2, 2, 1], num_heads=[1, 2, 4, 8])', [16, 32, 64, 128]),
    pvt=("type='mmacmix.PVTACmix', drop_path_rate=0., pretrain_img_size=64, arch=dict(embed_dims=[16, 32, 40, 64], "
         'depths=[1, 2, 2, 1], num_heads=[1, 2, 5, 8], sr_ratios=[8, 4, 2, 1], mlp_ratios=[4, 4, 4, 4])',
         [16, 32, 40, 64]),
    san=("type='mmacmix.SANACmix', depth=10, stem_channels=32, attn_kernel_sizes=[3, 3, 3, 3, 3]",
         [128, 256, 512, 1024]))
CONFIG = '''
_base_ = ['{configs}/_base_/models/retinanet.py', '{configs}/_base_/datasets/coco_detection.py',
          '{configs}/_base_/optimizers/adamw.py', '{configs}/_base_/det_runtime.py',
          '{configs}/_base_/schedules/schedule_demo.py']
model = dict(
    backbone=dict({backbone}, out_indices=(1, 2, 3)),
    neck=dict(in_channels={channels}[1:], out_channels=32, num_outs=3),
    bbox_head=dict(
        num_classes=6, in_channels=32, feat_channels=32, stacked_convs=1,
        anchor_generator=dict(octave_base_scale=2, scales_per_octave=2, strides=[8, 16, 32])))
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(64, 64)), dict(type='PackDetInputs', meta_keys=_base_.meta_keys)]
data = dict(data_root='{data}/coco/', pipeline=pipeline, data_prefix=dict(img='train2017/'),
            ann_file='annotations/instances_train2017.json',
            metainfo=dict(classes=('disc', 'triangle', 'square', 'star', 'ring', 'cross')))
loader = dict(batch_size=8, num_workers=0, persistent_workers=False, dataset=data)
train_dataloader = dict(
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True), batch_sampler=None, **loader)
val_dataloader = loader
test_dataloader = loader
val_evaluator = dict(ann_file='{data}/coco/annotations/instances_train2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_iters=150, val_interval=150)
optim_wrapper = dict(optimizer=dict(lr=3e-3), clip_grad=dict(max_norm=5.))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.01, by_epoch=False, begin=20, end=150)]
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=150), logger=dict(log_metric_by_epoch=False))
log_processor = dict(by_epoch=False)
'''


def run(script, *args):
    """Run a script at one thread; it must succeed."""
    result = subprocess.run(
        [sys.executable, str(ROOT / 'tools' / script), *map(str, args)], env=dict(os.environ, OMP_NUM_THREADS='1'),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    """Eight images of the demo, 64 x 64."""
    folder = tmp_path_factory.mktemp('images') / 'data'
    run('demo/make_dataset.py', '--out', folder, '--train', 8, '--val', 1, '--size', 64)
    return folder


@pytest.fixture()
def learn(images, tmp_path):
    """learn(family, *options) trains and tests; returns box AP50 on the images and the trained weights."""

    def call(family, *options):
        backbone, channels = BACKBONES[family]
        config, checkpoint = tmp_path / 'config.py', tmp_path / 'work' / 'iter_150.pth'
        settings = dict(configs=ROOT / 'configs', data=images, backbone=backbone, channels=channels)
        text = CONFIG
        for name, value in settings.items():
            text = text.replace(f'{{{name}}}', str(value))
        config.write_text(text)
        options = ['--cfg-options', *options] if options else []
        run('train.py', config, '--work-dir', tmp_path / 'work', *options)
        run('test.py', config, checkpoint, '--work-dir', tmp_path / 'test', *options)
        figures, = (tmp_path / 'test').glob('*/*.json')
        figure = json.loads(figures.read_text())['coco/bbox_mAP_50']
        print(f'{family} {options}: AP50 {figure}')
        return figure, read_checkpoint(str(checkpoint))['state_dict']

    return call


@pytest.mark.parametrize(
    'family', ['resnet', 'swin', *(pytest.param(name, marks=pytest.mark.nightly) for name in ('pvt', 'san'))])
def test_eight_images_by_heart(learn, family):
    figure, state = learn(family)
    assert figure >= 0.9
    for layer in mixing_layers(state):
        for rate in ('rate1', 'rate2'):
            assert state[f'{layer}.{rate}'].item() != 0.5, f'{layer}.{rate} has not learnt'


@pytest.mark.nightly
@pytest.mark.parametrize('seed', [1, 2])
@pytest.mark.parametrize('family', ['resnet', 'swin'])
def test_other_seeds(learn, family, seed):
    assert learn(family, f'randomness.seed={seed}')[0] >= 0.9
