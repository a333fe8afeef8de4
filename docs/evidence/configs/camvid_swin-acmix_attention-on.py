# Semantic FPN, Swin-ACmix of 64 channels, attention alone, trained on, CamVid. Results: docs/evidence.md.
# python tools/evidence/run.py --tasks camvid --rows swin-acmix_attention-on
_base_ = 'camvid_swin-acmix_attention.py'
start_from = 'swin-acmix_attention'
