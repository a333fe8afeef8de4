# The same with images of half the size, 64 channels and 2 convolutions in neck and head, in bfloat16: all groups but
# `pass`, though PVT and SAN stay in float32. Anchors are half as large, as the cells are.
_base_ = 'bccd.py'
custom_imports = dict(
    imports=['mmacmix.registry', 'evidence.bfloat16', 'evidence.hooks', 'evidence.plain_resnet'],
    allow_failed_imports=False)
train_pipeline = _base_.train_pipeline
train_pipeline[2].scale = (160, 120)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = (160, 120)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    neck=dict(out_channels=64),
    bbox_head=dict(
        in_channels=64, feat_channels=64, stacked_convs=2, anchor_generator=dict(octave_base_scale=2)))
optim_wrapper = dict(type='BFloat16OptimWrapper')
