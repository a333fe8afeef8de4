# RetinaNet, SAN-ACmix-10 with group normalisation, attention alone, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_san-acmix-10-gn_attention.py
_base_ = 'bccd_san-acmix-10-gn.py'
model = dict(backbone=dict(paths=('attention',)))
