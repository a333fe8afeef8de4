# RetinaNet, SAN-ACmix-10, attention alone, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_san-acmix-10_attention.py
_base_ = 'bccd_san-acmix-10.py'
model = dict(backbone=dict(paths=('attention',)))
