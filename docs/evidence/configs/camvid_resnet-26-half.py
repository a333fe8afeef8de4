# Semantic FPN, ResNet-26 of half width, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_resnet-26-half.py
_base_ = 'camvid_resnet-26.py'
model = dict(
    backbone=dict(stem_channels=32, base_channels=32),
    neck=dict(in_channels=[128, 256, 512, 1024]))
