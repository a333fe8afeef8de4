# Semantic FPN, Swin-ACmix-S, ADE20K, 40000 iterations.
# mim train mmacmix fpn_swin-acmix-s_8xb4-40k_ade20k-512x512.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 4 images. Result: not trained.
_base_ = './fpn_swin-acmix-t_8xb4-40k_ade20k-512x512.py'
model = dict(backbone=dict(arch='small'))
