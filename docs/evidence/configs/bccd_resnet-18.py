# RetinaNet, ResNet-18, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_resnet-18.py
_base_ = '_base_/bccd.py'
model = dict(
    backbone=dict(_delete_=True, type='PlainResNet', depth=18, norm_eval=False, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[128, 256, 512]))
