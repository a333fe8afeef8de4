# Semantic FPN, Swin-ACmix of 64 channels, attention alone, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_swin-acmix_attention.py
_base_ = 'camvid_swin-acmix.py'
model = dict(backbone=dict(paths=('attention',)))
