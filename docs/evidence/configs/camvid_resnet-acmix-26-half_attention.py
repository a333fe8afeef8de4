# Semantic FPN, ResNet-ACmix-26 of half width, attention alone, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_resnet-acmix-26-half_attention.py
_base_ = 'camvid_resnet-acmix-26-half.py'
model = dict(backbone=dict(paths=('attention',)))
