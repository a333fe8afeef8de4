# Segmentation on CamVid, as docs/evidence.md fixes it: the example's data and schedule; a row adds the backbone.
_base_ = '../../../examples/fpn_camvid.py'
custom_imports = dict(
    imports=['mmacmix.registry', 'evidence.classwise_iou', 'evidence.hooks', 'evidence.plain_resnet'],
    allow_failed_imports=False)
# Without workers a run takes one core, and its seconds are those of all its work.
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = workers
val_dataloader = workers
test_dataloader = workers
val_evaluator = dict(type='ClasswiseIoU')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1))
custom_hooks = [
    dict(type='mmacmix.StartCheckHook'),
    dict(type='mmacmix.CheckpointGuardHook'),
    dict(type='mmacmix.SeedHook'),
    dict(type='mmacmix.MixingRatesHook', interval=200),
    dict(type='ProgressHook', interval=20)]
