"""Train a detector, segmenter or classifier: `python tools/train.py CONFIG [options]`.

The same script serves configs of mmdet, mmseg and mmpretrain, and `mim train mmacmix CONFIG`.
"""
import argparse
import os
import os.path as osp
import re
import sys

from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from mmacmix.checkpoint_files import check_file, whole_files
from mmacmix.checkpoints import read_checkpoint
from mmacmix.engine import (
    SetupError,
    check_data_paths,
    check_pretrained,
    check_same_start,
    check_work_dir,
    host_of,
    join_processes,
    read_config,
    type_name,
)
from mmacmix.engine.config_files import CfgOptions

sys.path.append(osp.join(osp.dirname(osp.abspath(__file__)), 'dataset_converters'))
from explain import build_data  # noqa: E402


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Train a detector, segmenter or classifier')
    parser.add_argument('config', help='the config file')
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints (default: work_dirs/<config name>)')
    parser.add_argument(
        '--resume', nargs='?', const='auto', metavar='CHECKPOINT',
        help='go on from this checkpoint; without a value, or with "auto", from the latest one in '
        'the work dir, if there is one')
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument(
        '--amp-dtype', choices=['float16', 'bfloat16'],
        help='train in mixed precision in this format (--amp alone: float16 on NVIDIA GPUs); detectors '
        'cannot be trained in bfloat16')
    parser.add_argument(
        '--auto-scale-lr', action='store_true',
        help='scale the learning rate by the batch size (auto_scale_lr.base_batch_size)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE',
        help='settings of the config to override; a list is written key="[a,b]" or key=a,b, '
        'without blanks')
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch spells it with a hyphen since 2.0, with an underscore before.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)
    return parser.parse_args(argv)


def load_config(args):
    """Read args.config, merge the overrides and settle the work dir."""
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    check_work_dir(cfg.work_dir)
    return cfg


def enable_amp(cfg, dtype=None):
    """Switch the optimiser wrapper to mixed precision."""
    wrapper = cfg.optim_wrapper
    kind = type_name(wrapper, 'OptimWrapper')
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(
            '--amp must meet an optim_wrapper of type OptimWrapper or AmpOptimWrapper, '
            f'got optim_wrapper.type={kind}')
    wrapper.type = 'AmpOptimWrapper'
    wrapper.setdefault('loss_scale', 'dynamic')
    if dtype == 'bfloat16' and host_of(cfg) == 'mmdet':
        raise ValueError('--amp-dtype bfloat16 must meet a segmenter or classifier: mmcv has no RoIAlign and no '
                         'focal loss in it, got a config of mmdet')
    if dtype is not None:
        wrapper.dtype = dtype


def check_amp(cfg, cause):
    """Refuse mixed precision where mmengine has none."""
    device = get_device()
    if type_name(cfg.optim_wrapper) == 'AmpOptimWrapper' and device in ('cpu', 'mps'):
        raise ValueError(f'{cause} must run on an accelerator that mmengine scales losses on, got device={device}')


def enable_auto_scale_lr(cfg):
    """Switch on the scaling of the learning rate."""
    setting = cfg.get('auto_scale_lr') or {}
    if 'base_batch_size' not in setting:
        raise ValueError('--auto-scale-lr must find auto_scale_lr.base_batch_size in the config, '
                         f'got auto_scale_lr={dict(setting)}')
    cfg.auto_scale_lr.enable = True


def set_resume(cfg, resume):
    """Resume from the checkpoint `resume`, or from the latest of the work dir if it is 'auto'; from no other."""
    if resume == 'auto':
        latest = latest_checkpoint(cfg)
        # Without a checkpoint this is a first start, in which load_from keeps its meaning.
        if latest is None:
            print(f'--resume: no checkpoint in {cfg.work_dir} yet, starting anew')
            cfg.resume = False
            return
    elif '://' not in resume and not osp.isfile(osp.expanduser(resume)):
        raise FileNotFoundError(
            f'the checkpoint to resume from must be an existing file, got --resume {resume}')
    path = latest if resume == 'auto' else osp.expanduser(resume)
    try:
        checkpoint = read_checkpoint(path)
    except ValueError as error:
        raise ValueError(f'{error}; {others(osp.dirname(path) or ".")}') from error
    if not isinstance(checkpoint, dict) or not {'meta', 'message_hub', 'optimizer'} <= set(checkpoint):
        raise ValueError(f'--resume needs the checkpoint of a run, with its optimizer, got {path}: load_from={path} in '
                         '--cfg-options starts a new run from its weights')
    check_progress(cfg, checkpoint, path)
    cfg.resume, cfg.load_from = True, path
    # A run without a seed has drawn one: the same gives its data the same order.
    randomness = cfg.get('randomness') or {}
    if randomness.get('seed') is None and isinstance(checkpoint['meta'].get('seed'), int):
        cfg.randomness = dict(randomness, seed=checkpoint['meta']['seed'])


