# SAN-ACmix-15, ImageNet-1k, 224 x 224, 100 epochs.
# mim train mmacmix san-acmix-15_8xb32_in1k.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 32 images. Result: not trained.
_base_ = './san-acmix-10_8xb32_in1k.py'
model = dict(backbone=dict(depth=15))
