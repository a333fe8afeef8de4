"""Test a detector, segmenter or classifier: `python tools/test.py CONFIG CHECKPOINT [options]`.

The same script serves configs of mmdet, mmseg and mmpretrain, and `mim test mmacmix CONFIG --checkpoint
CHECKPOINT`. What the hosts do differently (--out, --tta) follows the config's default_scope.
"""
import argparse
import os
import os.path as osp
import sys
from copy import deepcopy

from mmengine.config import ConfigDict
from mmengine.registry import METRICS, RUNNERS
from mmengine.runner import Runner

import mmacmix.registry  # noqa: F401  (lets torch >= 2.6 load the checkpoints of mmengine)
from mmacmix.checkpoint_files import check_file
from mmacmix.engine import (
    SetupError,
    check_data_paths,
    check_work_dir,
    host_of,
    join_processes,
    read_config,
    type_name,
)
from mmacmix.engine.config_files import CfgOptions
from mmacmix.engine.data_paths import datasets, evaluators

sys.path.append(osp.join(osp.dirname(osp.abspath(__file__)), 'dataset_converters'))
from explain import build_data  # noqa: E402

PICKLES = ('.pkl', '.pickle')


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description='Test a detector, segmenter or classifier')
    parser.add_argument('config', help='the config file')
    parser.add_argument('checkpoint', help='the checkpoint file')
    parser.add_argument(
        '--work-dir', help='folder of logs and metrics (default: work_dirs/<config name>)')
    parser.add_argument(
        '--out', metavar='FILE.pkl|DIR',
        help='keep the predictions: FILE.pkl takes all of them; with mmseg, DIR takes one PNG of '
        'labels for each image')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument(
        '--show-dir', metavar='DIR', help='draw every test image with its predictions into DIR '
        '(mmseg: DIR/vis_data/vis_image)')
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds that --show keeps an image')
    parser.add_argument(
        '--tta', action='store_true',
        help='test-time augmentation by tta_model and tta_pipeline of the config (with mmdet, '
        'where they are missing: the image and its mirror image)')
    parser.add_argument(
        '--tta-mirror', action='store_true',
        help='test-time augmentation by the image and its mirror image at the size of the test pipeline alone')
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
    """Read args.config, merge the overrides and settle the checkpoint and the work dir."""
    if '://' not in args.checkpoint and not osp.isfile(args.checkpoint):
        raise FileNotFoundError(
            f'the checkpoint must be an existing file, got checkpoint={args.checkpoint}')
    if '://' not in args.checkpoint:
        check_file(args.checkpoint)
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher
    cfg.load_from = args.checkpoint
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    check_work_dir(cfg.work_dir)
    return cfg


def enable_drawing(cfg, args):
    """Switch on the visualization hook of the host."""
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None or cfg.get('visualizer') is None:
        raise ValueError('--show and --show-dir must find default_hooks.visualization and '
                         'visualizer in the config, got a config without them')
    classifier = host_of(cfg) == 'mmpretrain'
    hook['enable' if classifier else 'draw'] = True
    if args.show:
        hook.show = True
        hook.wait_time = args.wait_time
    if args.show_dir and host_of(cfg) == 'mmdet':
        # mmdet would put a relative path below the work dir.
        hook.test_out_dir = osp.abspath(args.show_dir)
    elif args.show_dir and classifier:
        hook.out_dir = args.show_dir
        hook.setdefault('interval', 1)
    elif args.show_dir:
        cfg.visualizer.save_dir = args.show_dir
        # mmseg's default draws one image out of fifty.
        hook.setdefault('interval', 1)


def mirror_tta(cfg):
    """Set the image and its mirror image, prepared as for the test, as test-time augmentation."""
    pipeline = deepcopy(test_pipeline(cfg))
    # Truth is read behind the flip, and stays as it is.
    start = next((i for i, step in enumerate(pipeline) if type_name(step) == 'LoadAnnotations'),
                 len(pipeline) - 1)
    pack = pipeline[-1]
    if 'meta_keys' in pack:
        pack.meta_keys = (*pack.meta_keys, 'flip', 'flip_direction')
    flips = [dict(type='RandomFlip', prob=prob) for prob in (0., 1.)]
    augment = dict(type='TestTimeAug', transforms=[flips, *([step] for step in pipeline[start:])])
    cfg.tta_pipeline = [*pipeline[:start], augment]


