default_scope = 'mmpretrain'
# The hosts' inferencers read a checkpoint before they build the model: by then torch must know what may be in it.
custom_imports = dict(imports=['mmacmix.registry'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='mmacmix.WholeCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False))
# The first stops a run whose model and data do not fit, the second one whose checkpoint is of another model, where
# mmengine would load the part that happens to fit; the third, with SeededBatchSampler, makes a resumed training equal
# to an undisturbed one; the fourth records the rates of attention and convolution.
custom_hooks = [
    dict(type='mmacmix.StartCheckHook'),
    dict(type='mmacmix.CheckpointGuardHook'),
    dict(type='mmacmix.SeedHook'),
    dict(type='mmacmix.MixingRatesHook', interval=100)]

# Images have one size, and 32 or more of them are on every GPU: BN takes its statistics there.
env_cfg = dict(
    cudnn_benchmark=True,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)
log_level = 'INFO'
load_from = None
resume = False
