# RetinaNet, PVT-ACmix-T, COCO, 12 epochs.
# mim train mmacmix retinanet_pvt-acmix-t_fpn_1x_coco.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = [
    '../_base_/models/retinanet.py', '../_base_/datasets/coco_detection.py',
    '../_base_/optimizers/adamw.py', '../_base_/schedules/schedule_1x.py',
    '../_base_/det_runtime.py',
]
model = dict(
    backbone=dict(
        type='mmacmix.PVTACmix', arch='tiny', out_indices=(1, 2, 3), drop_path_rate=0.1),
    neck=dict(in_channels=[128, 320, 512]))
optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=1e-4))
