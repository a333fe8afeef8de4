# Cascade Mask R-CNN, Swin-ACmix-T, COCO, 12 epochs.
# mim train mmacmix cascade-mask-rcnn_swin-acmix-t_fpn_1x_coco.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = [
    '../_base_/models/cascade-mask-rcnn.py', '../_base_/datasets/coco_instance.py',
    '../_base_/optimizers/adamw.py', '../_base_/schedules/schedule_1x.py',
    '../_base_/det_runtime.py',
]
model = dict(
    backbone=dict(type='mmacmix.SwinACmix', arch='tiny', drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 768]))
optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1),
]
