# Semantic FPN, SAN-ACmix-10, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_san-acmix-10.py
_base_ = '_base_/camvid_small.py'
model = dict(
    backbone=dict(_delete_=True, type='mmacmix.SANACmix', depth=10),
    neck=dict(in_channels=[256, 512, 1024, 2048]))
# In bfloat16 SAN's gradients would be others: without a softmax, its attention amplifies what is rounded.
optim_wrapper = dict(type='OptimWrapper')
