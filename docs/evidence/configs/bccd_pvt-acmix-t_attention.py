# RetinaNet, PVT-ACmix-T, attention alone, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_pvt-acmix-t_attention.py
_base_ = 'bccd_pvt-acmix-t.py'
model = dict(backbone=dict(paths=('attention',)))
