# Semantic FPN, ResNet-ACmix-26 of half width, rates from (1, 1), CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_resnet-acmix-26-half_rates-1-1.py
_base_ = 'camvid_resnet-acmix-26-half.py'
custom_hooks = _base_.custom_hooks + [dict(type='StartHook', rates=(1., 1.))]
