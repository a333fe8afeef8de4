# RetinaNet, ResNet-ACmix-26 of half width, shift overwritten, BCCD. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/bccd_resnet-acmix-26-half_no-shift.py
_base_ = 'bccd_resnet-acmix-26-half.py'
custom_hooks = _base_.custom_hooks + [dict(type='StartHook', shift=False)]
