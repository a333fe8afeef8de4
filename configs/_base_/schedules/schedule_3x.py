# 36 epochs for transformers, a tenth of the rate after 27 and again after 33. The optimiser: ../optimizers/.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=36, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
# --auto-scale-lr: the learning rates are for 8 GPUs x 2 images.
auto_scale_lr = dict(enable=False, base_batch_size=16)
