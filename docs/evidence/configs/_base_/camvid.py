# Segmentation on CamVid (ADE20K layout in data/camvid), as docs/evidence.md fixes it; a row adds the backbone.
_base_ = [
    '../../../../configs/_base_/models/fpn.py', '../../../../configs/_base_/datasets/ade20k.py',
    '../../../../configs/_base_/seg_runtime.py',
]
custom_imports = dict(
    imports=['mmacmix.registry', 'evidence.classwise_iou', 'evidence.hooks', 'evidence.plain_resnet'],
    allow_failed_imports=False)
classes = 'sky building pole road pavement tree sign fence car pedestrian bicyclist'
mine = dict(type='BaseSegDataset', img_suffix='.jpg', seg_map_suffix='.png', data_root='data/camvid/',
            metainfo=dict(classes=tuple(classes.split())))
crop_size = (256, 256)
model = dict(
    data_preprocessor=dict(size=crop_size),
    neck=dict(out_channels=128),
    decode_head=dict(in_channels=[128] * 4, channels=64, num_classes=11))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75), dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
# Without workers a run takes one core, and its seconds are those of all its work.
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, **mine), **workers)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **mine), **workers)
test_dataloader = val_dataloader
val_evaluator = dict(type='ClasswiseIoU')
test_evaluator = val_evaluator
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(rate1=dict(decay_mult=0.), rate2=dict(decay_mult=0.))))
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=600)]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=600, val_interval=200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=100, max_keep_ckpts=1))
custom_hooks = [
    dict(type='mmacmix.StartCheckHook'),
    dict(type='mmacmix.CheckpointGuardHook'),
    dict(type='mmacmix.SeedHook'),
    dict(type='mmacmix.MixingRatesHook', interval=200),
    dict(type='ProgressHook', interval=20)]
randomness = dict(seed=0)
