"""Mistakes that users make end, before a training begins, as docs/reliability.md says.

The table of the page has the messages; here is how each of its mistakes is made. '...' in a message stands for paths
and other things of the moment.
"""
import json
import re
import time
from pathlib import Path

import cv2
import mmengine.device
import numpy as np
import pytest
import torch
from mmengine.optim import OptimWrapper

from mmacmix.backbones import ResNetACmix, SwinACmix
from mmacmix.engine import sample_checks

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'reliability.md'
SECONDS = 20  # one second or two on a free core
CASES = {}


def table():
    """The messages of the page by the mistake that ends with them."""
    section = PAGE.read_text().split('\n## Wrong configs and data\n')[1].split('\n## ')[0]
    rows = re.findall(r'(?m)^\| (?!mistake )(.+?) \| `(.+)` \|$', section)
    return [(mistake, message.strip()) for mistake, message in rows]


def mistake(name):
    def add(function):
        assert name not in CASES, name
        CASES[name] = function
        return function

    return add


def simple(name, config, *arguments, tool='train', **settings):
    """A mistake that is made in the command or in one setting."""
    mistake(name)(lambda user: getattr(user, tool)(config, *arguments, **settings))


def option(name, config, *options):
    simple(name, config, options=options)


def edited(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def swapped(folder, first, second):
    a, b = folder / first, folder / second
    a.rename(folder / 'between')
    b.rename(a)
    (folder / 'between').rename(b)


# The command line and the config as a file.
simple('the config does not exist', 'no/where.py')
simple('a mistake of syntax in the config', 'fpn', text='model = dict(')
option('a key of `--cfg-options` is misspelt', 'fpn', 'laod_from=weights.pth')
option('`batch_size` is 0', 'fpn', 'train_dataloader.batch_size=0')
simple('`--resume` of a file that does not exist', 'fpn', '--resume', 'gone.pth')
option('`load_from` does not exist', 'fpn', 'load_from=gone.pth')
simple('a checkpoint to test that does not exist', 'fpn', 'gone.pth', tool='test')
option('a negative learning rate', 'fpn', 'optim_wrapper.optimizer.lr=-0.1')


option('the learning rate is a word', 'fpn', 'optim_wrapper.optimizer.lr=fast')
option('the learning rate is no number', 'fpn', 'optim_wrapper.optimizer.lr=nan')
option('the type of the optimizer is misspelt', 'fpn', 'optim_wrapper.optimizer.type=AdmaW')
option('the type of a hook is misspelt', 'fpn', 'default_hooks.logger.type=LogerHook')
option('a hook without its prefix', 'fpn', 'custom_hooks.0.type=SeedHook')
option('a setting of `clip_grad` is misspelt', 'fpn', 'optim_wrapper.clip_grad.max_nrm=1')
option('a setting of `paramwise_cfg` is misspelt', 'fpn', 'optim_wrapper.paramwise_cfg.custom_key.x=1')
option('no iteration is trained', 'fpn', 'train_cfg.max_iters=0')
option('`val_interval` is 0', 'fpn', 'train_cfg.val_interval=0')
option('the interval of checkpoints is a word', 'fpn', 'default_hooks.checkpoint.interval=often')
option('the seed is a word', 'fpn', 'randomness.seed=abc')
option('`default_scope` is the name of the project', 'fpn', 'default_scope=mmsegmentation')


@mistake('`_base_` does not exist')
def _(user):
    (user.folder / 'mine.py').write_text("_base_ = 'configs/no_such_base.py'\n")
    user.train(str(user.folder / 'mine.py'))


@mistake('mixed precision on a CPU')
def _(user):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mmengine.device, 'get_device', lambda: 'cpu')
        user.train('fpn', '--amp')


@mistake('the work dir cannot be written')
def _(user):
    (user.folder / 'file').touch()
    user.train('fpn', '--work-dir', user.folder / 'file' / 'work')


