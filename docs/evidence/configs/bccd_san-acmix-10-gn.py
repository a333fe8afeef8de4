# RetinaNet, SAN-ACmix-10 with group normalisation, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_san-acmix-10-gn.py
_base_ = 'bccd_san-acmix-10.py'
model = dict(backbone=dict(norm_cfg=dict(type='GN', num_groups=16)))
