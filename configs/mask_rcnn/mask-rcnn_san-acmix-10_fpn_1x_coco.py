# Mask R-CNN, SAN-ACmix-10, COCO, 12 epochs.
# mim train mmacmix mask-rcnn_san-acmix-10_fpn_1x_coco.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = [
    '../_base_/models/mask-rcnn.py', '../_base_/datasets/coco_instance.py',
    '../_base_/optimizers/sgd.py', '../_base_/schedules/schedule_1x.py',
    '../_base_/det_runtime.py',
]
# SAN has been published for classification: optimiser and schedule are those of ResNet.
# Nothing is frozen: without ImageNet weights a frozen stage or norm would stay at random.
model = dict(
    backbone=dict(
        type='mmacmix.SANACmix', depth=10, frozen_stages=-1, norm_eval=False),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
optim_wrapper = dict(optimizer=dict(lr=0.02))
