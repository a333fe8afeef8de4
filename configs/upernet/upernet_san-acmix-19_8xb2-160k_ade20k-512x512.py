# UperNet, SAN-ACmix-19, ADE20K, 160000 iterations.
# mim train mmacmix upernet_san-acmix-19_8xb2-160k_ade20k-512x512.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = './upernet_san-acmix-10_8xb2-160k_ade20k-512x512.py'
model = dict(backbone=dict(depth=19))
