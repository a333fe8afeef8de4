# Mask R-CNN, PVT-ACmix-S, COCO, 12 epochs.
# mim train mmacmix mask-rcnn_pvt-acmix-s_fpn_1x_coco.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = './mask-rcnn_pvt-acmix-t_fpn_1x_coco.py'
model = dict(backbone=dict(arch='small'))
