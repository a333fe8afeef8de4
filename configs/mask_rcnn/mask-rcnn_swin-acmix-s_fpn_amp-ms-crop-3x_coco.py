# Mask R-CNN, Swin-ACmix-S, COCO, 36 epochs, multi-scale, half precision.
# mim train mmacmix mask-rcnn_swin-acmix-s_fpn_amp-ms-crop-3x_coco.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = './mask-rcnn_swin-acmix-t_fpn_amp-ms-crop-3x_coco.py'
model = dict(backbone=dict(arch='small'))
