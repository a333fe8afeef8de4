"""tools/train.py: what its options do to the config, and what it refuses before a run starts."""
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.optim.optimizer import amp_optimizer_wrapper

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
# Those whose data are not in the repository, which is all that `prepare` would refuse.
ZOO = sorted(path for path in CONFIGS.glob('*/*.py') if path.parent.name not in ('_base_', 'demo'))


@pytest.fixture()
def prepare(train_tool, det_config):
    """prepare(*args, options=[...]) on a detection config; returns the config to run."""

    def call(*args, options=()):
        args = train_tool.parse_args([
            det_config.path, *args, '--cfg-options', *det_config.options, *options])
        return train_tool.prepare(args)

    return call


@pytest.fixture()
def fails(train_tool, capsys):
    """fails(args) gives the message with which the script ends."""

    def call(*args):
        with pytest.raises(SystemExit) as stop:
            train_tool.main([str(arg) for arg in args])
        return str(stop.value.code)

    return call


def test_work_dir_is_named_after_the_config(prepare):
    assert prepare().work_dir == 'work_dirs/retinanet_resnet-acmix-26_fpn_1x_coco'


def test_work_dir_of_the_command_line_wins_over_the_config(prepare):
    assert prepare(options=['work_dir=configured']).work_dir == 'configured'
    assert prepare('--work-dir', 'given', options=['work_dir=configured']).work_dir == 'given'


def test_launcher_and_both_spellings_of_local_rank(train_tool, det_config):
    for name in ('--local_rank', '--local-rank'):
        args = train_tool.parse_args([det_config.path, f'{name}=3', '--launcher', 'pytorch'])
        assert (args.local_rank, args.launcher) == (3, 'pytorch')


def test_help_does_not_offer_gpus(train_tool, capsys):
    # mim would then add --gpus to the command, as for the first generation of the hosts.
    with pytest.raises(SystemExit):
        train_tool.parse_args(['-h'])
    assert '--gpus' not in capsys.readouterr().out


def test_amp_switches_the_optimiser_wrapper(train_tool, prepare, monkeypatch):
    monkeypatch.setattr(train_tool, 'get_device', lambda: 'cuda')
    wrapper = prepare('--amp').optim_wrapper
    assert (wrapper.type, wrapper.loss_scale) == ('AmpOptimWrapper', 'dynamic')
    wrapper = prepare('--amp', options=['optim_wrapper.type=AmpOptimWrapper',
                                        'optim_wrapper.loss_scale=512.']).optim_wrapper
    assert (wrapper.type, wrapper.loss_scale) == ('AmpOptimWrapper', 512.)


def test_amp_in_a_format(elsewhere, det_config, seg_config):
    for path, option in ((det_config.path, 'float16'), (seg_config.path, 'float16'), (seg_config.path, 'bfloat16')):
        wrapper = elsewhere(path, '--amp-dtype', option).optim_wrapper
        assert (wrapper.type, wrapper.dtype) == ('AmpOptimWrapper', option)
        assert wrapper == elsewhere(path, '--amp', '--amp-dtype', option).optim_wrapper


def test_detectors_refuse_bfloat16(elsewhere, det_config):
    with pytest.raises(ValueError, match='--amp-dtype bfloat16 must meet a segmenter or classifier.*got '
                       'a config of mmdet'):
        elsewhere(det_config.path, '--amp-dtype', 'bfloat16')


