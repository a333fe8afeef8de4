# SAN-ACmix-10, ImageNet-1k, 224 x 224, 100 epochs.
# mim train mmacmix san-acmix-10_8xb32_in1k.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 32 images. Result: not trained.
_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/optimizers/sgd.py',
    '../_base_/schedules/schedule_100e.py',
    '../_base_/cls_runtime.py',
]
model = dict(backbone=dict(type='mmacmix.SANACmix', depth=10, out_indices=(3,)))
optim_wrapper = dict(optimizer=dict(lr=0.1))
