"""What the configs say: names, headers, recipes, switches."""
from collections import Counter
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

# optimiser, learning rate, weight decay, images per GPU of 8, epochs or iterations
RECIPES = {
    'retinanet_resnet': ('SGD', 0.01, 1e-4, 2, 12),
    'retinanet_san': ('SGD', 0.01, 1e-4, 2, 12),
    'retinanet_pvt': ('AdamW', 1e-4, 1e-4, 2, 12),
    'retinanet_swin': ('AdamW', 1e-4, 0.05, 2, 12),
    'mask-rcnn_resnet': ('SGD', 0.02, 1e-4, 2, 12),
    'mask-rcnn_san': ('SGD', 0.02, 1e-4, 2, 12),
    'mask-rcnn_pvt': ('AdamW', 2e-4, 1e-4, 2, 12),
    'mask-rcnn_swin': ('AdamW', 1e-4, 0.05, 2, 12),
    'cascade-mask-rcnn_swin': ('AdamW', 1e-4, 0.05, 2, 12),
    'fpn_resnet': ('SGD', 0.01, 5e-4, 4, 40000),
    'fpn_san': ('SGD', 0.01, 5e-4, 4, 40000),
    'fpn_pvt': ('AdamW', 2e-4, 1e-4, 4, 40000),
    'fpn_swin': ('AdamW', 2e-4, 1e-4, 4, 40000),
    'upernet_resnet': ('SGD', 0.01, 5e-4, 2, 160000),
    'upernet_san': ('SGD', 0.01, 5e-4, 2, 160000),
    'upernet_pvt': ('AdamW', 6e-5, 0.01, 2, 160000),
    'upernet_swin': ('AdamW', 6e-5, 0.01, 2, 160000),
}
DROP_PATH = {  # of both sizes
    'retinanet_swin': 0.2,
    'mask-rcnn_swin': 0.2,
    'cascade-mask-rcnn_swin': 0.2,
    'fpn_swin': 0.1,
    'upernet_swin': 0.3,
}
BACKBONES = {
    f'{family}-acmix-{size}'
    for family, sizes in (
        ('resnet', ('26', '38', '50')), ('san', ('10', '15', '19')), ('pvt', ('t', 's')), ('swin', ('t', 's'))
    )
    for size in sizes
}


def types_in(node):
    """Every value of a key `type`, at any depth."""
    if isinstance(node, dict):
        if 'type' in node:
            yield node['type']
        node = node.values()
    elif not isinstance(node, (list, tuple)):
        return
    for child in node:
        yield from types_in(child)


def test_the_zoo_is_whole(configs_dir):
    for folder in ('retinanet', 'mask_rcnn', 'sem_fpn', 'upernet'):
        names = {p.stem for p in (configs_dir / folder).glob('*.py') if '3x' not in p.stem}
        assert {name.split('_')[1] for name in names} == BACKBONES and len(names) == len(BACKBONES)
    cascade = {p.stem.replace('cascade-', '', 1) for p in (configs_dir / 'cascade_mask_rcnn').glob('*.py')}
    assert cascade == {p.stem for p in (configs_dir / 'mask_rcnn').glob('*_swin-*.py')}
    assert {name.split('_', 2)[2] for name in cascade} == {'fpn_1x_coco', 'fpn_amp-ms-crop-3x_coco'}


def test_basenames_are_unique(configs_dir):
    """mim finds a config by its basename alone."""
    names = Counter(p.name for p in configs_dir.rglob('*.py'))
    assert [name for name, count in names.items() if count > 1] == []


def test_runs_in_the_scope_of_a_host(config_path, cfg):
    assert cfg.default_scope in ('mmdet', 'mmseg')
    # For the hosts' inferencers alone: backbones are found without it.
    assert cfg.custom_imports == dict(imports=['mmacmix.registry'], allow_failed_imports=False)
    assert cfg.model.backbone.type.startswith('mmacmix.')
    assert [hook.type for hook in cfg.custom_hooks[:2]] == ['mmacmix.StartCheckHook', 'mmacmix.CheckpointGuardHook']
    assert cfg.default_hooks.visualization.type.endswith('VisualizationHook')


def test_syncbn_has_one_switch(zoo_path, cfg):
    """Models say BN, which a CPU can train; the runner of several GPUs makes it SyncBN."""
    assert 'SyncBN' not in set(types_in(cfg.model.to_dict()))
    assert cfg.sync_bn == 'torch'


def test_sync_bn_can_be_switched_off(zoo_path, cfg):
    cfg.merge_from_dict({'sync_bn': None})
    assert cfg.get('sync_bn') is None