# The model.
option('a backbone without its prefix', 'fpn', 'model.backbone.type=ResNetACmix')
option('`default_scope` is that of the backbones', 'fpn', 'default_scope=mmacmix')
option('`depth` is unknown', 'fpn', 'model.backbone.depth=101')
option('`arch` is unknown', 'upernet', 'model.backbone.arch=huge')
option('an argument of the backbone is misspelt', 'fpn', 'model.backbone.frozen_stage=1')
option('`out_indices` beyond the last stage', 'fpn', 'model.backbone.out_indices=(1,2,3,4)')
option('`frozen_stages` beyond the last stage', 'fpn', 'model.backbone.frozen_stages=5')
option('`window_size` is 0', 'upernet', 'model.backbone.window_size=0')
option('`drop_path_rate` is 1 or more', 'upernet', 'model.backbone.drop_path_rate=1.5')
option('no path of ACmix is left', 'fpn', 'model.backbone.paths=()')
option('stages are frozen without weights', 'fpn', 'model.backbone.frozen_stages=1')
option('the neck lists the channels of another backbone', 'retinanet', 'model.neck.in_channels=[32,64,128]')
option('the backbone returns other maps than the neck takes', 'fpn', 'model.backbone.out_indices=(1,2,3)')
option('the decode head takes other channels than the neck gives', 'fpn', 'model.decode_head.in_channels=[32,32,32,32]')
option('the decode head takes other channels than the backbone gives', 'upernet',
       'model.decode_head.in_channels=[8,16,32,128]')
option('the auxiliary head takes another map', 'upernet', 'model.auxiliary_head.in_index=3')
option('a head takes a map that there is not', 'upernet', 'model.auxiliary_head.in_index=4')
option('the head of boxes takes other channels than the neck gives', 'retinanet', 'model.bbox_head.in_channels=32')
option('the head of regions takes other channels than the neck gives', 'mask_rcnn', 'model.rpn_head.in_channels=32')
option('a head of boxes with the classes of COCO', 'retinanet', 'model.bbox_head.num_classes=80')
option('a head of masks with the classes of COCO', 'mask_rcnn', 'model.roi_head.mask_head.num_classes=80')
option('a decode head with the classes of ADE20K', 'fpn', 'model.decode_head.num_classes=150')
option('the auxiliary head was forgotten', 'upernet', 'model.auxiliary_head.num_classes=150')

option('a head of boxes with anchors for other maps', 'retinanet', 'model.bbox_head.anchor_generator.strides=[8,16,32]')
option('the neck gives fewer maps than the head takes', 'retinanet', 'model.neck.num_outs=3')
option('regions are cut out of maps of other channels', 'mask_rcnn',
       'model.roi_head.bbox_roi_extractor.out_channels=32')
option('the mean of two channels', 'fpn', 'model.data_preprocessor.mean=[1,2]')
option('a backbone for images of four channels', 'fpn', 'model.backbone.in_channels=4')


# Weights.
def start(user, weights, name='fpn', **init_cfg):
    path = user.folder / 'weights.pth'
    if weights is not None:
        torch.save(weights, path)
    init_cfg = dict(type='Pretrained', checkpoint=str(path), **init_cfg)
    user.train(name, text=f'\nmodel["backbone"]["init_cfg"] = {init_cfg}\n')


@mistake('`init_cfg` names a file that does not exist')
def _(user):
    start(user, None)


@mistake('`init_cfg` names weights of another family')
def _(user):
    arch = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])
    start(user, SwinACmix(arch).state_dict())


@mistake('`init_cfg` names weights of another depth')
def _(user):
    start(user, ResNetACmix(38, stem_channels=8, base_channels=8).state_dict())


@mistake('`init_cfg` names the checkpoint of a whole detector, without `prefix`')
def _(user):
    weights = ResNetACmix(26, stem_channels=8, base_channels=8).state_dict()
    start(user, {f'backbone.{key}': value for key, value in weights.items()})


@mistake('`load_from` names a checkpoint of another family')
def _(user):
    user.train('upernet', options=[f'load_from={user.trained("fpn").checkpoint}'])


@mistake('a checkpoint of another config is tested')
def _(user):
    user.test('fpn', user.trained('fpn').checkpoint, options=['model.decode_head.channels=8'])


