# Semantic FPN, ResNet-18, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_resnet-18.py
_base_ = '_base_/camvid.py'
model = dict(
    backbone=dict(_delete_=True, type='PlainResNet', depth=18, norm_eval=False),
    neck=dict(in_channels=[64, 128, 256, 512]))
