"""tools/train.py: what its options do to the config, and what it refuses before a run starts."""
import re

import pytest


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


def test_amp_refuses_another_wrapper(prepare):
    with pytest.raises(ValueError, match='--amp must meet an optim_wrapper of type OptimWrapper or '
                       'AmpOptimWrapper, got optim_wrapper.type=ApexOptimWrapper'):
        prepare('--amp', options=['optim_wrapper.type=ApexOptimWrapper'])


def test_amp_refuses_a_cpu(train_tool, prepare, monkeypatch):
    monkeypatch.setattr(train_tool, 'get_device', lambda: 'cpu')
    with pytest.raises(ValueError, match='--amp must run on an accelerator.*got device=cpu'):
        prepare('--amp')


def test_auto_scale_lr(prepare):
    assert prepare().auto_scale_lr.enable is False
    assert prepare('--auto-scale-lr').auto_scale_lr.enable is True


def test_auto_scale_lr_without_a_base(prepare):
    with pytest.raises(ValueError, match='--auto-scale-lr must find auto_scale_lr.base_batch_size '
                       'in the config, got auto_scale_lr={}'):
        prepare('--auto-scale-lr', options=['auto_scale_lr=None'])


def test_resume_of_a_file(prepare, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    path.touch()
    cfg = prepare('--resume', str(path))
    assert (cfg.resume, cfg.load_from) == (True, str(path))


@pytest.mark.parametrize('args', [['--resume'], ['--resume', 'auto']])
def test_resume_of_the_latest_checkpoint(prepare, tmp_path, args):
    pretrained = tmp_path / 'pretrained.pth'
    pretrained.touch()
    options = [f'load_from={pretrained}']
    work_dir = tmp_path / 'work'
    first = prepare(*args, '--work-dir', str(work_dir), options=options)
    assert (first.resume, first.load_from) == (False, str(pretrained))
    work_dir.mkdir()
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    second = prepare(*args, '--work-dir', str(work_dir), options=options)
    assert (second.resume, second.load_from) == (True, None)


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
