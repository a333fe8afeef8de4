"""Settings that mmengine takes in silence; those that work pass."""

import os
import re

import pytest
from mmengine.config import Config

from mmacmix.engine import SetupError, check_pretrained, check_work_dir
from mmacmix.engine.config_checks import check_names, check_options

CONFIG = Config(dict(model=dict(type='RetinaNet'), my_own=1, train_cfg=dict(max_epochs=1)))


@pytest.mark.parametrize('option', [
    'model.backbone.depth', 'my_own', 'train_cfg.new', 'load_from', 'randomness.seed', 'sync_bn', 'compile', 'strategy',
    'find_unused_parameters', 'auto_scale_lr.enable', 'tta_model.type', 'custom_hooks', 'val_dataloader.batch_size'])
def test_options_that_are_read(option):
    check_options(CONFIG, [option])


@pytest.mark.parametrize('option, message', [
    ('laod_from', 'got laod_from: did you mean load_from?'),
    ('train_config.max_epochs', 'got train_config.max_epochs: did you mean train_cfg?'),
    ('zzz', 'got zzz'),
])
def test_options_that_nothing_reads(option, message):
    message = re.escape(f'--cfg-options must set what the config or the runner has, {message}')
    with pytest.raises(SetupError, match=f'^{message}$'):
        check_options(CONFIG, ['train_cfg.max_epochs', option])


# As in configs of the hosts: variables that the file itself uses.
ROOT, STEPS = 'data/coco/', [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(9, 9))]
VARIABLES = Config(dict(
    data_root=ROOT, train_pipeline=STEPS, max_iters=100, flag=100, empty='', deep=True,
    data_preprocessor=dict(size=(9, 9)),
    model=dict(type='EncoderDecoder', data_preprocessor=dict(size=(9, 9)), pretrained='',
               backbone=dict(depth=100, shallow=True)),
    train_cfg=dict(max_iters=100), train_dataloader=dict(dataset=dict(data_root=ROOT, pipeline=STEPS)),
    val_dataloader=dict(dataset=dict(data_root=ROOT, pipeline=STEPS[:1]))))


@pytest.mark.parametrize('option, places', [
    ('data_root', 'train_dataloader.dataset.data_root, val_dataloader.dataset.data_root'),
    ('train_pipeline.1.scale', 'train_dataloader.dataset.pipeline'),
    ('max_iters', 'train_cfg.max_iters'),
    ('data_preprocessor.size', 'model.data_preprocessor'),
])
def test_variables_that_the_file_has_used(option, places):
    name = option.split('.')[0]
    message = f'got {option}: {name} is used only where the file itself says so; its value is in {places}'
    with pytest.raises(SetupError, match=f'^--cfg-options must set what is read of the config, {re.escape(message)}$'):
        check_options(VARIABLES, [option])


def test_variables_that_a_hook_may_read():
    check_options(VARIABLES, ['flag', 'empty', 'deep', 'model.data_preprocessor.size', 'train_cfg.max_iters'])
    check_options(Config(dict(tag='mmdet', default_scope='mmdet', model=dict(type='X'))), ['tag'])


def test_variables_beside_all_of_their_places():
    every = ['train_dataloader.dataset.data_root', 'val_dataloader.dataset']
    check_options(VARIABLES, ['data_root', *every])
    with pytest.raises(SetupError, match='its value is in train_dataloader'):
        check_options(VARIABLES, ['data_root', *every[:1]])
    with pytest.raises(SetupError, match='its value is in train_dataloader'):
        check_options(VARIABLES, ['data_root', 'val_dataloader.dataset.data_ro', *every[:1]])


def test_the_preprocessor_of_a_config_without_one_in_its_model():
    check_options(Config(dict(model=dict(type='Any'), data_preprocessor=dict(size=1))), ['data_preprocessor.size'])


def model(kind, scope='mmseg'):
    return Config(dict(default_scope=scope, model=dict(type='EncoderDecoder', backbone=dict(type=kind))))


def test_backbones_need_their_prefix():
    for wrapped in (False, True):
        cfg = model('SwinACmix')
        if wrapped:
            cfg.model = dict(type='Wrapper', module=cfg.model)
        where = 'model.module.backbone' if wrapped else 'model.backbone'
        message = f"^{where}.type must be 'mmacmix.SwinACmix', got {where}.type='SwinACmix'$"
        with pytest.raises(SetupError, match=message):
            check_names(cfg)
    for kind in ('mmacmix.SwinACmix', 'SwinTransformer', 'mmpretrain.ConvNeXt', 'NoSuchBackbone', dict):
        check_names(model(kind))
    check_names(Config(dict()))


def test_scope_of_ours():
    with pytest.raises(SetupError, match="default_scope must be that of the host, 'mmdet', 'mmseg' or 'mmpretrain', "
                       "got default_scope='mmacmix'"):
        check_names(model('mmacmix.SwinACmix', 'mmacmix'))


def test_weights_to_start_from(tmp_path):
    cfg = model('mmacmix.SwinACmix')
    for init_cfg in (dict(type='Pretrained', checkpoint='gone.pth'),
                     [dict(type='Kaiming'), dict(type='mmengine.Pretrained', checkpoint='gone.pth')]):
        cfg.model.backbone.init_cfg = init_cfg
        with pytest.raises(FileNotFoundError, match=r'^gone.pth does not exist: set model.*init_cfg(.1)?.checkpoint'):
            check_pretrained(cfg)
    for path in ('https://example.org/weights.pth', 'torchvision://resnet50', str(tmp_path)):
        cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=path)
        check_pretrained(cfg)


def test_work_dir(tmp_path):
    check_work_dir(str(tmp_path / 'new' / 'folder'))
    assert not (tmp_path / 'new').exists()
    (tmp_path / 'file').touch()
    (tmp_path / 'lost').symlink_to(tmp_path / 'nowhere')
    for name in ('file', 'file/work', 'lost'):
        with pytest.raises(SetupError, match='the work dir must be a folder that can be written, got work_dir=.*, and '
                           '.* is no folder: use --work-dir'):
            check_work_dir(str(tmp_path / name))


@pytest.mark.skipif(os.geteuid() == 0, reason='everything may be written')
def test_work_dir_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SetupError, match='may not be written'):
        check_work_dir(str(tmp_path / 'work'))


def test_weights_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('HOME', str(tmp_path))
    (tmp_path / 'w.pth').write_bytes(b'')
    check_pretrained(Config(dict(model=dict(backbone=dict(type='Pretrained', checkpoint='~/w.pth')))))