# Data.
option('a wrong `data_root`', 'retinanet', 'train_dataloader.dataset.data_root=/no/such/data')
option('the annotation file does not exist', 'retinanet', 'train_dataloader.dataset.ann_file=annotations/gone.json')
option('the metric names an annotation file that does not exist', 'retinanet', 'val_evaluator.ann_file=gone.json')
option('more images in a batch than there are, and `drop_last`', 'retinanet', 'train_dataloader.batch_size=3',
       'train_dataloader.drop_last=True', 'train_dataloader.batch_sampler=None')
option('`drop_last` of a data loader that has a batch sampler', 'retinanet', 'train_dataloader.drop_last=True')
TRAINING, VALIDATION = (f'annotations/instances_{split}2017.json' for split in ('train', 'val'))


@mistake('the annotation file is empty')
def _(user):
    (user.coco / TRAINING).write_text('')
    user.train('retinanet')


@mistake('the annotation file has no `categories`')
def _(user):
    edited(user.coco / TRAINING, lambda content: content.pop('categories'))
    user.train('retinanet')


@mistake('`classes` have other names than the categories')
def _(user):
    edited(user.coco / TRAINING, lambda content: [c.update(name=c['name'].title()) for c in content['categories']])
    user.train('retinanet')


@mistake('one of the `classes` is misspelt')
def _(user):
    edited(user.coco / TRAINING, lambda content: content['categories'][1].update(name='lihgt'))
    user.train('retinanet')


@mistake('`metainfo` was forgotten: the classes are those of COCO')
def _(user):
    user.train('retinanet', text='\nfor loader in (train_dataloader, val_dataloader):\n'
               '    del loader["dataset"]["metainfo"]\n')


@mistake('an image is damaged')
def _(user):
    path = user.coco / 'train2017' / '1.jpg'
    path.write_bytes(path.read_bytes()[:400])
    user.train('retinanet')


@mistake('an image is no image')
def _(user):
    (user.coco / 'val2017' / '0.jpg').write_text('<html>404</html>')
    user.train('retinanet')


@mistake('an image has no bytes')
def _(user):
    (user.ade / 'images' / 'training' / '0.jpg').write_bytes(b'')
    user.train('fpn')


@mistake('annotations of training with the images of validation')
def _(user):
    (user.coco / 'val2017' / '0.jpg').rename(user.coco / 'val2017' / '7.jpg')
    user.train('retinanet', options=['train_dataloader.dataset.data_prefix.img=val2017/'])


@mistake('the folder of images is empty')
def _(user):
    for path in (user.ade / 'images' / 'training').iterdir():
        path.unlink()
    user.train('fpn')


@mistake('boxes alone, for a detector of masks')
def _(user):
    edited(user.coco / TRAINING, lambda content: [entry.pop('segmentation') for entry in content['annotations']])
    user.train('mask_rcnn')


@mistake('the metric reads the annotations of other images')
def _(user):
    def renumber(content):
        for entry in content['images'] + content['annotations']:
            entry.update({key: entry[key] + 100 for key in ('id', 'image_id') if key in entry})

    edited(user.coco / TRAINING, renumber)
    user.test('retinanet', user.trained('retinanet').checkpoint,
              options=[f'test_evaluator.ann_file={user.coco / TRAINING}'])


@mistake('the metric reads annotations that have the same numbers for other images')
def _(user):
    edited(user.coco / TRAINING,
           lambda content: [image.update(file_name=f'{image["id"]}_of_another.jpg') for image in content['images']])
    user.test('retinanet', user.trained('retinanet').checkpoint,
              options=[f'test_evaluator.ann_file={user.coco / TRAINING}'])


def label_map(user, labels, split='training'):
    cv2.imwrite(str(user.ade / 'annotations' / split / '0.png'), labels)


@mistake('a label that is no class')
def _(user):
    label_map(user, np.full((64, 64), 7, np.uint8))
    user.train('fpn')


@mistake('a label that is no class, in validation')
def _(user):
    label_map(user, np.full((64, 64), 7, np.uint8), 'validation')
    user.train('fpn')


@mistake('a label that is no class, in a map that is not among the first')
def _(user):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_checks, 'SAMPLE', 0)
        label_map(user, np.full((64, 64), 7, np.uint8))
        user.train('fpn')


