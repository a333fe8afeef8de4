# RetinaNet, PVT-ACmix-T, from the trained plain model, BCCD. Results: docs/evidence.md.
# python tools/evidence/run.py --tasks bccd --rows pvt-acmix-t_warm
_base_ = 'bccd_pvt-acmix-t.py'
start_from = 'pvt-acmix-t_attention'
