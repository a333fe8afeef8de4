# Semantic FPN, PVT-ACmix-T, from the trained plain model, CamVid. Results: docs/evidence.md.
# python tools/evidence/run.py --tasks camvid --rows pvt-acmix-t_warm
_base_ = 'camvid_pvt-acmix-t.py'
start_from = 'pvt-acmix-t_attention'
