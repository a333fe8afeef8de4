"""Settings that work are never refused; names that are near are told."""
import math
import re

import pytest
from mmengine.config import Config

from mmacmix.engine import SetupError
from mmacmix.engine.setting_checks import check_settings
from mmacmix.engine.type_checks import check_types


def optimizer(**settings):
    return dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(dict(type='SGD', lr=0.1), **settings)))


def data(**settings):
    return dict(train_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dict(settings))))


RIGHT = [
    dict(),
    optimizer(), optimizer(lr=0), optimizer(lr=None), optimizer(weight_decay=1e-4),
    dict(optim_wrapper=dict(clip_grad=dict(max_norm=35, norm_type=2))),
    dict(optim_wrapper=dict(clip_grad=dict(type='value', clip_value=0.2))),
    dict(optim_wrapper=dict(clip_grad=None)),
    dict(optim_wrapper=dict(type='MyWrapper', clip_grad=dict(anything=1))),
    dict(train_dataloader=dict(dataset=dict(), drop_last=True)),
    dict(train_dataloader=dict(dataset=dict(), drop_last=True, batch_sampler=None)),
    dict(train_dataloader=dict(dataset=dict(), drop_last=False, batch_sampler=dict(type='X', drop_last=True))),
    dict(optim_wrapper=dict(paramwise_cfg=dict(norm_decay_mult=0, custom_keys=dict(any=dict(lr_mult=1))))),
    dict(optim_wrapper=dict(constructor='LayerDecay', paramwise_cfg=dict(num_layers=12))),
    dict(optim_wrapper=dict(paramwise_cfg=dict(num_layers=12, custom_keys=dict()))),
    dict(train_cfg=dict(val_interval=-1)),
    dict(train_cfg=None), dict(train_cfg=dict(max_epochs=12., val_interval=math.inf)),
    dict(default_hooks=dict(checkpoint=None)), dict(default_hooks=dict(checkpoint=dict(interval=-1))),
    dict(randomness=dict(seed=None)), dict(randomness=dict(seed=0)),
    dict(default_scope=None), dict(default_scope='mmpretrain'), dict(default_scope='mmengine'),
    data(data_root='here', metainfo=dict(classes=('a', 'b'))), data(data_root=None, metainfo=None),
    data(metainfo=dict(classes=__file__)), data(metainfo=dict(CLASSES=1, classes=['a'])),
    dict(val_evaluator=[dict(type='IoUMetric', iou_metrics=['mIoU', 'mFscore']), dict(type='Other', iou_metrics=1)]),
]


@pytest.mark.parametrize('settings', RIGHT, ids=str)
def test_settings_that_are_right(settings):
    cfg = Config(settings)
    check_settings(cfg)
    check_types(cfg)


@pytest.mark.parametrize('settings, message', [
    (optimizer(lr=True), 'optim_wrapper.optimizer.lr must be a finite number of at least 0, got '
     'optim_wrapper.optimizer.lr=True'),
    (dict(train_cfg=dict(max_epochs=1.5)), 'train_cfg.max_epochs must be a whole number of at least 1, got '
     'train_cfg.max_epochs=1.5'),
    (dict(optim_wrapper=dict(clip_grad=dict(norm_type=2))), "optim_wrapper.clip_grad must have max_norm, got "
     "{'norm_type': 2}"),
    (dict(val_dataloader=dict(num_workers=-1)), 'val_dataloader.num_workers must be a whole number of at least 0, got '
     'val_dataloader.num_workers=-1'),
    (dict(default_scope='no_such_scope'), "default_scope must be an installed package of registries, such as 'mmdet', "
     "'mmseg' or 'mmpretrain', got default_scope='no_such_scope'"),
    (dict(val_dataloader=dict(dataset=dict(), drop_last=True, batch_sampler=dict(type='X'))),
     'val_dataloader.drop_last must be False where there is a batch sampler, got val_dataloader.drop_last=True: set '
     'val_dataloader.batch_sampler.drop_last=True'),
])
def test_settings_that_are_wrong(settings, message):
    with pytest.raises(SetupError, match=f'^{re.escape(message)}$'):
        check_settings(Config(settings))


@pytest.mark.parametrize('settings', [
    dict(model=dict(type='EncoderDecoder', backbone=dict(type='mmacmix.SwinACmix'), neck=[dict(type='FPN')])),
    dict(custom_hooks=[dict(type='mmacmix.SeedHook')], default_hooks=dict(timer=None)),
    dict(train_cfg=dict(type='IterBasedTrainLoop', by_epoch=False), param_scheduler=[[dict(type='any')]]),
    dict(val_evaluator=dict(type='Evaluator', metrics=[])),
    dict(model=dict(type='mmengine.model.BaseModel')),
    dict(model=dict(type=dict)),
])
def test_types_that_are_known(settings):
    check_types(Config(dict(settings, default_scope='mmseg')))


@pytest.mark.parametrize('settings, message', [
    (dict(model=dict(type='EncodeDecoder')), "model.type='EncodeDecoder': did you mean EncoderDecoder?"),
    (dict(model=dict(type='X', backbone=dict(type='y'))), "model.type='X'"),
    (dict(custom_hooks=[dict(type='mmacmix.SedHook')]),
     "custom_hooks.0.type='mmacmix.SedHook': did you mean mmacmix.SeedHook?"),
    (dict(train_dataloader=dict(dataset=dict(type='BaseSegDatset'))),
     "train_dataloader.dataset.type='BaseSegDatset': did you mean BaseSegDataset?"),
    (dict(visualizer=dict(type='no.such.Thing')), "visualizer.type='no.such.Thing'"),
])
def test_types_that_are_not(settings, message):
    with pytest.raises(SetupError, match=f'{re.escape(message)}$'):
        check_types(Config(dict(settings, default_scope='mmseg')))
