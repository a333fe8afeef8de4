# RetinaNet, SAN-ACmix-10, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_san-acmix-10.py
_base_ = '_base_/bccd_small.py'
model = dict(
    backbone=dict(_delete_=True, type='mmacmix.SANACmix', depth=10, out_indices=(1, 2, 3)),
    neck=dict(in_channels=[512, 1024, 2048]))
# In bfloat16 SAN's gradients would be others: without a softmax, its attention amplifies what is rounded.
optim_wrapper = dict(type='OptimWrapper')
