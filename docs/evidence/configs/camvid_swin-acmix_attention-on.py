# Semantic FPN, Swin-ACmix of 64 channels, attention alone, trained on, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_swin-acmix_attention-on.py
_base_ = 'camvid_swin-acmix_attention.py'
start_from = 'swin-acmix_attention'
