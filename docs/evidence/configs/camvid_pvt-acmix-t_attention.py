# Semantic FPN, PVT-ACmix-T, attention alone, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_pvt-acmix-t_attention.py
_base_ = 'camvid_pvt-acmix-t.py'
model = dict(backbone=dict(paths=('attention',)))
