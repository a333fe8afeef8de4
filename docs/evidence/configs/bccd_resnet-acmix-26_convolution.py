# RetinaNet, ResNet-ACmix-26, convolution alone, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_resnet-acmix-26_convolution.py
_base_ = 'bccd_resnet-acmix-26.py'
model = dict(backbone=dict(paths=('convolution',)))
