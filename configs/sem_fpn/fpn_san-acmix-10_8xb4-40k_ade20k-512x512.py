# Semantic FPN, SAN-ACmix-10, ADE20K, 40000 iterations.
# mim train mmacmix fpn_san-acmix-10_8xb4-40k_ade20k-512x512.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 4 images. Result: not trained.
_base_ = [
    '../_base_/models/fpn.py', '../_base_/datasets/ade20k_align32.py',
    '../_base_/optimizers/sgd.py', '../_base_/schedules/schedule_40k.py',
    '../_base_/seg_runtime.py',
]
# SAN has been published for classification: optimiser and schedule are those of ResNet.
# Nothing is frozen: without ImageNet weights a frozen stage or norm would stay at random.
model = dict(
    backbone=dict(
        type='mmacmix.SANACmix', depth=10, frozen_stages=-1, norm_eval=False),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=5e-4))
train_dataloader = dict(batch_size=4)
auto_scale_lr = dict(enable=False, base_batch_size=32)
