# Mask R-CNN with a half as wide ResNet-ACmix-26, on the generated shapes, from scratch on a CPU.
#   python tools/demo/make_dataset.py --out data/demo
#   mim train mmacmix mask-rcnn_resnet-acmix_demo.py
_base_ = [
    '../_base_/models/mask-rcnn.py', '../_base_/datasets/coco_instance.py',
    '../_base_/optimizers/adamw.py', '../_base_/det_runtime.py',
    '../_base_/schedules/schedule_demo.py',
]
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(type='mmacmix.ResNetACmix', depth=26, stem_channels=32, base_channels=32),
    neck=dict(
        in_channels=[128, 256, 512, 1024], out_channels=64, num_outs=4, norm_cfg=norm_cfg),
    # The shapes measure 14 to 80 pixels: every map looks for two sizes, 16 to 256 in all.
    rpn_head=dict(
        in_channels=64,
        feat_channels=64,
        anchor_generator=dict(scales=[4, 8], strides=[4, 8, 16, 32])),
    roi_head=dict(
        # Shapes of 56 pixels and more are read from the second map, not the first.
        bbox_roi_extractor=dict(out_channels=64, finest_scale=28),
        bbox_head=dict(
            type='ConvFCBBoxHead', num_shared_convs=1, num_shared_fcs=1, in_channels=64,
            conv_out_channels=64, fc_out_channels=256, num_classes=6, norm_cfg=norm_cfg,
            reg_class_agnostic=True),
        mask_roi_extractor=dict(out_channels=64, finest_scale=28),
        mask_head=dict(
            num_convs=2, in_channels=64, conv_out_channels=64, num_classes=6,
            norm_cfg=norm_cfg, class_agnostic=True)),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=128)),
        rpn_proposal=dict(nms_pre=400, max_per_img=100),
        rcnn=dict(sampler=dict(num=64))),
    test_cfg=dict(
        rpn=dict(nms_pre=400, max_per_img=100), rcnn=dict(max_per_img=50)))
optim_wrapper = dict(optimizer=dict(lr=2e-3), clip_grad=dict(max_norm=5.))
# Checkpoints are for resuming. The last one goes only after the next one is complete.
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=100, max_keep_ckpts=2))
log_processor = dict(by_epoch=False, window_size=20)

data_root = 'data/demo/coco/'
metainfo = dict(
    classes=('disc', 'triangle', 'square', 'star', 'ring', 'cross'),
    palette=[(230, 60, 60), (60, 170, 75), (70, 110, 230), (240, 190, 30), (170, 70, 200),
             (40, 190, 200)])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(
        type='RandomFlip',
        prob=[0.25, 0.25, 0.25],
        direction=['horizontal', 'vertical', 'diagonal']),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 128), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs', meta_keys=_base_.meta_keys),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    batch_sampler=dict(_delete_=True, type='mmacmix.SeededBatchSampler'),
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator
