# Swin-ACmix-T, ImageNet-1k, 224 x 224, 300 epochs.
# mim train mmacmix swin-acmix-t_8xb128_in1k.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 128 images. Result: not trained.
_base_ = [
    '../_base_/models/classifier_mixup.py',
    '../_base_/datasets/imagenet_randaugment.py',
    '../_base_/optimizers/adamw.py',
    '../_base_/schedules/schedule_300e.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    backbone=dict(type='mmacmix.SwinACmix', arch='tiny', drop_path_rate=0.2, out_indices=(3,)),
    head=dict(in_channels=768))
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0., bias_decay_mult=0.),
    clip_grad=dict(max_norm=5.0))
