# Mask R-CNN, PVT-ACmix-T, COCO, 12 epochs.
# mim train mmacmix mask-rcnn_pvt-acmix-t_fpn_1x_coco.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = [
    '../_base_/models/mask-rcnn.py', '../_base_/datasets/coco_instance.py',
    '../_base_/optimizers/adamw.py', '../_base_/schedules/schedule_1x.py',
    '../_base_/det_runtime.py',
]
model = dict(
    backbone=dict(type='mmacmix.PVTACmix', arch='tiny', drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 320, 512]))
optim_wrapper = dict(optimizer=dict(lr=2e-4, weight_decay=1e-4))
