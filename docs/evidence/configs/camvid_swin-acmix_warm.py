# Semantic FPN, Swin-ACmix of 64 channels, from the trained plain model, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_swin-acmix_warm.py
_base_ = 'camvid_swin-acmix.py'
start_from = 'swin-acmix_attention'
