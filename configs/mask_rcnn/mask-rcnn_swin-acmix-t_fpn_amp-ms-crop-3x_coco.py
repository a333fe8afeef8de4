# Mask R-CNN, Swin-ACmix-T, COCO, 36 epochs, multi-scale, half precision.
# mim train mmacmix mask-rcnn_swin-acmix-t_fpn_amp-ms-crop-3x_coco.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = [
    '../_base_/models/mask-rcnn.py', '../_base_/datasets/coco_instance_ms-crop.py',
    '../_base_/optimizers/adamw.py', '../_base_/schedules/schedule_3x.py',
    '../_base_/det_runtime.py',
]
model = dict(
    backbone=dict(type='mmacmix.SwinACmix', arch='tiny', drop_path_rate=0.2),
    neck=dict(in_channels=[96, 192, 384, 768]))
optim_wrapper = dict(
    type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(lr=1e-4, weight_decay=0.05))
