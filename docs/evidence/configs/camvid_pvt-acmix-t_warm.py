# Semantic FPN, PVT-ACmix-T, from the trained plain model, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_pvt-acmix-t_warm.py
_base_ = 'camvid_pvt-acmix-t.py'
start_from = 'pvt-acmix-t_attention'
