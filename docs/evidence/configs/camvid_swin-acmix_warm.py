# Semantic FPN, Swin-ACmix of 64 channels, from the trained plain model, CamVid. Results: docs/evidence.md.
# python tools/evidence/run.py --tasks camvid --rows swin-acmix_warm
_base_ = 'camvid_swin-acmix.py'
start_from = 'swin-acmix_attention'
