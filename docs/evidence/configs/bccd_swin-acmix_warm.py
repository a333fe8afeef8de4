# RetinaNet, Swin-ACmix of 64 channels, from the trained plain model, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_swin-acmix_warm.py
_base_ = 'bccd_swin-acmix.py'
start_from = 'swin-acmix_attention'
