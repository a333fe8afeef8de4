# Semantic FPN, SAN-ACmix-10 with group normalisation, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_san-acmix-10-gn.py
_base_ = 'camvid_san-acmix-10.py'
model = dict(backbone=dict(norm_cfg=dict(type='GN', num_groups=16)))
