# RetinaNet, Swin-ACmix of 64 channels, attention alone, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_swin-acmix_attention.py
_base_ = 'bccd_swin-acmix.py'
model = dict(backbone=dict(paths=('attention',)))
