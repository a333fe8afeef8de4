# RetinaNet, PVT-ACmix-T, attention alone, trained on, BCCD. Results: docs/evidence.md.
# python tools/evidence/run.py --tasks bccd --rows pvt-acmix-t_attention-on
_base_ = 'bccd_pvt-acmix-t_attention.py'
start_from = 'pvt-acmix-t_attention'
