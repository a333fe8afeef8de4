# 100 epochs, half a cosine. The optimiser: ../optimizers/.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=100, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='CosineAnnealingLR', T_max=100, begin=0, end=100, convert_to_iter_based=True),
]
# --auto-scale-lr: the learning rate is for 8 GPUs x 32 images.
auto_scale_lr = dict(enable=False, base_batch_size=256)
