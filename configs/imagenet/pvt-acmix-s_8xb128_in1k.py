# PVT-ACmix-S, ImageNet-1k, 224 x 224, 300 epochs.
# mim train mmacmix pvt-acmix-s_8xb128_in1k.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 128 images. Result: not trained.
_base_ = './pvt-acmix-t_8xb128_in1k.py'
model = dict(backbone=dict(arch='small'))
