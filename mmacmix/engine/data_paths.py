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
        loader = cfg.get(f'{split}_dataloader')
        if not loader:
            continue
        for setting, dataset in _leaves(f'{split}_dataloader.dataset', loader['dataset']):
            _check_dataset(setting, dataset)
        evaluators = cfg.get(f'{split}_evaluator') or []
        listed = isinstance(evaluators, (list, tuple))
        for i, evaluator in enumerate(evaluators if listed else [evaluators]):
            name = f'{split}_evaluator.{i}' if listed else f'{split}_evaluator'
            if evaluator.get('ann_file'):
                _require(evaluator['ann_file'], f'{name}.ann_file')


def _leaves(setting: str, dataset: dict) -> Iterator[Tuple[str, dict]]:
    """Data sets inside wrappers such as RepeatDataset and ConcatDataset, with the setting that leads there."""
    if 'dataset' in dataset:
        yield from _leaves(f'{setting}.dataset', dataset['dataset'])
    elif 'datasets' in dataset:
        for i, part in enumerate(dataset['datasets']):
            yield from _leaves(f'{setting}.datasets.{i}', part)
    else:
        yield setting, dataset


def _check_dataset(setting: str, dataset: dict) -> None:
    root = dataset.get('data_root') or ''
    if root:
        _require(root, f'{setting}.data_root')
    prefix = dataset.get('data_prefix') or {}
    if isinstance(prefix, str):  # the data sets of mmpretrain
        prefix = {'': prefix}
    paths = {f'data_prefix.{key}'.rstrip('.'): path for key, path in prefix.items()}
    if dataset.get('ann_file'):
        paths['ann_file'] = dataset['ann_file']
    # The one of mmpretrain whose pictures lie in a folder of its split.
    if not prefix and dataset.get('type') in ('ImageNet', 'mmpretrain.ImageNet'):
        _require(osp.join(root, dataset.get('split') or ''), f'{setting}.data_root')
    for key, path in paths.items():
        if isinstance(path, str):
            _require(osp.join(root, path), f'{setting}.{key}')


def _require(path: str, setting: str) -> None:
    # A path with a scheme ('s3://...') is for mmengine's file clients to find.
    if '://' not in path and not osp.exists(path):
        raise FileNotFoundError(
            f'{path} does not exist: set {setting} in the config, or --cfg-options {setting}=PATH'
        )