@mistake('a label map of another size than its image')
def _(user):
    label_map(user, np.zeros((64, 48), np.uint8))
    user.train('fpn')


@mistake('a label map of another size, which is not among the first')
def _(user):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample_checks, 'SAMPLE', 0)
        label_map(user, np.zeros((64, 48), np.uint8))
        user.train('fpn', text='\ntrain_dataloader["dataset"]["pipeline"] = test\n')


@mistake('a label map of colours')
def _(user):
    label_map(user, np.zeros((64, 64, 3), np.uint8))
    user.train('fpn')


@mistake('no label map for an image')
def _(user):
    (user.ade / 'annotations' / 'training' / '1.png').unlink()
    user.train('fpn')


@mistake('`metainfo` was forgotten: a data set without classes')
def _(user):
    user.train('fpn', text='\nfor loader in (train_dataloader, val_dataloader):\n'
               '    del loader["dataset"]["metainfo"]\n')


def annotated(name, change, config='retinanet', table='annotations', path=TRAINING):
    """A mistake in each entry of an annotation file."""
    def make(user):
        edited(user.coco / path, lambda content: [entry.update(change(entry)) for entry in content[table]])
        user.train(config)

    mistake(name)(make)


annotated('all images have one id', lambda image: dict(id=0), table='images')
annotated('boxes that are no numbers', lambda entry: dict(bbox=[float('nan')] * 4))
annotated('boxes outside of their images', lambda entry: dict(bbox=[1000, 1000, 20, 20]))
annotated('boxes of negative size', lambda entry: dict(bbox=[10, 10, -5, -5]))
annotated('boxes from 0 to 1', lambda entry: dict(bbox=[x / 64 for x in entry['bbox']]))
annotated('images of another size than annotated', lambda image: dict(width=640, height=480), table='images')
annotated('a mask that is a list of numbers', lambda entry: dict(segmentation=entry['segmentation'][0]), 'mask_rcnn')
annotated('polygons of two corners', lambda entry: dict(segmentation=[[1, 2, 3, 4]]), 'mask_rcnn')


@mistake('boxes of two corners')
def _(user):
    def change(content):
        entry = dict(content['annotations'][0], bbox=[40, 40, 60, 60])
        content['annotations'] = [dict(entry, id=i) for i in range(12)]

    edited(user.coco / TRAINING, change)
    user.train('retinanet')


@mistake('annotations of validation without `iscrowd`')
def _(user):
    edited(user.coco / VALIDATION, lambda content: [entry.pop('iscrowd') for entry in content['annotations']])
    user.train('retinanet')


@mistake('the categories of validation have another order')
def _(user):
    edited(user.coco / VALIDATION, lambda content: content['categories'].reverse())
    user.train('retinanet')


@mistake('the label maps ignore everything')
def _(user):
    for path in (user.ade / 'annotations' / 'training').iterdir():
        cv2.imwrite(str(path), np.zeros((64, 64), np.uint8))
    user.train('fpn')


option('a list of folders as `data_root`', 'fpn', 'train_dataloader.dataset.data_root=[here,there]')
option('`classes` is a word', 'retinanet', 'train_dataloader.dataset.metainfo.classes=dark')
LOADERS = 'for loader in (train_dataloader, val_dataloader):\n    loader["dataset"]'
simple('`CLASSES` in capitals', 'retinanet', text=f'\n{LOADERS}["metainfo"] = dict(CLASSES=("dark", "light"))\n')
ORDER = '''
val_dataloader = dict(val_dataloader, dataset=dict(val_dataloader["dataset"], metainfo=dict(classes=("light", "dark"))))
'''
simple('the classes of validation have another order', 'retinanet', text=ORDER)
simple('the classes of validation have another order, of a segmenter', 'fpn', text=ORDER)
STEPS = '\ntrain_dataloader["dataset"]["pipeline"] = '
simple('a step of the pipeline is misspelt', 'fpn', text=f'{STEPS}train[:2] + [dict(type="Resise")] + train[2:]\n')
simple('the pipeline loads no annotations', 'fpn', text=f'{STEPS}[train[0], *train[2:]]\n')
simple('the pipeline does not pack', 'fpn', text=f'{STEPS}train[:-1]\n')
simple('the pipeline of validation does not pack', 'fpn', text='\nval_dataloader["dataset"]["pipeline"] = test[:-1]\n')
simple('the pipeline loads no masks, for a detector of masks', 'mask_rcnn',
       text=f'{STEPS}[train[0], dict(type="LoadAnnotations", with_bbox=True), *train[2:]]\n')

