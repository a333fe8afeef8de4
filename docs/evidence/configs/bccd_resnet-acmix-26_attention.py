# RetinaNet, ResNet-ACmix-26, attention alone, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_resnet-acmix-26_attention.py
_base_ = 'bccd_resnet-acmix-26.py'
model = dict(backbone=dict(paths=('attention',)))
