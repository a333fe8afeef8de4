# UperNet, Swin-ACmix-S, ADE20K, 160000 iterations.
# mim train mmacmix upernet_swin-acmix-s_8xb2-160k_ade20k-512x512.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = './upernet_swin-acmix-t_8xb2-160k_ade20k-512x512.py'
model = dict(backbone=dict(arch='small'))
