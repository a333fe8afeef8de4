# RetinaNet, SAN-ACmix-19, COCO, 12 epochs.
# mim train mmacmix retinanet_san-acmix-19_fpn_1x_coco.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = './retinanet_san-acmix-10_fpn_1x_coco.py'
model = dict(backbone=dict(depth=19))
