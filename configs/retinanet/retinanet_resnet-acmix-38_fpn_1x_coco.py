# RetinaNet, ResNet-ACmix-38, COCO, 12 epochs.
# mim train mmacmix retinanet_resnet-acmix-38_fpn_1x_coco.py --launcher pytorch --gpus 8
# Written for 8 GPUs x 2 images. Result: not trained.
_base_ = './retinanet_resnet-acmix-26_fpn_1x_coco.py'
model = dict(backbone=dict(depth=38))
