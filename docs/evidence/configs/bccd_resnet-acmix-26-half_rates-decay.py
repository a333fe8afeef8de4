# RetinaNet, ResNet-ACmix-26 of half width, rates decayed, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_resnet-acmix-26-half_rates-decay.py
_base_ = 'bccd_resnet-acmix-26-half.py'
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(rate1=dict(decay_mult=1.), rate2=dict(decay_mult=1.))))
