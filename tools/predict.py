"""Predict on images: `python tools/predict.py CONFIG CHECKPOINT IMAGE_OR_FOLDER... --out-dir DIR`.

The same script serves detectors of mmdet and segmenters of mmseg, as the config's default_scope says.
"""
import argparse
import os
import os.path as osp
import sys
import warnings

import cv2
import mmcv
import torch
from mmengine.device import get_device
from prediction.files import Names, ResultFile, collect
from prediction.hosts import TASKS, load_inferencer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmacmix.checkpoints import read_checkpoint
from mmacmix.engine.config_checks import open_with
from mmacmix.engine.config_files import CfgOptions
from mmacmix.engine.image_files import read_image


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description='Predict on images with a detector or segmenter.',
        epilog='Images that cannot be read are reported, listed in predictions.json and left out. '
        'The exit code is 0 if every image was predicted, 1 if some or all were not, 130 after an interruption.')
    parser.add_argument('config', help='the config file')
    parser.add_argument('checkpoint', help='the checkpoint file')
    parser.add_argument('images', nargs='+', metavar='IMAGE_OR_FOLDER',
                        help='images, and folders, which are searched with their subfolders')
    parser.add_argument(
        '--out-dir', required=True, metavar='DIR',
        help='where predictions.json, pictures/ and, for segmentation, labels/ go; files there are overwritten')
    parser.add_argument(
        '--score-thr', type=float, default=0.3, metavar='S',
        help='boxes must have a higher score to be written and drawn (default: %(default)s; those below '
        'test_cfg.score_thr of the config do not exist); segmentation has no scores')
    parser.add_argument('--batch-size', type=int, default=1, metavar='N', help='images at a time (default: 1)')
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: an accelerator if there is one)')
    parser.add_argument('--no-pictures', action='store_true', help='draw nothing, which is faster')
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE',
        help='settings of the config to override; a list is written key="[a,b]" or key=a,b, without blanks')
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        parser.error(f'--batch-size must be positive, got {args.batch_size}')
    if not 0 <= args.score_thr < 1:
        parser.error(f'--score-thr must be at least 0 and below 1, got {args.score_thr}')
    if osp.exists(args.out_dir) and not osp.isdir(args.out_dir):
        parser.error(f'--out-dir must be a folder, got the file {args.out_dir}')
    args.device = check_device(parser, args.device or get_device())
    return args


def check_device(parser, name):
    try:
        torch.zeros(1, device=name)
    except (AssertionError, RuntimeError, NotImplementedError) as error:
        parser.error(f'--device must name a device that torch can use here, got {name} ({str(error).splitlines()[0]})')
    return name


def load_config(args):
    """Read args.config, merge the overrides, and make it one for inference."""
    cfg = open_with(args.config, args.cfg_options)
    if not osp.isfile(args.checkpoint):
        raise FileNotFoundError(f'the checkpoint must be an existing file, got checkpoint={args.checkpoint}')
    scope = cfg.get('default_scope')
    if scope not in TASKS:
        hint = '; for a classifier use mmpretrain.ImageClassificationInferencer' if scope == 'mmpretrain' else ''
        raise ValueError(f'the config must have default_scope mmdet or mmseg, got default_scope={scope}{hint}')
    dataset = (cfg.get('test_dataloader') or {}).get('dataset')
    while dataset and 'pipeline' not in dataset and ('dataset' in dataset or 'datasets' in dataset):
        dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
    if not dataset or 'pipeline' not in dataset:
        raise ValueError('the config must say by test_dataloader.dataset.pipeline how images are prepared, got none')
    cfg.test_dataloader.dataset = dataset
    # Pictures go where this script says, not to the backends of the training.
    kind = 'DetLocalVisualizer' if scope == 'mmdet' else 'SegLocalVisualizer'
    cfg.visualizer = dict(dict(type=kind), **dict(cfg.get('visualizer') or {}, vis_backends=None))
    return cfg


def prepare_images(paths, inferencer, fail):
    """Yield (path, data) of those that can be read; `fail` is told of the others."""
    for path in paths:
        try:
            read_image(path)
        except ValueError as error:
            fail(path, str(error))
            continue
        try:
            data = inferencer.pipeline(path)
        except (AssertionError, OSError, ValueError, cv2.error) as error:  # of a size or kind that a step refuses
            fail(path, f'cannot be prepared by the test pipeline ({" ".join(str(error).split())})')
            continue
        yield path, data


def predict(paths, task, results, args, advance, fail):
    """Predict, batch by batch, and write what belongs to each image before the next batch."""
    names = Names()
    for start in range(0, len(paths), args.batch_size):
        chunk = paths[start:start + args.batch_size]
        batch = list(prepare_images(chunk, task.inferencer, fail))
        samples = task.forward([data for _, data in batch]) if batch else []
        for (path, _), sample in zip(batch, samples):
            sample, name = sample.cpu(), names.name(path)
            height, width = sample.ori_shape[:2]
            entry = dict(image=path, width=width, height=height, **task.results(sample, name))
            if not args.no_pictures:
                entry['picture'] = f'pictures/{name}.jpg'
                task.draw(mmcv.imread(path, channel_order='rgb'), sample, osp.join(args.out_dir, entry['picture']))
            results.add(entry)
        advance(len(chunk))


def open_results(args, task):
    """The file of results, and the folders beside it.

    Raises:
        OSError: They cannot be written.
    """
    for folder in ['labels'] * (task.task == 'segmentation') + ['pictures'] * (not args.no_pictures):
        os.makedirs(osp.join(args.out_dir, folder), exist_ok=True)
    os.makedirs(args.out_dir, exist_ok=True)
    head = dict(task=task.task, config=args.config, checkpoint=args.checkpoint, class_names=task.classes)
    if task.task == 'detection':
        head['score_thr'] = args.score_thr
    return ResultFile(osp.join(args.out_dir, 'predictions.json'), head)


def run(args, task, paths, empty, results):
    """Predict on all images; returns the exit code."""
    console = Console(stderr=True)

    def fail(path, reason):
        console.print(f'predict.py: {path} {reason}', markup=False, highlight=False, soft_wrap=True)
        results.fail(path, reason)

    for path, reason in empty:
        fail(path, reason)
    finished = False
    columns = TextColumn('predicting'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    try:
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task('', total=len(paths))
            predict(paths, task, results, args, lambda count: progress.advance(bar, count), fail)
        finished = True
    except KeyboardInterrupt:
        console.print('predict.py: interrupted')
    finally:
        results.close(finished)
    print(f'{results.predicted} of {len(paths) + len(empty)} predicted, {len(results.failed)} failed: {results.path}')
    return (1 if results.failed else 0) if finished else 130


def main(argv=None):
    args = parse_args(argv)
    warnings.filterwarnings('ignore', message='.*out of bounds, the drawn', category=UserWarning)
    try:
        cfg = load_config(args)
        paths, empty = collect(args.images, args.out_dir)
        inferencer = load_inferencer(cfg, read_checkpoint(args.checkpoint), args.device)
        task = TASKS[cfg.default_scope](inferencer, args.out_dir, args.score_thr)
        results = open_results(args, task)
    except (ImportError, OSError, TypeError, ValueError) as error:
        sys.exit(f'predict.py: error: {error}')
    sys.exit(run(args, task, paths, empty, results))


if __name__ == '__main__':
    main()
