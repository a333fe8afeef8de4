# RetinaNet, ResNet-ACmix-26 of half width, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_resnet-acmix-26-half.py
_base_ = '_base_/bccd_small.py'
model = dict(
    backbone=dict(
        _delete_=True, type='mmacmix.ResNetACmix', depth=26, out_indices=(1, 2, 3), stem_channels=32, base_channels=32),
    neck=dict(in_channels=[256, 512, 1024]))
