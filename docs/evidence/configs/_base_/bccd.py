# Detection on BCCD (COCO layout in data/bccd), as docs/evidence.md fixes it; a row adds the backbone.
_base_ = [
    '../../../../configs/_base_/models/retinanet.py', '../../../../configs/_base_/datasets/coco_detection.py',
    '../../../../configs/_base_/schedules/schedule_1x.py', '../../../../configs/_base_/det_runtime.py',
]
custom_imports = dict(
    imports=['mmacmix.registry', 'evidence.hooks', 'evidence.plain_resnet'], allow_failed_imports=False)
root = 'data/bccd/'
mine = dict(data_root=root, metainfo=dict(classes=('RBC', 'WBC', 'Platelets')))
model = dict(bbox_head=dict(num_classes=3))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(320, 240), keep_ratio=True), dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=(320, 240), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
# Without workers a run takes one core, and its seconds are those of all its work.
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, **mine), **workers)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **mine), **workers)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=root + 'annotations/instances_val2017.json', classwise=True)
test_evaluator = val_evaluator
optim_wrapper = dict(
    type='OptimWrapper',
    clip_grad=dict(max_norm=1.0),
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys=dict(rate1=dict(decay_mult=0.), rate2=dict(decay_mult=0.))))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1)]
train_cfg = dict(val_interval=3)
default_hooks = dict(
    logger=dict(interval=10, log_metric_by_epoch=False), checkpoint=dict(interval=1, max_keep_ckpts=1))
custom_hooks = [
    dict(type='mmacmix.StartCheckHook'),
    dict(type='mmacmix.CheckpointGuardHook'),
    dict(type='mmacmix.SeedHook'),
    dict(type='mmacmix.MixingRatesHook', interval=111),
    dict(type='ProgressHook', interval=10)]
randomness = dict(seed=0)
