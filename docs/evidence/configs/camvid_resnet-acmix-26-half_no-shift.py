# Semantic FPN, ResNet-ACmix-26 of half width, shift overwritten, CamVid. Results: docs/evidence.md.
# python tools/train.py docs/evidence/configs/camvid_resnet-acmix-26-half_no-shift.py
_base_ = 'camvid_resnet-acmix-26-half.py'
custom_hooks = _base_.custom_hooks + [dict(type='StartHook', shift=False)]
