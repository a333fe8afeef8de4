# RetinaNet, Swin-ACmix of 64 channels, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_swin-acmix.py
_base_ = '_base_/bccd_small.py'
arch = dict(embed_dims=64, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16))
model = dict(
    backbone=dict(_delete_=True, type='mmacmix.SwinACmix', arch=arch, drop_path_rate=0., out_indices=(1, 2, 3)),
    neck=dict(in_channels=[128, 256, 512]))
