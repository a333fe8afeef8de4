"""How several processes are joined, and what a config becomes where they have no accelerator."""

from datetime import timedelta

import pytest
from mmengine import Config

from mmacmix.engine import join_processes, processes


@pytest.fixture()
def join(monkeypatch):
    """join(training=..., device=..., **settings): the config, and how the processes were joined."""

    def call(training=True, device='cpu', **settings):
        joined = []
        monkeypatch.setattr(processes, 'get_device', lambda: device)
        monkeypatch.setattr(
            processes.dist, 'init_process_group', lambda *args, **kwargs: joined.append((args, kwargs)))
        monkeypatch.setattr(
            processes, 'set_multi_processing', lambda **options: joined.extend(['workers', options]))
        monkeypatch.setattr(
            processes, 'init_dist', lambda launcher, **options: joined.extend(['joined', launcher, options]))
        cfg = Config(settings)
        join_processes(cfg, training)
        return cfg, joined

    return call


@pytest.mark.parametrize('settings', [
    dict(device='cuda', launcher='none'), dict(device='cpu', launcher='none'),
    dict(device='cuda', launcher='pytorch', runner_type='FlexibleRunner'),
])
def test_nothing_is_done_with_one_process_or_a_strategy(join, settings):
    cfg, joined = join(**settings, sync_bn='torch')
    settings.pop('device')
    assert joined == [] and cfg.to_dict() == dict(settings, sync_bn='torch')


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_accelerators_are_joined_as_the_runner_does_it(join, launcher):
    """At the same settings of the same function, with the same start of workers before."""
    env = dict(mp_cfg=dict(mp_start_method='spawn'), dist_cfg=dict(backend='hccl', timeout=60))
    for settings, options, workers in ((dict(), dict(), dict()), (dict(env_cfg=env), env['dist_cfg'], env['mp_cfg'])):
        cfg, joined = join(device='cuda', launcher=launcher, sync_bn='torch', **settings)
        assert joined == ['workers', dict(distributed=True, **workers), 'joined', launcher, options]
        assert cfg.sync_bn == 'torch'


def test_models_stay_on_their_cpu(join):
    cfg, joined = join(launcher='pytorch', sync_bn=None, find_unused_parameters=True)
    assert cfg.model_wrapper_cfg == dict(broadcast_buffers=False, find_unused_parameters=True, device_ids=None)
    assert joined == [(('gloo',), {})]


def test_settings_of_the_wrapper_and_the_timeout_stay(join):
    cfg, joined = join(launcher='pytorch', model_wrapper_cfg=dict(type='Own', broadcast_buffers=True),
                       env_cfg=dict(dist_cfg=dict(backend='nccl', timeout=60)))
    assert (cfg.model_wrapper_cfg.type, cfg.model_wrapper_cfg.broadcast_buffers) == ('Own', True)
    assert joined == [(('gloo',), dict(timeout=timedelta(seconds=60)))]


def test_strategies(join):
    cfg, _ = join(launcher='pytorch', runner_type='FlexibleRunner')
    assert cfg.strategy.type == 'DDPStrategy' and cfg.strategy.model_wrapper.device_ids is None
    cfg, _ = join(launcher='pytorch', runner_type='FlexibleRunner', strategy=dict(type='FSDPStrategy'))
    assert cfg.strategy.model_wrapper == dict(type='MMFullyShardedDataParallel', device_id='cpu')


def test_full_checkpoints_of_fsdp_are_not_moved_to_the_cpu(join):
    cfg, _ = join(launcher='pytorch', runner_type='FlexibleRunner',
                  strategy=dict(type='FSDPStrategy', state_dict_cfg='full'))
    saving = cfg.strategy.state_dict_cfg
    assert saving.state_dict_type == 'FULL_STATE_DICT'
    assert saving.state_dict_config == dict(type='FullStateDictConfig', offload_to_cpu=False, rank0_only=False)
    assert saving.optim_state_dict_config == dict(
        type='FullOptimStateDictConfig', offload_to_cpu=False, rank0_only=False)
    cfg, _ = join(launcher='pytorch', runner_type='FlexibleRunner',
                  strategy=dict(type='FSDPStrategy', state_dict_cfg='local'))
    assert cfg.strategy.state_dict_cfg == 'local'


def test_sync_bn_is_refused_in_training_and_idle_in_a_test(join):
    with pytest.raises(ValueError, match='must have an accelerator, .* got sync_bn=torch: --cfg-options sync_bn=None'):
        join(launcher='pytorch', sync_bn='torch')
    with pytest.raises(ValueError, match='got strategy.sync_bn=torch: --cfg-options strategy.sync_bn=None'):
        join(launcher='pytorch', runner_type='FlexibleRunner', strategy=dict(type='DDPStrategy', sync_bn='torch'))
    assert join(training=False, launcher='pytorch', sync_bn='torch')[0].sync_bn is None


@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_other_launchers_are_refused(join, launcher):
    with pytest.raises(ValueError, match=f'--launcher must be pytorch, got --launcher {launcher}'):
        join(launcher=launcher)
