# RetinaNet, ResNet-ACmix-26 of half width, convolution alone, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_resnet-acmix-26-half_convolution.py
_base_ = 'bccd_resnet-acmix-26-half.py'
model = dict(backbone=dict(paths=('convolution',)))
