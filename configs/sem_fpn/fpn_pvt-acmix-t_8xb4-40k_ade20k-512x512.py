# Semantic FPN, PVT-ACmix-T, ADE20K, 40000 iterations.
# mim train mmacmix fpn_pvt-acmix-t_8xb4-40k_ade20k-512x512.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 4 images. Result: not trained.
_base_ = [
    '../_base_/models/fpn.py', '../_base_/datasets/ade20k_align32.py',
    '../_base_/optimizers/adamw.py', '../_base_/schedules/schedule_40k.py',
    '../_base_/seg_runtime.py',
]
model = dict(
    backbone=dict(type='mmacmix.PVTACmix', arch='tiny', drop_path_rate=0.1),
    neck=dict(in_channels=[64, 128, 320, 512]))
optim_wrapper = dict(optimizer=dict(lr=2e-4, weight_decay=1e-4))
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=40000),
]
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(enable=False, base_batch_size=32)
