# RetinaNet, Swin-ACmix of 64 channels, attention alone, trained on, BCCD. Results: docs/evidence.md.
# python tools/evidence/run.py --tasks bccd --rows swin-acmix_attention-on
_base_ = 'bccd_swin-acmix_attention.py'
start_from = 'swin-acmix_attention'
