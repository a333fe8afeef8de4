# RetinaNet, PVT-ACmix-T, from the trained plain model, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_pvt-acmix-t_warm.py
_base_ = 'bccd_pvt-acmix-t.py'
start_from = 'pvt-acmix-t_attention'
