# Semantic FPN, ResNet-26, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_resnet-26.py
_base_ = '_base_/camvid.py'
model = dict(
    backbone=dict(_delete_=True, type='PlainResNet', depth=26, norm_eval=False),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
