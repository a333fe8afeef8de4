"""Every family learns: 8 images of the demo, by heart, through tools/train.py and tools/test.py.

The measure is that of the host, on the images that were trained on. With the backbone frozen at its start neck and head
alone stay below (docs/reliability.md), so that it is the backbone whose gradients do it.
"""
import json
import runpy
from pathlib import Path

import pytest
import torch

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
SEGMENTER = '''
_base_ = '{configs}/demo/fpn_resnet-acmix_demo.py'
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(_delete_=True, {backbone}),
    neck=dict(in_channels={channels}, out_channels=16),
    decode_head=dict(in_channels=[16] * 4, channels=16, dropout_ratio=0.))
data = dict(data_root='{data}/ade/', pipeline=_base_.test_pipeline,
            data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'))
'''
DETECTOR = '''
_base_ = ['{configs}/_base_/models/retinanet.py', '{configs}/_base_/datasets/coco_detection.py',
          '{configs}/_base_/optimizers/adamw.py', '{configs}/_base_/det_runtime.py',
          '{configs}/_base_/schedules/schedule_demo.py']
model = dict(
    backbone=dict({backbone}, out_indices=(1, 2, 3)),
    neck=dict(in_channels={channels}[1:], out_channels=32, num_outs=3),
    bbox_head=dict(
        num_classes=6, in_channels=32, feat_channels=32, stacked_convs=1,
        anchor_generator=dict(octave_base_scale=2, scales_per_octave=2, strides=[8, 16, 32])))
log_processor = dict(by_epoch=False)
pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape'))]
data = dict(data_root='{data}/coco/', pipeline=pipeline, data_prefix=dict(img='train2017/'),
            ann_file='annotations/instances_train2017.json',
            metainfo=dict(classes=('disc', 'triangle', 'square', 'star', 'ring', 'cross')))
train_dataloader = dict(sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True), batch_sampler=None)
test_evaluator = dict(ann_file='{data}/coco/annotations/instances_train2017.json')
val_evaluator = test_evaluator
'''
