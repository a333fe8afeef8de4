# Semantic FPN, ResNet-ACmix-26, street scenes (CamVid as label maps in data/camvid), from random initialisation.
# mim train mmseg docs/examples/fpn_camvid.py --work-dir work_dirs/camvid
# mIoU 41.3 after 600 iterations (30.9 and 38.5 after 200 and 400), mean of three seeds, on a CPU: docs/evidence.md.
_base_ = '../../configs/sem_fpn/fpn_resnet-acmix-26_8xb4-40k_ade20k-512x512.py'
classes = 'sky building pole road pavement tree sign fence car pedestrian bicyclist'
mine = dict(type='BaseSegDataset', img_suffix='.jpg', seg_map_suffix='.png', data_root='data/camvid/',
            metainfo=dict(classes=tuple(classes.split())))
crop = (256, 256)
model = dict(
    data_preprocessor=dict(size=crop),
    neck=dict(out_channels=128),
    decode_head=dict(in_channels=[128] * 4, channels=64, num_classes=11))
train_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=crop, cat_max_ratio=0.75), dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs')]
test_pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')]
train_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(pipeline=train_pipeline, **mine))
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline, **mine))
test_dataloader = val_dataloader
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=1e-4))
train_cfg = dict(max_iters=600, val_interval=200)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=600)]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=200))
randomness = dict(seed=0)