# Metrics.
option('the type of a metric is misspelt', 'fpn', 'val_evaluator.type=IouMetric')
option('a metric of `IoUMetric` is misspelt', 'fpn', 'val_evaluator.iou_metrics=["mIou"]')
option('masks are evaluated of a detector of boxes', 'retinanet', 'val_evaluator.metric=["bbox","segm"]')
option('`save_best` is no metric', 'fpn', 'default_hooks.checkpoint.save_best=mIOU')
option('`save_best` without the prefix of the metric', 'retinanet', 'default_hooks.checkpoint.save_best=bbox_mAP')

ROWS = table()


def test_the_table_has_every_mistake_once():
    names = [name for name, _ in ROWS]
    assert sorted(names) == sorted(CASES)
    assert len(names) >= 25


@pytest.mark.parametrize('name, message', ROWS, ids=[name for name, _ in ROWS])
def test_mistake(user, monkeypatch, name, message):
    def trained(self, loss):
        raise AssertionError('an iteration was trained')

    if 'checkpoint of another' in name or 'the metric reads' in name:
        user.trained('fpn' if 'checkpoint' in name else 'retinanet')
    monkeypatch.setattr(OptimWrapper, 'update_params', trained)
    before = time.perf_counter()
    with pytest.raises((Exception, SystemExit)) as end:
        CASES[name](user)
    assert time.perf_counter() - before < SECONDS
    said = str(end.value.code if isinstance(end.value, SystemExit) else f'{type(end.value).__name__}: {end.value}')
    pattern = '.*'.join(re.escape(part) for part in message.split('...'))
    assert re.fullmatch(pattern, said.strip(), re.S), said


WRAP = '''
inner = dict(_base_.train_dataloader.dataset, **train_dataloader['dataset'])
train_dataloader['dataset'] = dict(_delete_=True, {})
'''
RIGHT = dict(
    repeated=('retinanet', WRAP.format("type='RepeatDataset', times=2, dataset=inner")),
    joined=('fpn', WRAP.format("type='ConcatDataset', datasets=[inner, inner]")),
    balanced=('retinanet', WRAP.format("type='ClassBalancedDataset', oversample_thr=0.1, dataset=inner")),
    frozen=('fpn', 'model["backbone"].update(frozen_stages=2, init_cfg=dict(type="Pretrained", checkpoint="w.pth"))'),
    without_neck=('upernet', ''),
    of_which_a_part_is_background=('retinanet', WRAP.format(
        "type='ConcatDataset', datasets=[inner, dict(inner, ann_file='background.json', "
        'filter_cfg=dict(filter_empty_gt=False))]')),
    steps_inside_others=('fpn', """
train_dataloader['dataset']['pipeline'] = [
    dict(type='RandomChoice', transforms=[[step]]) if step['type'] in ('LoadAnnotations', 'PackSegInputs') else step
    for step in train]
"""),
    of_another_host=('retinanet', """
model['backbone'] = dict(_delete_=True, type='ResNet', depth=18, num_stages=4, out_indices=(1, 2, 3), base_channels=8)
model['neck']['in_channels'] = [16, 32, 64]
"""),
)


@pytest.mark.parametrize('name', RIGHT)
def test_what_is_right_is_trained(user, monkeypatch, name):
    """Label maps of half the size are among it: the pipeline brings both to one."""
    monkeypatch.chdir(user.folder)
    torch.save(ResNetACmix(26, stem_channels=8, base_channels=8).state_dict(), 'w.pth')
    label_map(user, np.ones((32, 32), np.uint8))
    content = json.loads((user.coco / TRAINING).read_text())
    (user.coco / 'background.json').write_text(json.dumps(dict(content, annotations=[])))
    config, text = RIGHT[name]
    user.train(config, text='\n' + text)
    assert list((user.folder / 'work').glob('*_1.pth'))
