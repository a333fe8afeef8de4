# PVT-ACmix-T, ImageNet-1k, 224 x 224, 300 epochs.
# mim train mmacmix pvt-acmix-t_8xb128_in1k.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 128 images. Result: not trained.
_base_ = [
    '../_base_/models/classifier_mixup.py',
    '../_base_/datasets/imagenet_randaugment.py',
    '../_base_/optimizers/adamw.py',
    '../_base_/schedules/schedule_300e.py',
    '../_base_/cls_runtime.py',
]
model = dict(
    backbone=dict(type='mmacmix.PVTACmix', arch='tiny', drop_path_rate=0.1, out_indices=(3,)),
    head=dict(in_channels=512))
# DeiT's repeated augmentation, and 5 epochs of warm-up.
train_dataloader = dict(sampler=dict(type='RepeatAugSampler', shuffle=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=5, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', T_max=295, eta_min=1e-5, begin=5, end=300,
        convert_to_iter_based=True),
]
optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.05),
    paramwise_cfg=dict(
        norm_decay_mult=0., bias_decay_mult=0., custom_keys=dict(pos_embed=dict(decay_mult=0.))))
