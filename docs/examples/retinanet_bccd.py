# RetinaNet, ResNet-ACmix-26, blood cells (BCCD as COCO in data/bccd), from random initialisation.
# mim train mmdet docs/examples/retinanet_bccd.py --work-dir work_dirs/bccd
# Box AP 0.483, AP50 0.765 after 12 epochs, mean of three seeds, on a CPU: docs/evidence.md.
_base_ = '../../configs/retinanet/retinanet_resnet-acmix-26_fpn_1x_coco.py'
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
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline, **mine))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **mine))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
optim_wrapper = dict(
    clip_grad=dict(max_norm=1.0), optimizer=dict(_delete_=True, type='AdamW', lr=5e-4, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=50),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1)]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(max_keep_ckpts=2))
train_cfg = dict(val_interval=4)
randomness = dict(seed=0)
