# For backbones of convolutions. A config sets lr and, where it differs, weight_decay.
# rate1 and rate2 weigh the two paths of ACmix: decay would pull both paths to nothing.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=1e-4),
    paramwise_cfg=dict(
        custom_keys=dict(rate1=dict(decay_mult=0.), rate2=dict(decay_mult=0.))))
