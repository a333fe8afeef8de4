# RetinaNet, PVT-ACmix-T, attention alone, trained on, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_pvt-acmix-t_attention-on.py
_base_ = 'bccd_pvt-acmix-t_attention.py'
start_from = 'pvt-acmix-t_attention'
