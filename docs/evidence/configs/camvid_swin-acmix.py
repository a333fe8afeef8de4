# Semantic FPN, Swin-ACmix of 64 channels, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_swin-acmix.py
_base_ = '_base_/camvid_small.py'
arch = dict(embed_dims=64, depths=(2, 2, 2, 2), num_heads=(2, 4, 8, 16))
model = dict(
    backbone=dict(_delete_=True, type='mmacmix.SwinACmix', arch=arch, drop_path_rate=0.),
    neck=dict(in_channels=[64, 128, 256, 512]))