@pytest.fixture()
def elsewhere(train_tool, monkeypatch):
    """elsewhere(path, *args) prepares any config, as if its data and an accelerator were there."""
    monkeypatch.setattr(train_tool, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(train_tool, 'check_data_paths', lambda cfg, splits: None)
    return lambda *args: train_tool.prepare(train_tool.parse_args([str(arg) for arg in args]))


def test_options_change_nothing_else(elsewhere):
    """Schedule, clipping and exceptions from weight decay stay, in every config."""
    assert len(ZOO) >= 50
    for path in ZOO:
        cfg, expected = elsewhere(path, '--amp', '--auto-scale-lr'), elsewhere(path)
        expected.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic')
        expected.auto_scale_lr.enable = True
        assert cfg.to_dict() == expected.to_dict(), path.name


def test_learning_rates_are_for_the_batch_that_the_name_tells(elsewhere):
    for path in ZOO:
        cfg = elsewhere(path)
        told = re.search(r'_(\d+)xb(\d+)[-_]', path.name) or re.search(r'(\d+) GPUs x (\d+) images', path.read_text())
        gpus, images = map(int, told.groups())
        assert cfg.train_dataloader.batch_size == images, path.name
        assert cfg.auto_scale_lr.base_batch_size == gpus * images, path.name
        # One GPU must not come below the floor of the schedule: the rate would rise.
        lowest = cfg.optim_wrapper.optimizer.lr / gpus
        assert all(step.get('eta_min', 0) < lowest for step in cfg.param_scheduler), path.name


def rates(folder):
    """The learning rates that a run of one iteration has left, in its checkpoint."""
    checkpoint, = folder.glob('*_1.pth')
    groups = torch.load(checkpoint, weights_only=False)['optimizer']['param_groups']
    return {group['initial_lr'] for group in groups}


def test_one_process_trains_at_its_share_of_the_rate(train_tool, own_config, trained, tmp_path):
    assert rates(trained('retinanet').work_dir) == {0.01}
    train_tool.main([str(own_config('retinanet')), '--auto-scale-lr', '--work-dir', str(tmp_path)])
    assert rates(tmp_path) == {0.01 * 2 / 16}  # two images, where the rate is for eight times two


@pytest.mark.parametrize('name', ['fpn', 'upernet'])
def test_training_in_mixed_precision(train_tool, own_config, tmp_path, monkeypatch, name):
    """torch has autocast in bfloat16 on CPUs too; loss scaling, which mmengine wants besides, is idle there."""
    monkeypatch.setattr(train_tool, 'get_device', lambda: 'cuda')
    monkeypatch.setattr(amp_optimizer_wrapper, 'is_cuda_available', lambda: True)
    seen, forward = set(), torch.nn.Conv2d.forward

    def watched(self, x):
        if self.training:
            seen.add(torch.is_autocast_cpu_enabled())
        return forward(self, x)

    monkeypatch.setattr(torch.nn.Conv2d, 'forward', watched)
    train_tool.main([str(own_config(name)), '--amp-dtype', 'bfloat16', '--work-dir', str(tmp_path)])
    checkpoint, = tmp_path.glob('*_1.pth')
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    assert seen == {True}
    assert all(value.isfinite().all() for value in state.values())
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}


def test_amp_refuses_another_wrapper(prepare):
    with pytest.raises(ValueError, match='--amp must meet an optim_wrapper of type OptimWrapper or '
                       'AmpOptimWrapper, got optim_wrapper.type=ApexOptimWrapper'):
        prepare('--amp', options=['optim_wrapper.type=ApexOptimWrapper'])


def test_amp_refuses_a_cpu(train_tool, prepare, monkeypatch):
    monkeypatch.setattr(train_tool, 'get_device', lambda: 'cpu')
    with pytest.raises(ValueError, match='--amp must run on an accelerator.*got device=cpu'):
        prepare('--amp')


def test_a_config_in_mixed_precision_refuses_a_cpu(fails, det_config):
    path = det_config.path.replace('retinanet_resnet-acmix-26_fpn_1x', 'mask-rcnn_swin-acmix-t_fpn_amp-ms-crop-3x')
    assert fails(path.replace('/retinanet/', '/mask_rcnn/')) == (
        'train.py: error: optim_wrapper.type=AmpOptimWrapper of the config must run on an accelerator that mmengine '
        'scales losses on, got device=cpu')


def test_auto_scale_lr(prepare):
    assert prepare().auto_scale_lr.enable is False
    assert prepare('--auto-scale-lr').auto_scale_lr.enable is True


def test_auto_scale_lr_without_a_base(prepare):
    with pytest.raises(ValueError, match='--auto-scale-lr must find auto_scale_lr.base_batch_size '
                       'in the config, got auto_scale_lr={}'):
        prepare('--auto-scale-lr', options=['auto_scale_lr=None'])


def of_a_run(path, **meta):
    """Write what --resume needs."""
    path.parent.mkdir(exist_ok=True)
    hub = dict(log_scalars={}, runtime_info={}, resumed_keys={})
    meta = dict(dict(epoch=1, iter=1), **meta)
    torch.save(dict(meta=meta, state_dict={'x': torch.ones(100)}, optimizer={'state': {}}, message_hub=hub), path)
    return path


def damage(path):
    """Turn one bit in the middle of the weights."""
    data = bytearray(path.read_bytes())
    data[data.index(torch.ones(100).numpy().tobytes()) + 7] ^= 1
    path.write_bytes(data)


