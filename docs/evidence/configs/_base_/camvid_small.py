# The same with photographs and crops of half the size, 64 channels in the neck and 32 in the head, in bfloat16: all
# groups but `pass`, though PVT and SAN stay in float32.
_base_ = 'camvid.py'
custom_imports = dict(
    imports=[
        'mmacmix.registry', 'evidence.bfloat16', 'evidence.classwise_iou', 'evidence.hooks', 'evidence.plain_resnet'],
    allow_failed_imports=False)
crop = (128, 128)
half = dict(type='Resize', scale=(240, 180), keep_ratio=True)
load, labels, crop_at_random, *rest = _base_.train_pipeline
crop_at_random.crop_size = crop
train_pipeline = [load, labels, half, crop_at_random, *rest]
load, *rest = _base_.test_pipeline
test_pipeline = [load, half, *rest]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
model = dict(
    data_preprocessor=dict(size=crop),
    neck=dict(out_channels=64),
    decode_head=dict(in_channels=[64] * 4, channels=32))
optim_wrapper = dict(type='BFloat16OptimWrapper')