def check_progress(cfg, checkpoint, path):
    """Refuse a checkpoint that mmengine cannot go on from: it would end in an error of its own, or read for ever."""
    meta, hub, optimizer = (checkpoint[name] for name in ('meta', 'message_hub', 'optimizer'))
    missing = [f'{name} in {part}' for part, names, found in (
        ('message_hub', ('log_scalars', 'runtime_info', 'resumed_keys'), hub),
        ('meta', ('epoch', 'iter'), meta)) for name in names if name not in found]
    if missing or not optimizer:
        raise ValueError(f'--resume needs the checkpoint of a run, got {path} without '
                         f'{", ".join(missing) or "a state of the optimizer"}')
    for name in ('epoch', 'iter'):
        most = cfg.train_cfg.get(f'max_{name}s')
        if type(meta[name]) is not int or meta[name] < 0 or most is not None and meta[name] > most:
            raise ValueError(f'--resume must go on from a whole number of {name}s'
                             f'{"" if most is None else f" of at most train_cfg.max_{name}s={most}"}, got '
                             f'{meta[name]!r:.80} in {path}')
    seed = meta.get('seed')
    if seed is not None and (type(seed) is not int or not 0 <= seed < 2**32):
        raise ValueError(f'--resume must find a seed in [0, 2**32), got {seed!r:.80} in {path}')


def latest_checkpoint(cfg):
    """What last_checkpoint of the work dir names, or None before the first checkpoint.

    Where the run writes its checkpoints, a file of that name goes first: a copy of a work dir has its own.
    """
    last, hook = osp.join(cfg.work_dir, 'last_checkpoint'), cfg.get('default_hooks', {}).get('checkpoint') or {}
    folder = cfg.work_dir
    if hook.get('out_dir'):
        folder = osp.join(hook['out_dir'], osp.basename(cfg.work_dir.rstrip(osp.sep)))
    if not osp.exists(last):
        template = re.escape(hook.get('filename_tmpl') or '').replace(r'\{\}', r'\d+')
        name = template or r'(iter|epoch)_\d+\.pth'
        files = os.listdir(folder) if osp.isdir(folder) else []
        found = [file for file in files if re.fullmatch(name, file)]
        if len(found) > 1:
            raise FileNotFoundError(f'{last} must be there where checkpoints are, got none; {others(folder)}')
        return osp.join(folder, found[0]) if found else None  # a kill can come before the first is named
    try:
        with open(last, encoding='utf-8') as file:
            named = file.read().strip()
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f'{last} must be a text file with the path of a checkpoint, got {type(error).__name__}; '
                         f'{others(folder)}') from error
    for path in (osp.join(folder, osp.basename(named)), named):
        if osp.isfile(path):
            return path
    raise FileNotFoundError(f'{last} must name an existing file, got {named!r:.200}; {others(folder)}')


def others(folder):
    """Say which checkpoints a user can choose instead."""
    whole = whole_files(folder)
    if not whole:
        return f'no whole checkpoint is in {folder}'
    return f'whole ones, the newest first: {", ".join(whole)}; --resume {whole[0]} goes on from that one'


def prepare(args):
    """Return the config to run; raise ValueError or FileNotFoundError on what cannot work."""
    cfg = load_config(args)
    amp = args.amp or args.amp_dtype is not None
    if amp:
        enable_amp(cfg, args.amp_dtype)
    check_amp(cfg, '--amp' if amp else 'optim_wrapper.type=AmpOptimWrapper of the config')
    if args.auto_scale_lr:
        enable_auto_scale_lr(cfg)
    resume = args.resume or cfg.get('resume') and (cfg.get('load_from') or 'auto')
    if resume:
        set_resume(cfg, resume)
    load_from = osp.expanduser(cfg.get('load_from') or '')
    if load_from and '://' not in load_from and not osp.isfile(load_from):
        raise FileNotFoundError(f'load_from must be an existing file, got load_from={cfg.load_from}')
    if load_from and '://' not in load_from and not cfg.get('resume'):
        check_file(load_from)
    check_pretrained(cfg)
    check_data_paths(cfg, ('train', 'val'))
    return cfg


def main(argv=None):
    args = parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        cfg = prepare(args)
        join_processes(cfg, training=True)
        check_same_start(cfg)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'train.py: error: {error}')
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    try:
        if 'runner_type' in cfg:
            check_same_start(cfg)  # before, its processes may not have been joined
        build_data(runner, ('train', 'val'))
        runner.train()
    except SetupError as error:
        sys.exit(f'train.py: error: {error}')


if __name__ == '__main__':
    main()
