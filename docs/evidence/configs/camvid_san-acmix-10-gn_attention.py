# Semantic FPN, SAN-ACmix-10 with group normalisation, attention alone, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_san-acmix-10-gn_attention.py
_base_ = 'camvid_san-acmix-10-gn.py'
model = dict(backbone=dict(paths=('attention',)))
