# ResNet-ACmix-50, ImageNet-1k, 224 x 224, 90 epochs.
# mim train mmacmix resnet-acmix-50_8xb32_in1k.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 32 images. Result: not trained.
_base_ = './resnet-acmix-26_8xb32_in1k.py'
model = dict(backbone=dict(depth=50))
