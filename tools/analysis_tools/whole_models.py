"""Whole detectors, segmenters and classifiers from configs of the hosts, for the tools beside this file."""

import argparse
import importlib.util
import warnings
from typing import NamedTuple, Optional, Tuple

from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmacmix.engine.config_checks import open_with
from mmacmix.engine.config_files import MISTAKES, CfgOptions, describe


class Host(NamedTuple):
    """A package that whole models come from, and the images that they are looked at with."""

    model: str
    shape: Tuple[int, int]
    why: str
    batch: int


HOSTS = {
    'mmdet': Host('detector', (800, 1344), '1333 x 800, padded to multiples of 32', 1),
    # In training one image alone has no statistics in the pooling of UperNet and PSPNet.
    'mmseg': Host('segmenter', (512, 512), 'crops of ADE20K', 2),
    'mmpretrain': Host('classifier', (224, 224), 'crops of ImageNet', 1),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that the tools have in common."""
    parser.add_argument('config', help='config file of mmdet, mmseg or mmpretrain')
    defaults = ', '.join(f'{host.model} {host.shape[0]} {host.shape[1]}' for host in HOSTS.values())
    parser.add_argument(
        '--shape', nargs=2, type=int, metavar=('H', 'W'), help=f'of the images, in pixels (default: {defaults})')
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE',
        help='settings of the config to override; a list is written key="[a,b]" or key=a,b, without blanks')


def load(path: str, options: Optional[dict] = None) -> Config:
    """A config with a model of a host that is installed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not such a config; the message says what must hold.
    """
    cfg = open_with(path, options)
    if not isinstance(cfg.get('model'), dict) or not isinstance(cfg.model.get('backbone'), dict):
        raise ValueError(f'{path} must have a model with a backbone, got keys {", ".join(cfg) or "none"}')
    scope = cfg.get('default_scope')
    if scope not in HOSTS:
        raise ValueError(f'{path} must have default_scope={" or ".join(HOSTS)}, got default_scope={scope}')
    if importlib.util.find_spec(scope) is None:
        raise ValueError(f'{path} needs {scope}, which is not installed')
    return cfg


def shape_of(cfg: Config, shape: Optional[Tuple[int, int]]) -> Tuple[int, int]:
    """Height and width of the images: those asked for, or the usual ones of the host.

    Raises:
        ValueError: A side is not above 0.
    """
    if shape is not None and min(shape) < 1:
        raise ValueError(f'--shape must be above 0, got --shape {shape[0]} {shape[1]}')
    return tuple(shape or HOSTS[cfg.default_scope].shape)


def build(cfg: Config) -> nn.Module:
    """The model of a config, for one process: SyncBN is made BN, as the hosts do.

    Raises:
        ValueError: It cannot be built.
    """
    with warnings.catch_warnings():  # of the hosts, about their own code
        warnings.simplefilter('ignore')
        try:
            init_default_scope(cfg.default_scope)
            return revert_sync_batchnorm(MODELS.build(cfg.model))
        except MISTAKES as error:
            raise ValueError(f'the model cannot be built: {describe(error)}') from error
