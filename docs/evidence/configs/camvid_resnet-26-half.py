# Semantic FPN, ResNet-26 of half width, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_resnet-26-half.py
_base_ = '_base_/camvid_small.py'
model = dict(
    backbone=dict(_delete_=True, type='PlainResNet', depth=26, norm_eval=False, stem_channels=32, base_channels=32),
    neck=dict(in_channels=[128, 256, 512, 1024]))
