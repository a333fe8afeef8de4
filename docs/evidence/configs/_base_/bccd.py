# Detection on BCCD, as docs/evidence.md fixes it: the example's data and schedule; a row adds the backbone.
_base_ = '../../../examples/retinanet_bccd.py'
custom_imports = dict(
    imports=['mmacmix.registry', 'evidence.hooks', 'evidence.plain_resnet'], allow_failed_imports=False)
# Without workers a run takes one core, and its seconds are those of all its work.
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = workers
val_dataloader = workers
test_dataloader = workers
val_evaluator = dict(classwise=True)
test_evaluator = val_evaluator
train_cfg = dict(val_interval=3)
default_hooks = dict(logger=dict(log_metric_by_epoch=False), checkpoint=dict(max_keep_ckpts=1))
custom_hooks = [
    dict(type='mmacmix.StartCheckHook'),
    dict(type='mmacmix.CheckpointGuardHook'),
    dict(type='mmacmix.SeedHook'),
    dict(type='mmacmix.MixingRatesHook', interval=111),
    dict(type='ProgressHook', interval=10)]
