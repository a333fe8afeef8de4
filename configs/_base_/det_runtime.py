default_scope = 'mmdet'
# The hosts' inferencers read a checkpoint before they build the model: by then torch must know what may be in it.
custom_imports = dict(imports=['mmacmix.registry'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mmacmix.WholeCheckpointHook', interval=1),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='DetVisualizationHook'))
# The first stops a run whose model and data do not fit, the second one whose checkpoint is of another model, where
# mmengine would load the part that happens to fit; the third, with SeededBatchSampler, makes a resumed training equal
# to an undisturbed one; the fourth records the rates of attention and convolution.
custom_hooks = [
    dict(type='mmacmix.StartCheckHook'),
    dict(type='mmacmix.CheckpointGuardHook'),
    dict(type='mmacmix.SeedHook'),
    dict(type='mmacmix.MixingRatesHook', interval=100)]

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
# The one switch for SyncBN: models say BN, and training on several GPUs turns every BN into
# SyncBN, because two images per GPU are too few to take statistics from. One process keeps BN.
# Plain BN everywhere: --cfg-options sync_bn=None
sync_bn = 'torch'

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer')
log_processor = dict(type='LogProcessor', window_size=50, by_epoch=True)
log_level = 'INFO'
load_from = None
resume = False
