"""tools/test.py: what its options do to the config, and what it refuses before a run starts."""
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import DATASETS, init_default_scope

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


@pytest.fixture()
def checkpoint(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save({}, path)
    return str(path)


@pytest.fixture(params=['det_config', 'seg_config'])
def any_config(request):
    return request.getfixturevalue(request.param)


@pytest.fixture()
def prepare(test_tool, checkpoint):
    """prepare(config, *args, options=[...]) returns the config to run."""

    def call(config, *args, options=()):
        args = test_tool.parse_args([
            config.path, checkpoint, *args, '--cfg-options', *config.options, *options])
        return test_tool.prepare(args)

    return call


@pytest.fixture()
def fails(test_tool):
    """fails(args) gives the message with which the script ends."""

    def call(*args):
        with pytest.raises(SystemExit) as stop:
            test_tool.main([str(arg) for arg in args])
        return str(stop.value.code)

    return call


def test_checkpoint_and_work_dir(prepare, any_config, checkpoint):
    cfg = prepare(any_config)
    assert cfg.load_from == checkpoint
    assert cfg.work_dir == os.path.join('work_dirs', os.path.basename(any_config.path)[:-3])
    assert prepare(any_config, '--work-dir', 'given').work_dir == 'given'


def test_both_spellings_of_local_rank(test_tool):
    for name in ('--local_rank', '--local-rank'):
        args = test_tool.parse_args(['c.py', 'c.pth', f'{name}=3', '--launcher', 'pytorch'])
        assert (args.local_rank, args.launcher) == (3, 'pytorch')


def test_show_dir_of_mmdet_is_where_it_was_asked_for(prepare, det_config):
    hook = prepare(det_config, '--show-dir', 'pictures').default_hooks.visualization
    assert hook.draw is True
    assert hook.test_out_dir == os.path.abspath('pictures')


def test_show_dir_of_mmseg_draws_every_image(prepare, seg_config):
    cfg = prepare(seg_config, '--show-dir', 'pictures')
    assert cfg.visualizer.save_dir == 'pictures'
    assert dict(cfg.default_hooks.visualization, type=None) == dict(
        type=None, draw=True, interval=1)
    cfg = prepare(seg_config, '--show-dir', 'pictures',
                  options=['default_hooks.visualization.interval=7'])
    assert cfg.default_hooks.visualization.interval == 7


def test_show_waits(prepare, any_config):
    hook = prepare(any_config, '--show', '--wait-time', '0.5').default_hooks.visualization
    assert (hook.draw, hook.show, hook.wait_time) == (True, True, 0.5)


@pytest.mark.parametrize('option', ['default_hooks.visualization=None', 'visualizer=None'])
def test_show_dir_without_a_visualizer(prepare, any_config, option):
    with pytest.raises(ValueError, match='--show and --show-dir must find '
                       'default_hooks.visualization and visualizer in the config'):
        prepare(any_config, '--show-dir', 'pictures', options=[option])


def test_tta_of_the_config(prepare, any_config):
    plain, augmented = prepare(any_config), prepare(any_config, '--tta')
    assert augmented.model.type == plain.tta_model.type
    assert augmented.model.module == plain.model
    assert augmented.test_dataloader.dataset.pipeline == plain.tta_pipeline


def without(cfg, *names):
    for name in names:
        cfg.pop(name)
    return cfg


def test_tta_of_mmdet_mirrors_without_settings(test_tool, prepare, det_config):
    mirrored = prepare(det_config, '--tta-mirror')
    cfg = without(prepare(det_config), 'tta_model', 'tta_pipeline')
    test_tool.enable_tta(cfg)
    assert cfg.model.type == 'DetTTAModel'
    assert cfg.test_dataloader.dataset.pipeline == mirrored.test_dataloader.dataset.pipeline


def test_tta_mirror_gives_the_image_and_its_mirror_image(prepare, any_config):
    """At the size of the test, with the truth as it is in the file."""
    size = 'test_dataloader.dataset.pipeline.1.scale=(80,80)'
    own = [size, 'test_dataloader.dataset.metainfo.classes=dark,light']
    if any_config.path.endswith('ade20k-512x512.py'):
        own += ['test_dataloader.dataset.type=BaseSegDataset', 'test_dataloader.dataset.img_suffix=.jpg',
                'test_dataloader.dataset.seg_map_suffix=.png']
    plain, augmented = (prepare(any_config, *args, options=own) for args in ([], ['--tta-mirror']))
    init_default_scope(plain.default_scope)
    expected, found = (DATASETS.build(cfg.test_dataloader.dataset)[0] for cfg in (plain, augmented))
    for flipped, image, sample in zip((False, True), found['inputs'], found['data_samples']):
        assert (image == (expected['inputs'].flip(-1) if flipped else expected['inputs'])).all()
        assert sample.flip == flipped and sample.get('flip_direction') == ('horizontal' if flipped else None)
        assert sample.ori_shape == expected['data_samples'].ori_shape
        if 'gt_sem_seg' in sample:
            assert (sample.gt_sem_seg.data == expected['data_samples'].gt_sem_seg.data).all()
        else:
            assert (sample.gt_instances.bboxes.tensor == expected['data_samples'].gt_instances.bboxes.tensor).all()


def test_tta_over_the_zoo(test_tool, checkpoint, monkeypatch):
    """Every config without masks has its settings, among them the size of the test."""
    monkeypatch.setattr(test_tool, 'check_data_paths', lambda cfg, splits: None)
    count = 0
    for path in sorted(CONFIGS.glob('*/*.py')):
        if path.parent.name in ('retinanet', 'sem_fpn', 'upernet'):
            for option in ('--tta', '--tta-mirror'):
                cfg = test_tool.prepare(test_tool.parse_args([str(path), checkpoint, option]))
                assert cfg.model.type in ('DetTTAModel', 'SegTTAModel')
            count += 1
    assert count == 30


@pytest.mark.parametrize('resized', [True, False])
def test_tta_at_sizes_of_another_config(test_tool, prepare, any_config, resized):
    """What a config of one's own inherits and forgets."""
    for mirror in (False, True):
        cfg = prepare(any_config, options=['test_dataloader.dataset.pipeline.1.scale=(64,48)'])
        if not resized:
            del cfg.test_dataloader.dataset.pipeline[1]
        if mirror:
            test_tool.enable_tta(cfg, mirror=True)
            continue
        size = r'\(64, 48\)' if resized else 'none'
        with pytest.raises(ValueError, match='--tta must have the size of the test pipeline among those of '
                           rf'tta_pipeline, got scale={size} and \(\d+, \d+\), .*: set tta_pipeline in the config, '
                           'or use --tta-mirror'):
            test_tool.enable_tta(cfg)


def test_tta_at_sizes_relative_to_the_image(test_tool, prepare, seg_config):
    cfg = prepare(seg_config)
    cfg.tta_pipeline[1].transforms[0] = [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (0.5, 1.)]
    test_tool.enable_tta(cfg)
    cfg = prepare(seg_config)
    cfg.tta_pipeline[1].transforms[0] = []
    with pytest.raises(ValueError, match=r'got scale=\(2048, 512\) and none'):
        test_tool.enable_tta(cfg)


@pytest.mark.parametrize('name, metric', [('retinanet', 'coco/bbox_mAP'), ('fpn', 'mIoU')])
@pytest.mark.parametrize('option', ['--tta', '--tta-mirror'])
def test_tta_runs(test_tool, trained, tmp_path, name, metric, option):
    run = trained(name)
    test_tool.main([run.config, run.checkpoint, option, '--work-dir', str(tmp_path)])
    figures, = tmp_path.glob('*/*.json')
    assert metric in json.loads(figures.read_text())


def test_tta_of_mmseg_needs_its_settings(test_tool, prepare, seg_config):
    cfg = without(prepare(seg_config), 'tta_model')
    with pytest.raises(ValueError, match='--tta must find tta_model and tta_pipeline in the config,'
                       ' got missing=tta_model'):
        test_tool.enable_tta(cfg)


def test_tta_refuses_masks(test_tool, prepare, det_config):
    mask_config = det_config.path.replace('retinanet_', 'mask-rcnn_').replace(
        os.sep + 'retinanet' + os.sep, os.sep + 'mask_rcnn' + os.sep)
    with pytest.raises(ValueError, match='--tta must meet a detector without a mask head.*'
                       'got model.roi_head.mask_head'):
        prepare(SimpleNamespace(path=mask_config, options=det_config.options), '--tta')


def test_out_takes_a_pickle(prepare, any_config):
    for name in ('a.pkl', 'a.pickle'):
        assert prepare(any_config, '--out', name).test_evaluator == prepare(
            any_config).test_evaluator


def test_out_of_mmseg_takes_a_folder(prepare, seg_config):
    assert prepare(seg_config, '--out', 'labels').test_evaluator.output_dir == 'labels'


def test_out_of_mmseg_finds_the_metric_in_a_list(test_tool, prepare, seg_config):
    cfg = prepare(seg_config)
    metrics = [dict(type='Other'), dict(type='mmseg.IoUMetric')]
    cfg.test_evaluator = metrics
    test_tool.check_out(cfg, 'labels')
    assert cfg.test_evaluator[1].output_dir == 'labels'
    assert 'output_dir' not in cfg.test_evaluator[0]
    cfg.test_evaluator = dict(type='Evaluator', metrics=metrics)
    test_tool.check_out(cfg, 'labels')
    assert cfg.test_evaluator.metrics[1].output_dir == 'labels'


def test_out_of_mmseg_without_the_metric(test_tool, prepare, seg_config):
    cfg = prepare(seg_config)
    cfg.test_evaluator = dict(type='Other')
    with pytest.raises(ValueError, match='--out DIR must find an IoUMetric in test_evaluator, '
                       'got --out labels'):
        test_tool.check_out(cfg, 'labels')


def test_out_of_mmdet_refuses_another_ending(fails, det_config, checkpoint):
    assert fails(det_config.path, checkpoint, '--out', 'labels') == (
        'test.py: error: --out must end with .pkl or .pickle, got --out labels')


def test_missing_config(fails, checkpoint):
    assert fails('no/such/config.py', checkpoint) == (
        'test.py: error: the config must be an existing file, got config=no/such/config.py')


def test_missing_checkpoint(fails, any_config):
    assert fails(any_config.path, 'no/such.pth') == (
        'test.py: error: the checkpoint must be an existing file, got checkpoint=no/such.pth')


def test_missing_data_root_is_reported_with_its_setting(fails, any_config, checkpoint):
    message = fails(any_config.path, checkpoint, '--cfg-options', *any_config.options,
                    'test_dataloader.dataset.data_root=/no/such/data')
    assert re.search(r'/no/such/data\b.*test_dataloader\.dataset\.data_root', message)
    assert message.startswith('test.py: error: ')


def test_out_refuses_evaluators_of_parts(test_tool, prepare, det_config):
    """MMDetection's reads as many metrics as it has prefixes: the one that writes would be left out in silence."""
    cfg = prepare(det_config)
    cfg.test_evaluator = dict(type='MultiDatasetsEvaluator', metrics=[cfg.test_evaluator], dataset_prefixes=['a'])
    with pytest.raises(ValueError, match='--out must meet one evaluator of all images, got .*: test one data set at'):
        test_tool.check_out(cfg, 'a.pkl')


def test_tta_of_several_data_sets(test_tool, prepare, any_config):
    cfg, single = prepare(any_config), prepare(any_config, '--tta-mirror')
    one = cfg.test_dataloader.dataset
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, dict(one, ann_file='other.json')])
    test_tool.enable_tta(cfg, mirror=True)
    assert [part.pipeline for part in cfg.test_dataloader.dataset.datasets] == 2 * [
        single.test_dataloader.dataset.pipeline]
    cfg = prepare(any_config)
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, dict(one, pipeline=one.pipeline[1:])])
    with pytest.raises(ValueError, match='--tta must find one pipeline of all data sets .*, got others'):
        test_tool.enable_tta(cfg, mirror=True)
