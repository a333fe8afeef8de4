# UperNet, PVT-ACmix-T, ADE20K, 160000 iterations.
# mim train mmacmix upernet_pvt-acmix-t_8xb2-160k_ade20k-512x512.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = [
    '../_base_/models/upernet.py', '../_base_/datasets/ade20k.py',
    '../_base_/optimizers/adamw.py', '../_base_/schedules/schedule_160k.py',
    '../_base_/seg_runtime.py',
]
# The hosts have no UperNet with PVT: optimiser and schedule are those of Swin.
model = dict(
    backbone=dict(type='mmacmix.PVTACmix', arch='tiny', drop_path_rate=0.1),
    decode_head=dict(in_channels=[64, 128, 320, 512]),
    auxiliary_head=dict(in_channels=320))
optim_wrapper = dict(optimizer=dict(lr=6e-5, weight_decay=0.01))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0., by_epoch=False, begin=1500, end=160000),
]
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
