"""Several processes, which are joined before a runner is built, on accelerators or on a CPU.

Without an accelerator mmengine would put each on a GPU of its own.
"""

from datetime import timedelta

import torch.distributed as dist
from mmengine import Config
from mmengine.device import get_device
from mmengine.dist import init_dist
from mmengine.utils.dl_utils import set_multi_processing

# What mmengine calls 'full', without moving weights to the CPU where they already are: torch 2.13 ends in a
# segmentation fault then.
FULL = dict(
    state_dict_type='FULL_STATE_DICT',
    state_dict_config=dict(type='FullStateDictConfig', offload_to_cpu=False, rank0_only=False),
    optim_state_dict_config=dict(type='FullOptimStateDictConfig', offload_to_cpu=False, rank0_only=False),
)


def join_processes(cfg: Config, training: bool) -> None:
    """Joins the processes that a launcher started; mmengine's runners find the process group and take it.

    On a CPU that is done by gloo, and the model of each process stays there. On accelerators it is done as Runner does
    it; strategies of FlexibleRunner join processes in ways of their own, later. Does nothing for one process.

    Args:
        cfg: The whole config with its launcher; the settings of the model wrapper are filled in.
        training: Whether the model will be trained.

    Raises:
        ValueError: The launcher or ``sync_bn`` has no form for CPUs.
    """
    if cfg.get('launcher', 'none') == 'none':
        return
    if get_device() != 'cpu':
        if 'runner_type' not in cfg:
            env = cfg.get('env_cfg') or {}
            set_multi_processing(distributed=True, **(env.get('mp_cfg') or {}))
            init_dist(cfg.launcher, **(env.get('dist_cfg') or {}))
        return
    _join_on_cpu(cfg, training)


def _join_on_cpu(cfg: Config, training: bool) -> None:
    if cfg.launcher != 'pytorch':
        raise ValueError(f'without an accelerator --launcher must be pytorch, got --launcher {cfg.launcher}')
    if 'runner_type' in cfg:
        if cfg.get('strategy') is None:
            cfg.strategy = dict(type='DDPStrategy')
        owner, name = cfg.strategy, 'model_wrapper'
    else:
        owner, name = cfg, 'model_wrapper_cfg'
    if training and owner.get('sync_bn') is not None:
        setting = 'strategy.sync_bn' if 'runner_type' in cfg else 'sync_bn'
        raise ValueError(
            'batch normalisation over several processes must have an accelerator, which was not found, '
            f'got {setting}={owner.sync_bn}: --cfg-options {setting}=None normalises in each process'
        )
    if 'sync_bn' in owner:
        owner.sync_bn = None  # without effect in a test, but torch would refuse it there too
    if owner.get(name) is None:
        owner[name] = dict()
    if owner.get('type') == 'FSDPStrategy':
        owner[name].setdefault('type', 'MMFullyShardedDataParallel')
        owner[name].device_id = 'cpu'
        if owner.get('state_dict_cfg') == 'full':
            owner.state_dict_cfg = FULL
    else:
        owner[name].setdefault('broadcast_buffers', False)
        owner[name].setdefault('find_unused_parameters', cfg.get('find_unused_parameters', False))
        owner[name].device_ids = None
    timeout = cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout')
    dist.init_process_group('gloo', **({} if timeout is None else dict(timeout=timedelta(seconds=timeout))))
