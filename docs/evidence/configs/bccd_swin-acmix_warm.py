# RetinaNet, Swin-ACmix of 64 channels, from the trained plain model, BCCD. Results: docs/evidence.md.
# python tools/evidence/run.py --tasks bccd --rows swin-acmix_warm
_base_ = 'bccd_swin-acmix.py'
start_from = 'swin-acmix_attention'
