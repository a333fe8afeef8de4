"""Looks for a config's data before anything is built, so that a wrong path is reported as a setting."""

import os.path as osp
from typing import Iterator, Sequence, Tuple

from mmengine import Config


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
    if root:
        yield f'{setting}.data_root', root
    prefix = dataset.get('data_prefix') or {}
    if isinstance(prefix, str):  # the data sets of mmpretrain
        prefix = {'': prefix}
    paths = {f'data_prefix.{key}'.rstrip('.'): path for key, path in prefix.items()}
    if dataset.get('ann_file'):
        paths['ann_file'] = dataset['ann_file']
    # The one of mmpretrain whose pictures lie in a folder of its split.
    if not prefix and dataset.get('type') in ('ImageNet', 'mmpretrain.ImageNet'):
        yield f'{setting}.data_root', osp.join(root, dataset.get('split') or '')
    for key, path in paths.items():
        if isinstance(path, str):
            yield f'{setting}.{key}', osp.join(root, path)


def evaluator_paths(cfg: Config, split: str) -> Iterator[Tuple[str, str]]:
    """Annotation files that the metrics of one split read, each with its setting."""
    evaluators = cfg.get(f'{split}_evaluator') if cfg.get(f'{split}_dataloader') else None
    evaluators = evaluators or []
    listed = isinstance(evaluators, (list, tuple))
    for i, evaluator in enumerate(evaluators if listed else [evaluators]):
        name = f'{split}_evaluator.{i}' if listed else f'{split}_evaluator'
        if evaluator.get('ann_file'):
            yield f'{name}.ann_file', evaluator['ann_file']


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
