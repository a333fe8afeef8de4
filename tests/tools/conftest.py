"""The wheel of these sources, installed beside the environment, and data of a few small images."""
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
# What a wheel is made of.
SOURCES = ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml', 'requirements',
           'mmacmix', 'configs', 'tools')


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    """A folder into which a wheel of the current sources is installed; for PYTHONPATH.

    It comes before the environment's own mmacmix, which may be older, on sys.path.
    """
    base = tmp_path_factory.mktemp('wheel')
    source = base / 'source'
    source.mkdir()
    skip = shutil.ignore_patterns('__pycache__', '.mim')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=skip)
        else:
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check']
    run([*pip, 'wheel', '--no-deps', '--no-build-isolation', '-w', base, source])
    wheel, = base.glob('*.whl')
    run([*pip, 'install', '--no-deps', '--target', base / 'site', wheel])
    return base / 'site'


def run(command):
    """Run a command that must succeed; show what it printed if it does not."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope='session')
def mim(site):
    """mim(*args, cwd=...): run mim on the installed wheel; returns `code` and `output`."""
    onedl = importlib.metadata.packages_distributions()['mim'] == ['onedl-mim']
    env = dict(os.environ, PYTHONPATH=str(site), OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')

    def call(*args, cwd):
        if args[1:2] == ('mmdet',) and onedl:
            args = (args[0], 'mmdetection', *args[2:])  # onedl-mim has no abbreviation for it
        command = [sys.executable, '-m', 'mim', *(str(arg) for arg in args)]
        result = subprocess.run(
            command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True)
        return SimpleNamespace(code=result.returncode, output=result.stdout)

    return call


@pytest.fixture(scope='session')
def coco(tmp_path_factory):
    """Two training and two validation images of 64x64 with boxes and masks, in COCO's layout."""
    root = tmp_path_factory.mktemp('coco')
    (root / 'annotations').mkdir()
    rng = np.random.default_rng(0)
    for split in ('train2017', 'val2017'):
        (root / split).mkdir()
        images, annotations = [], []
        for index in range(2):
            name = f'{index}.jpg'
            image = rng.integers(0, 90, (64, 64, 3), dtype=np.uint8)
            for category, (x, y, size) in enumerate(((6, 8, 24), (34, 30, 20)), start=1):
                image[y:y + size, x:x + size] = 80 * category
                corners = [x, y, x + size, y, x + size, y + size, x, y + size]
                annotations.append(dict(
                    id=len(annotations) + 1, image_id=index, category_id=category, iscrowd=0,
                    bbox=[x, y, size, size], area=size * size, segmentation=[corners]))
            cv2.imwrite(str(root / split / name), image)
            images.append(dict(id=index, file_name=name, width=64, height=64))
        categories = [dict(id=1, name='dark'), dict(id=2, name='light')]
        content = dict(images=images, annotations=annotations, categories=categories)
        path = root / 'annotations' / f'instances_{split}.json'
        path.write_text(json.dumps(content))
    return root


@pytest.fixture(scope='session')
def ade(tmp_path_factory):
    """Two training and two validation images of 64x64 with labels 0, 1, 2, in ADE20K's layout."""
    root = tmp_path_factory.mktemp('ade')
    rng = np.random.default_rng(0)
    for split in ('training', 'validation'):
        (root / 'images' / split).mkdir(parents=True)
        (root / 'annotations' / split).mkdir(parents=True)
        for index in range(2):
            labels = np.zeros((64, 64), np.uint8)
            labels[8:40, 4:60] = 1
            labels[44:60, 4:60] = 2
            noise = rng.integers(0, 40, (64, 64, 3), dtype=np.uint8)
            image = labels[..., None] * 100 + noise
            cv2.imwrite(str(root / 'images' / split / f'{index}.jpg'), image)
            cv2.imwrite(str(root / 'annotations' / split / f'{index}.png'), labels)
    return root


