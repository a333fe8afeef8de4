# RetinaNet, PVT-ACmix-T, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_pvt-acmix-t.py
_base_ = '_base_/bccd_small.py'
model = dict(
    backbone=dict(_delete_=True, type='mmacmix.PVTACmix', arch='tiny', drop_path_rate=0., out_indices=(1, 2, 3)),
    neck=dict(in_channels=[128, 320, 512]))
# Not in bfloat16, which was many times slower on CPUs without AVX-512 when the group had its first run.
optim_wrapper = dict(type='OptimWrapper')
