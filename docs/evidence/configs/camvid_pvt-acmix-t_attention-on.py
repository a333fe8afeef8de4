# Semantic FPN, PVT-ACmix-T, attention alone, trained on, CamVid. Results: docs/evidence.md.
# python tools/evidence/run.py --tasks camvid --rows pvt-acmix-t_attention-on
_base_ = 'camvid_pvt-acmix-t_attention.py'
start_from = 'pvt-acmix-t_attention'