def check_tta_sizes(cfg):
    """Refuse a tta_pipeline that was left behind when the test pipeline got another size."""
    test, augmented = (scales(pipeline) for pipeline in (
        test_pipeline(cfg), cfg.tta_pipeline))
    if None not in augmented and (not test <= augmented or augmented and not test):
        raise ValueError(
            '--tta must have the size of the test pipeline among those of tta_pipeline, got '
            f'scale={", ".join(map(str, test)) or "none"} and '
            f'{", ".join(map(str, sorted(augmented))) or "none"}: set tta_pipeline in the config, or use --tta-mirror')


def scales(steps):
    """The sizes that images are resized to, at any depth; None stands for one relative to the image."""
    found = set()
    for step in steps:
        if isinstance(step, (list, tuple)):
            found |= scales(step)
        elif 'transforms' in step:
            found |= scales(step['transforms'])
        elif type_name(step) == 'Resize':
            found.add(tuple(step['scale']) if step.get('scale') else None)
    return found


def test_pipeline(cfg):
    """Return the steps that prepare images for the test."""
    pipelines = [dataset.get('pipeline') for _, dataset in datasets(cfg, 'test')]
    if not pipelines or not pipelines[0] or any(pipeline != pipelines[0] for pipeline in pipelines):
        raise ValueError('--tta must find one pipeline of all data sets in test_dataloader, got '
                         f'{"others in some" if any(pipelines) else "none"}')
    return pipelines[0]


def enable_tta(cfg, mirror=False):
    """Wrap the model, and replace the test pipeline, for test-time augmentation."""
    scope = host_of(cfg)
    if scope == 'mmdet' and 'mask_head' in (cfg.model.get('roi_head') or {}):
        raise ValueError('--tta must meet a detector without a mask head: mmdet merges boxes '
                         'only, got model.roi_head.mask_head')
    if 'tta_model' not in cfg and scope == 'mmdet':
        nms = dict(type='nms', iou_threshold=0.5)
        cfg.tta_model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
    if mirror or 'tta_pipeline' not in cfg and scope == 'mmdet':
        mirror_tta(cfg)
    missing = [name for name in ('tta_model', 'tta_pipeline') if name not in cfg]
    if missing:
        raise ValueError(f'--tta must find tta_model and tta_pipeline in the config, '
                         f'got missing={", ".join(missing)}')
    check_tta_sizes(cfg)
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    for _, dataset in datasets(cfg, 'test'):
        dataset.pipeline = cfg.tta_pipeline


def check_out(cfg, out):
    """Make IoUMetric of mmseg write PNGs into the folder `out`; a pickle needs no setting."""
    if out.endswith(PICKLES):
        evaluator = cfg.test_evaluator
        if isinstance(evaluator, dict) and type_name(evaluator) == 'MultiDatasetsEvaluator':
            raise ValueError('--out must meet one evaluator of all images, got test_evaluator.type='
                             'MultiDatasetsEvaluator: test one data set at a time')
        return
    if host_of(cfg) != 'mmseg':
        raise ValueError(f'--out must end with {" or ".join(PICKLES)}, got --out {out}')
    for _, evaluator in evaluators(cfg, 'test'):
        if type_name(evaluator) == 'IoUMetric':
            evaluator.output_dir = out
            return
    raise ValueError(f'--out DIR must find an IoUMetric in test_evaluator, got --out {out}')


def prepare(args):
    """Return the config to run; raise ValueError or FileNotFoundError on what cannot work."""
    cfg = load_config(args)
    if args.show or args.show_dir:
        enable_drawing(cfg, args)
    if args.tta or args.tta_mirror:
        enable_tta(cfg, args.tta_mirror)
    if args.out is not None:
        check_out(cfg, args.out)
    check_data_paths(cfg, ('test',))
    return cfg


def main(argv=None):
    args = parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    try:
        cfg = prepare(args)
        join_processes(cfg, training=False)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'test.py: error: {error}')
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    try:
        build_data(runner, ('test',))
        if args.out is not None and args.out.endswith(PICKLES):
            # mmdet's own encodes masks compactly.
            kind = 'DumpDetResults' if host_of(cfg) == 'mmdet' else 'DumpResults'
            runner.test_evaluator.metrics.append(
                METRICS.build(dict(type=kind, out_file_path=args.out)))
        runner.test()
    except SetupError as error:
        sys.exit(f'test.py: error: {error}')


if __name__ == '__main__':
    main()
