# RetinaNet, Swin-ACmix of 64 channels, attention alone, trained on, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_swin-acmix_attention-on.py
_base_ = 'bccd_swin-acmix_attention.py'
start_from = 'swin-acmix_attention'
