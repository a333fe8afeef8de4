# Semantic FPN with a half as wide ResNet-ACmix-26, on the generated shapes, from scratch on a CPU.
#   python tools/demo/make_dataset.py --out data/demo
#   mim train mmacmix fpn_resnet-acmix_demo.py
_base_ = [
    '../_base_/models/fpn.py', '../_base_/datasets/ade20k.py',
    '../_base_/optimizers/adamw.py', '../_base_/seg_runtime.py',
    '../_base_/schedules/schedule_demo.py',
]
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(type='mmacmix.ResNetACmix', depth=26, stem_channels=32, base_channels=32),
    neck=dict(in_channels=[128, 256, 512, 1024], out_channels=64, norm_cfg=norm_cfg),
    decode_head=dict(in_channels=[64, 64, 64, 64], channels=64, num_classes=7))
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=5.))
# Checkpoints are for resuming. The last one goes only after the next one is complete.
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100, max_keep_ckpts=2))
log_processor = dict(by_epoch=False, window_size=20)

dataset_type = 'BaseSegDataset'
data_root = 'data/demo/ade/'
# The background is a class like the others: only label 0, which does not occur, is ignored.
metainfo = dict(
    classes=('background', 'disc', 'triangle', 'square', 'star', 'ring', 'cross'),
    palette=[[80, 80, 80], [230, 60, 60], [60, 170, 75], [70, 110, 230], [240, 190, 30],
             [170, 70, 200], [40, 190, 200]])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        type=dataset_type, data_root=data_root, metainfo=metainfo, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(
        type=dataset_type, data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
