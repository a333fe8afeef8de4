"""tools/test.py: what its options do to the config, and what it refuses before a run starts."""
import os
import re
from types import SimpleNamespace

import pytest


@pytest.fixture()
def checkpoint(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    path.touch()
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
    cfg = without(prepare(det_config), 'tta_model', 'tta_pipeline')
    before = cfg.test_dataloader.dataset.pipeline
    test_tool.enable_tta(cfg)
    assert cfg.model.type == 'DetTTAModel'
    after = cfg.test_dataloader.dataset.pipeline
    assert after[:-1] == before[:-1]
    flips, pack = after[-1].transforms
    assert [(step.type, step.prob) for step in flips] == [('RandomFlip', 1.), ('RandomFlip', 0.)]
    assert 'flip_direction' in pack[0].meta_keys


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
    cfg.test_evaluator = [dict(type='Other'), dict(type='mmseg.IoUMetric')]
    test_tool.check_out(cfg, 'labels')
    assert cfg.test_evaluator[1].output_dir == 'labels'
    assert 'output_dir' not in cfg.test_evaluator[0]


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
