# Semantic FPN, ResNet-ACmix-26, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_resnet-acmix-26.py
_base_ = '_base_/camvid.py'
model = dict(
    backbone=dict(_delete_=True, type='mmacmix.ResNetACmix', depth=26),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