def test_header_says_command_hardware_and_status(zoo_path, cfg):
    header = ''.join(
        line for line in zoo_path.read_text().splitlines(keepends=True) if line.startswith('#'))
    assert f'mim train mmacmix {zoo_path.name} ' in header
    assert f'8 GPUs x {cfg.train_dataloader.batch_size} images' in header
    assert 'not trained' in header


def test_recipe(zoo_path, cfg):
    family = zoo_path.stem.split('-acmix')[0]
    optimiser, lr, decay, images, length = RECIPES[family]
    if '3x' in zoo_path.stem:
        length = 36
    assert cfg.optim_wrapper.type == ('AmpOptimWrapper' if '_amp-' in zoo_path.stem else 'OptimWrapper')
    expected = 0.1 if '_pvt-' in zoo_path.stem else DROP_PATH.get(family)
    assert cfg.model.backbone.get('drop_path_rate') == expected
    found = cfg.optim_wrapper.optimizer
    assert (found.type, found.lr, found.weight_decay) == (optimiser, lr, decay)
    assert cfg.train_dataloader.batch_size == images
    assert cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters')) == length
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=8 * images)


def test_schedule_ends_with_the_training(zoo_path, cfg):
    last = cfg.param_scheduler[-1]
    assert last.end == cfg.train_cfg.get('max_epochs', cfg.train_cfg.get('max_iters'))
    assert last.by_epoch == (cfg.train_cfg.type == 'EpochBasedTrainLoop')
    # a floor above the rate of the optimiser would let the rate rise
    assert last.get('eta_min', 0.) < cfg.optim_wrapper.optimizer.lr


def test_nothing_is_frozen(zoo_path, cfg):
    backbone = cfg.model.backbone
    assert backbone.get('frozen_stages', -1) == -1
    assert backbone.get('norm_eval', False) is False


def test_preprocessing(zoo_path, cfg):
    pre = cfg.model.data_preprocessor
    assert pre.mean == [123.675, 116.28, 103.53]
    assert pre.std == [58.395, 57.12, 57.375]
    assert pre.bgr_to_rgb is True
    if cfg.default_scope == 'mmdet':
        assert pre.pad_size_divisor == 32
    else:
        assert tuple(pre.size) == tuple(cfg.crop_size) == (512, 512)
        assert cfg.model.test_cfg.mode == 'whole'


def test_annotations_of_the_evaluation_are_those_of_the_data(zoo_path, cfg):
    if cfg.default_scope == 'mmseg':
        pytest.skip('segmentation reads its truth from the data set alone')
    for split in ('val', 'test'):
        data = cfg[f'{split}_dataloader'].dataset
        assert cfg[f'{split}_evaluator'].ann_file == data.data_root + data.ann_file


@pytest.mark.parametrize(
    'family, small, field, variants',
    [
        ('resnet', '26', 'depth', {'38': 38, '50': 50}),
        ('san', '10', 'depth', {'15': 15, '19': 19}),
        ('pvt', 't', 'arch', {'s': 'small'}),
        ('swin', 't', 'arch', {'s': 'small'}),
    ])
def test_size_variants_are_short(configs_dir, family, small, field, variants):
    """A larger backbone is its smaller sibling and one line."""
    for size, value in variants.items():
        paths = list(configs_dir.glob(f'*/*_{family}-acmix-{size}_*.py'))
        assert len(paths) >= 4
        for path in paths:
            sibling = Config.fromfile(str(path).replace(f'-acmix-{size}_', f'-acmix-{small}_'))
            sibling.model.backbone[field] = value
            assert Config.fromfile(path).to_dict() == sibling.to_dict(), path.name
            assert len(path.read_text().splitlines()) <= 8


def test_cascade_and_crops_are_those_of_mmdet():
    folder = Path(__file__).resolve().parents[2] / 'configs' / 'cascade_mask_rcnn'
    ours = Config.fromfile(folder / 'cascade-mask-rcnn_swin-acmix-t_fpn_amp-ms-crop-3x_coco.py')
    theirs = get_config('mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py').model
    assert ours.model.rpn_head.to_dict() == theirs.rpn_head.to_dict()
    assert ours.model.train_cfg.rpn.allowed_border == theirs.train_cfg.rpn.allowed_border
    theirs = get_config('mmdet::swin/mask-rcnn_swin-t-p4-w7_fpn_ms-crop-3x_coco.py')
    of = [next(step for step in cfg.train_pipeline if step.type == 'RandomChoice').to_dict() for cfg in (ours, theirs)]
    assert of[0] == of[1]
