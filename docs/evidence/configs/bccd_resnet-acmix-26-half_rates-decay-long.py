# RetinaNet, ResNet-ACmix-26 of half width, rates decayed as in a long training, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_resnet-acmix-26-half_rates-decay-long.py
_base_ = 'bccd_resnet-acmix-26-half.py'
# Learning rate times decay, over all steps, is 1 here; in the 12 epochs of a Swin on COCO it is 0.3.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(rate1=dict(decay_mult=71000.), rate2=dict(decay_mult=71000.))))
