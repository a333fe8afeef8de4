# Semantic FPN, PVT-ACmix-T, attention alone, trained on, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_pvt-acmix-t_attention-on.py
_base_ = 'camvid_pvt-acmix-t_attention.py'
start_from = 'pvt-acmix-t_attention'
