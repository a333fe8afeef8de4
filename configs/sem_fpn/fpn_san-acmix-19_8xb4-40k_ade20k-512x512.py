# Semantic FPN, SAN-ACmix-19, ADE20K, 40000 iterations.
# mim train mmacmix fpn_san-acmix-19_8xb4-40k_ade20k-512x512.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 4 images. Result: not trained.
_base_ = './fpn_san-acmix-10_8xb4-40k_ade20k-512x512.py'
model = dict(backbone=dict(depth=19))