def test_resume_of_a_file(prepare, tmp_path):
    path = of_a_run(tmp_path / 'epoch_1.pth')
    cfg = prepare('--resume', str(path))
    assert (cfg.resume, cfg.load_from) == (True, str(path))


def test_resume_takes_the_seed_that_was_drawn(prepare, tmp_path):
    path = of_a_run(tmp_path / 'epoch_1.pth', seed=7)
    assert prepare('--resume', str(path)).randomness.seed == 7
    assert prepare('--resume', str(path), options=['randomness.seed=3']).randomness.seed == 3


@pytest.mark.parametrize('how', ['flipped', 'cut', 'empty', 'gone'])
def test_another_checkpoint_is_used_only_if_the_user_says_so(prepare, tmp_path, how):
    work_dir = tmp_path / 'work'
    first, last = (of_a_run(work_dir / f'epoch_{n}.pth') for n in (1, 2))
    (work_dir / 'last_checkpoint').write_text(str(last))
    if how == 'flipped':
        damage(last)
    elif how == 'gone':
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:500] if how == 'cut' else b'')
    message = fr'epoch_2.pth.*whole ones, the newest first: {first}; --resume {first} goes on from that one'
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        prepare('--resume', '--work-dir', str(work_dir))
    assert prepare('--resume', str(first), '--work-dir', str(work_dir)).load_from == str(first)
    damage(first)
    with pytest.raises((FileNotFoundError, ValueError), match=f'no whole checkpoint is in {work_dir}'):
        prepare('--resume', '--work-dir', str(work_dir))


@pytest.mark.parametrize('content', ['', '/etc/passwd', 'https://example.com/epoch_1.pth'])
def test_last_checkpoint_names_something_else(prepare, tmp_path, content):
    (tmp_path / 'last_checkpoint').write_text(content)
    message = fr'(must name an existing file, got|cannot read) .?{content}'
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        prepare('--resume', '--work-dir', str(tmp_path))


def test_resume_of_weights_alone(prepare, tmp_path):
    torch.save(dict(state_dict={}), tmp_path / 'weights.pth')
    with pytest.raises(ValueError, match='--resume needs the checkpoint of a run.*, got .*weights.pth'):
        prepare('--resume', str(tmp_path / 'weights.pth'))


def test_load_from_a_damaged_file(prepare, tmp_path):
    damage(of_a_run(tmp_path / 'weights.pth'))
    with pytest.raises(ValueError, match='cannot read .*weights.pth as a checkpoint: it is damaged: weights/data/0'):
        prepare(options=[f'load_from={tmp_path}/weights.pth'])


@pytest.mark.parametrize('args', [['--resume'], ['--resume', 'auto']])
def test_resume_of_the_latest_checkpoint(prepare, tmp_path, args):
    pretrained = of_a_run(tmp_path / 'pretrained.pth')
    options = [f'load_from={pretrained}']
    work_dir = tmp_path / 'work'
    first = prepare(*args, '--work-dir', str(work_dir), options=options)
    assert (first.resume, first.load_from) == (False, str(pretrained))
    (work_dir / 'last_checkpoint').parent.mkdir()
    (work_dir / 'last_checkpoint').write_text(str(of_a_run(work_dir / 'epoch_1.pth')))
    second = prepare(*args, '--work-dir', str(work_dir), options=options)
    assert (second.resume, second.load_from) == (True, str(work_dir / 'epoch_1.pth'))


def test_resume_in_a_copy_of_a_work_dir(prepare, tmp_path):
    """Its own checkpoint, though last_checkpoint names that of the first folder."""
    work_dir, copy = tmp_path / 'work', tmp_path / 'copy'
    (work_dir / 'last_checkpoint').parent.mkdir()
    (work_dir / 'last_checkpoint').write_text(str(of_a_run(work_dir / 'epoch_1.pth')))
    shutil.copytree(work_dir, copy)
    assert prepare('--resume', '--work-dir', str(copy)).load_from == str(copy / 'epoch_1.pth')
    (copy / 'epoch_1.pth').unlink()  # checkpoints can lie elsewhere
    assert prepare('--resume', '--work-dir', str(copy)).load_from == str(work_dir / 'epoch_1.pth')


