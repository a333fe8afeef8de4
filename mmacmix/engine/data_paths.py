"""Looks for a config's data before anything is built, so that a wrong path is reported as a setting."""

import os.path as osp
from typing import Iterator, Sequence, Tuple

from mmengine import Config

from mmacmix.engine.config_files import type_name

# What data sets of the hosts read of data_prefix, beside seg_map_path; others may stand there unread.
PREFIXES = ('', 'img', 'img_path', 'sub_data_root')


def check_data_paths(cfg: Config, splits: Sequence[str]) -> None:
    """Checks that the folders and annotation files of a config's data sets exist.

    Args:
        cfg: The whole config, options of the command line merged.
        splits: Which data loaders to look at, of 'train', 'val' and 'test'.

    Raises:
        FileNotFoundError: A path does not exist; the message names it and the setting to change.
    """
    for split in splits:
        paths = [pair for setting, dataset in datasets(cfg, split) for pair in dataset_paths(setting, dataset)]
        for setting, path in paths + list(evaluator_paths(cfg, split)):
            if not found(path):
                raise FileNotFoundError(
                    f'{path} does not exist: set {setting} in the config, or --cfg-options {setting}=PATH'
                )


def datasets(cfg: Config, split: str) -> Iterator[Tuple[str, dict]]:
    """Data sets of one split, inside wrappers such as RepeatDataset too, each with the setting that leads there."""
    loader = cfg.get(f'{split}_dataloader')
    if loader:
        yield from _leaves(f'{split}_dataloader.dataset', loader['dataset'])


def dataset_paths(setting: str, dataset: dict) -> Iterator[Tuple[str, str]]:
    """Files and folders that a data set names, its root first, each with its setting."""
    root = dataset.get('data_root') or ''
    prefix = dataset.get('data_prefix') or {}
    if isinstance(prefix, str):  # the data sets of mmpretrain
        prefix = {'': prefix}
    read = [key for key in prefix if key in PREFIXES or key == 'seg_map_path' and _loads_labels(dataset)]
    paths = {f'data_prefix.{key}'.rstrip('.'): prefix[key] for key in read}
    if dataset.get('ann_file'):
        paths['ann_file'] = dataset['ann_file']
    relative = [path for path in paths.values() if isinstance(path, str) and not ('://' in path or osp.isabs(path))]
    if root and (relative or not prefix and not paths):
        yield f'{setting}.data_root', root
    # The one of mmpretrain whose pictures lie in a folder of its split.
    if not prefix and type_name(dataset) == 'ImageNet':
        yield f'{setting}.data_root', osp.join(root, dataset.get('split') or '')
    for key, path in paths.items():
        if isinstance(path, str):
            yield f'{setting}.{key}', osp.join(root, path)


def _loads_labels(dataset: dict) -> bool:
    """Whether a data set, as a config has it, reads label maps: only a step of its pipeline does."""
    pipeline = dataset.get('pipeline')
    return pipeline is None or 'LoadAnnotations' in str(pipeline)


def evaluators(cfg: Config, split: str) -> Iterator[Tuple[str, dict]]:
    """The metrics of one split, each with its setting; those that an evaluator of another type has as `metrics` too."""
    yield from _metrics(f'{split}_evaluator', cfg.get(f'{split}_evaluator'))


def _metrics(setting: str, found: object) -> Iterator[Tuple[str, dict]]:
    if isinstance(found, (list, tuple)):
        for i, metric in enumerate(found):
            yield from _metrics(f'{setting}.{i}', metric)
    elif isinstance(found, dict) and 'metrics' in found:
        yield from _metrics(f'{setting}.metrics', found['metrics'])
    elif isinstance(found, dict):
        yield setting, found


def evaluator_paths(cfg: Config, split: str) -> Iterator[Tuple[str, str]]:
    """Annotation files that the metrics of one split read, each with its setting."""
    for setting, metric in evaluators(cfg, split) if cfg.get(f'{split}_dataloader') else ():
        if metric.get('ann_file'):
            yield f'{setting}.ann_file', metric['ann_file']


def found(path: str) -> bool:
    """Whether a path exists; one with a scheme ('s3://...') is for mmengine's file clients to find."""
    return '://' in path or osp.exists(path)


def _leaves(setting: str, dataset: dict) -> Iterator[Tuple[str, dict]]:
    if 'dataset' in dataset:
        yield from _leaves(f'{setting}.dataset', dataset['dataset'])
    elif 'datasets' in dataset:
        for i, part in enumerate(dataset['datasets']):
            yield from _leaves(f'{setting}.datasets.{i}', part)
    else:
        yield setting, dataset
