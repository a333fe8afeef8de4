# UperNet, SAN-ACmix-10, ADE20K, 160000 iterations.
# mim train mmacmix upernet_san-acmix-10_8xb2-160k_ade20k-512x512.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = [
    '../_base_/models/upernet.py', '../_base_/datasets/ade20k.py',
    '../_base_/optimizers/sgd.py', '../_base_/schedules/schedule_160k.py',
    '../_base_/seg_runtime.py',
]
# SAN has been published for classification: optimiser and schedule are those of ResNet.
# Nothing is frozen: without ImageNet weights a frozen stage or norm would stay at random.
model = dict(
    backbone=dict(
        type='mmacmix.SANACmix', depth=10, frozen_stages=-1, norm_eval=False),
    decode_head=dict(in_channels=[256, 512, 1024, 2048]),
    auxiliary_head=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(lr=0.01, weight_decay=5e-4))
train_dataloader = dict(batch_size=2)
auto_scale_lr = dict(enable=False, base_batch_size=16)
