# For transformers. A config sets lr and weight_decay.
# rate1 and rate2 weigh the two paths of ACmix: decay would pull both paths to nothing.
# Norms and position biases are left alone as in the recipes of Swin.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys=dict(
            rate1=dict(decay_mult=0.),
            rate2=dict(decay_mult=0.),
            norm=dict(decay_mult=0.),
            relative_position_bias_table=dict(decay_mult=0.),
            absolute_pos_embed=dict(decay_mult=0.))))