def load_tool(name, monkeypatch):
    """Return the module of tools/<name>.py, which is no part of a package."""
    path = ROOT / 'tools' / f'{name}.py'
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location(f'tool_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(name='load_tool', scope='session')
def _load_tool():
    return load_tool


@pytest.fixture()
def train_tool(monkeypatch):
    return load_tool('train', monkeypatch)


@pytest.fixture()
def test_tool(monkeypatch):
    return load_tool('test', monkeypatch)


@pytest.fixture()
def make_env(monkeypatch):
    monkeypatch.delenv('STACK', raising=False)  # whichever stack the tests run on
    return load_tool('setup/make_env', monkeypatch)


@pytest.fixture()
def det_config(coco):
    """Arguments for a packaged config of mmdet whose data are the small ones."""
    options = [f'{split}_dataloader.dataset.data_root={coco}' for split in ('train', 'val', 'test')]
    options += [f'{split}_evaluator.ann_file={coco}/annotations/instances_val2017.json'
                for split in ('val', 'test')]
    path = ROOT / 'configs/retinanet/retinanet_resnet-acmix-26_fpn_1x_coco.py'
    return SimpleNamespace(path=str(path), options=options)


@pytest.fixture()
def seg_config(ade):
    """Arguments for a packaged config of mmseg whose data are the small ones."""
    options = [f'{split}_dataloader.dataset.data_root={ade}' for split in ('train', 'val', 'test')]
    path = ROOT / 'configs/sem_fpn/fpn_resnet-acmix-26_8xb4-40k_ade20k-512x512.py'
    return SimpleNamespace(path=str(path), options=options)


# Configs of a user: those of the zoo, narrow, for the small images.
OWN = dict(
    retinanet='''
_base_ = '{configs}/retinanet/retinanet_resnet-acmix-26_fpn_1x_coco.py'
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=[64, 128, 256], out_channels=16),
    bbox_head=dict(num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1),
    test_cfg=dict(score_thr=0.))
''',
    mask_rcnn='''
_base_ = '{configs}/mask_rcnn/mask-rcnn_resnet-acmix-26_fpn_1x_coco.py'
model = dict(
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=dict(in_channels=16, fc_out_channels=16, num_classes=2),
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(num_convs=1, in_channels=16, conv_out_channels=16, num_classes=2)),
    test_cfg=dict(rpn=dict(nms_pre=50, max_per_img=20), rcnn=dict(score_thr=0., max_per_img=5)))
''',
    cascade='''
_base_ = '{configs}/cascade_mask_rcnn/cascade-mask-rcnn_swin-acmix-t_fpn_1x_coco.py'
model = dict(
    backbone=dict(arch=dict(_delete_=True, embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, feat_channels=16),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16),
        bbox_head=[dict(head, in_channels=16, conv_out_channels=16, fc_out_channels=16, num_classes=2)
                   for head in _base_.model.roi_head.bbox_head],
        mask_roi_extractor=dict(out_channels=16),
        mask_head=dict(num_convs=1, in_channels=16, conv_out_channels=16, num_classes=2)))
''',
    upernet='''
_base_ = '{configs}/upernet/upernet_swin-acmix-t_8xb2-160k_ade20k-512x512.py'
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(arch=dict(_delete_=True, embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=16, num_classes=2),
    auxiliary_head=dict(in_channels=32, channels=16, num_classes=2))
''',
    fpn='''
_base_ = '{configs}/sem_fpn/fpn_resnet-acmix-26_8xb4-40k_ade20k-512x512.py'
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(stem_channels=8, base_channels=8),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=16),
    decode_head=dict(in_channels=[16] * 4, channels=16, num_classes=2))
''')
DETECTION = '''
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
dataset = dict(data_root='{data}/', metainfo=dict(classes=('dark', 'light')))
train, test = _base_.train_pipeline, _base_.test_pipeline
train[2]['scale'] = test[1]['scale'] = (64, 64)
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'][0] = [dict(type='Resize', scale=(n, n), keep_ratio=True) for n in (64, 48)]
train_dataloader = dict(dataset=dict(pipeline=train, **dataset), **loader)
val_dataloader = dict(dataset=dict(pipeline=test, **dataset), **loader)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{data}/annotations/instances_val2017.json')
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
'''
SEGMENTATION = '''
loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
dataset = dict(type='BaseSegDataset', img_suffix='.jpg', seg_map_suffix='.png', data_root='{data}/',
               metainfo=dict(classes=('dark', 'light')))
train, test = _base_.train_pipeline, _base_.test_pipeline
train[2]['scale'] = test[1]['scale'] = train[3]['crop_size'] = (64, 64)
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1]['transforms'][0] = [dict(type='Resize', scale=(n, n), keep_ratio=True) for n in (64, 48)]
train_dataloader = dict(dataset=dict(pipeline=train, **dataset), **loader)
val_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(pipeline=test, **dataset))
test_dataloader = val_dataloader
train_cfg = dict(max_iters=1)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=1)]
'''


@pytest.fixture(scope='session')
def own_config(coco, ade, tmp_path_factory):
    """own_config(name) writes a config of OWN that a user could have written; returns its path."""
    folder = tmp_path_factory.mktemp('configs')

    def write(name):
        rest, data = (SEGMENTATION, ade) if name in ('fpn', 'upernet') else (DETECTION, coco)
        text = (OWN[name] + rest).replace('{configs}', str(ROOT / 'configs')).replace('{data}', str(data))
        path = folder / f'{name}.py'
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope='session')
def trained(own_config, tmp_path_factory):
    """trained(name) has tools/train.py train a config of OWN for one iteration; `config` and `checkpoint`."""
    done = {}

    def train(name):
        if name not in done:
            config, work_dir = own_config(name), tmp_path_factory.mktemp(name)
            with pytest.MonkeyPatch.context() as patch:
                load_tool('train', patch).main([str(config), '--work-dir', str(work_dir)])
            checkpoint, = work_dir.glob('*_1.pth')
            done[name] = SimpleNamespace(config=str(config), checkpoint=str(checkpoint), work_dir=work_dir)
        return done[name]

    return train