def test_last_checkpoint_is_missing(prepare, tmp_path):
    """A training is not begun anew over its checkpoints."""
    first = of_a_run(tmp_path / 'work' / 'iter_2.pth')
    work_dir = str(first.parent)
    torch.save({}, first.parent / 'weights.pth')
    assert prepare('--resume', '--work-dir', work_dir).load_from == str(first)
    second = of_a_run(first.parent / 'iter_10.pth')
    with pytest.raises(FileNotFoundError, match=f'last_checkpoint must be there .*whole ones, the newest .*{second}'):
        prepare('--resume', '--work-dir', work_dir)


def test_checkpoints_lie_elsewhere(prepare, tmp_path):
    """An older one of the same name is left in the work dir."""
    work_dir, out = tmp_path / 'work', tmp_path / 'out'
    options = [f'default_hooks.checkpoint.out_dir={out}', 'default_hooks.checkpoint.filename_tmpl=step_{}.pth']
    out.mkdir()
    of_a_run(work_dir / 'step_2.pth')
    new = of_a_run(out / 'work' / 'step_2.pth')
    args = ['--resume', '--work-dir', str(work_dir)]
    assert prepare(*args, options=options).load_from == str(new)  # the only one
    (work_dir / 'last_checkpoint').write_text(str(new))
    assert prepare(*args, options=options).load_from == str(new)
    (work_dir / 'last_checkpoint').unlink()
    of_a_run(out / 'work' / 'step_4.pth')
    with pytest.raises(FileNotFoundError, match='last_checkpoint must be there where checkpoints are'):
        prepare(*args, options=options)


@pytest.mark.parametrize('meta, message', [
    (dict(epoch=10**9), r'a whole number of epochs of at most train_cfg.max_epochs=\d+, got 1000000000'),
    (dict(iter='x'), "a whole number of iters, got 'x'"),
    (dict(iter=-1), 'a whole number of iters, got -1'),
    (dict(seed=-5), r'must find a seed in \[0, 2\*\*32\), got -5'),
])
def test_progress_that_cannot_be(prepare, tmp_path, meta, message):
    path = of_a_run(tmp_path / 'epoch_1.pth', **meta)
    with pytest.raises(ValueError, match=f'{message} in {path}'):
        prepare('--resume', str(path))


@pytest.mark.parametrize('part, message', [
    ('meta', 'without epoch in meta, iter in meta'), ('optimizer', 'without a state of the optimizer'),
    ('message_hub', 'without log_scalars in message_hub'),
])
def test_parts_that_are_empty(prepare, tmp_path, part, message):
    path = of_a_run(tmp_path / 'epoch_1.pth')
    torch.save(dict(torch.load(path), **{part: {}}), path)
    with pytest.raises(ValueError, match=f'--resume needs the checkpoint of a run, got {path} {message}'):
        prepare('--resume', str(path))


def test_last_checkpoint_is_no_text(prepare, tmp_path):
    (tmp_path / 'last_checkpoint').write_bytes(b'\x80\x81')
    message = 'last_checkpoint must be a text file with the path of a checkpoint, got '
    with pytest.raises(ValueError, match=message + 'UnicodeDecodeError; no whole checkpoint is in'):
        prepare('--resume', '--work-dir', str(tmp_path))
    (tmp_path / 'last_checkpoint').unlink()
    (tmp_path / 'last_checkpoint').mkdir()
    with pytest.raises(ValueError, match=message + 'IsADirectoryError'):
        prepare('--resume', '--work-dir', str(tmp_path))


def test_resume_of_a_missing_file(fails, det_config):
    assert fails(det_config.path, '--resume', 'gone.pth') == (
        'train.py: error: the checkpoint to resume from must be an existing file, '
        'got --resume gone.pth')


def test_load_from_a_missing_file(fails, det_config):
    assert fails(det_config.path, '--cfg-options', 'load_from=gone.pth') == (
        'train.py: error: load_from must be an existing file, got load_from=gone.pth')


def test_missing_config(fails):
    assert fails('no/such/config.py') == (
        'train.py: error: the config must be an existing file, got config=no/such/config.py')


@pytest.mark.parametrize('name', ['det_config', 'seg_config'])
def test_missing_data_root_is_reported_with_its_setting(fails, name, request):
    config = request.getfixturevalue(name)
    message = fails(config.path, '--cfg-options', *config.options,
                    'val_dataloader.dataset.data_root=/no/such/data')
    assert re.search(r'/no/such/data\b.*val_dataloader\.dataset\.data_root', message)
    assert message.startswith('train.py: error: ')
