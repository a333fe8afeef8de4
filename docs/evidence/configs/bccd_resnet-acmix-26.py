# RetinaNet, ResNet-ACmix-26, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_resnet-acmix-26.py
_base_ = '_base_/bccd.py'
model = dict(
    backbone=dict(_delete_=True, type='mmacmix.ResNetACmix', depth=26, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[512, 1024, 2048]))
