# 300 epochs, 20 of them warm-up, then half a cosine. The optimiser: ../optimizers/.
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, begin=0, end=20, convert_to_iter_based=True),
    dict(
        type='CosineAnnealingLR', T_max=280, eta_min=1e-5, begin=20, end=300,
        convert_to_iter_based=True),
]
# --auto-scale-lr: the learning rate is for 8 GPUs x 128 images.
auto_scale_lr = dict(enable=False, base_batch_size=1024)
