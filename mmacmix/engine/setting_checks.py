"""Looks at well-known settings of a config before anything is built: have they the types and values that they must?"""

import importlib.util
import inspect
import math
import os.path as osp
from difflib import get_close_matches
from typing import Callable, Iterable, Tuple

from mmengine import Config
from mmengine.registry import MODELS
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from mmacmix.engine.config_files import HOSTS, SetupError, type_name
from mmacmix.engine.data_paths import datasets, evaluators

SPLITS = ('train', 'val', 'test')
# The names of projects, or what they begin with, and those of their packages.
PROJECTS = dict(mmsegmentation='mmseg', mmdetection='mmdet', mmcls='mmpretrain', mmclassification='mmpretrain')
IOU_METRICS = ('mIoU', 'mDice', 'mFscore')
# What the usual constructor of optimizers reads of paramwise_cfg; it takes other keys in silence.
PARAMWISE = ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult',
             'dcn_offset_lr_mult', 'flat_decay_mult', 'bypass_duplicate')


def number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def whole(value: object) -> bool:
    return number(value) and math.isfinite(value) and value == int(value)


def rate(value: object) -> bool:
    return value is None or number(value) and math.isfinite(value) and value >= 0


def count(value: object) -> bool:
    return whole(value) and value >= 1


def interval(value: object) -> bool:
    return count(value) or value == math.inf or whole(value) and value < 0  # mmengine takes -1 as 1


# The setting, what it must be, and whether a value is that.
RULES: Tuple[Tuple[str, str, Callable[[object], bool]], ...] = (
    ('optim_wrapper.optimizer.lr', 'a finite number of at least 0', rate),
    ('optim_wrapper.optimizer.weight_decay', 'a finite number of at least 0', rate),
    ('train_cfg.max_iters', 'a whole number of at least 1', count),
    ('train_cfg.max_epochs', 'a whole number of at least 1', count),
    ('train_cfg.val_interval', 'a whole number of at least 1', interval),
    ('default_hooks.checkpoint.interval', 'a whole number (-1: no checkpoints)', whole),
    ('default_hooks.logger.interval', 'a whole number', whole),
    ('randomness.seed', 'a whole number in [0, 2**32)',
     lambda x: x is None or isinstance(x, int) and not isinstance(x, bool) and 0 <= x < 2**32),
    *((f'{split}_dataloader.batch_size', 'a whole number of at least 1', count) for split in SPLITS),
    *((f'{split}_dataloader.num_workers', 'a whole number of at least 0', lambda x: whole(x) and x >= 0)
      for split in SPLITS),
)


def check_settings(cfg: Config) -> None:
    """Checks what mmengine takes as it is, and stumbles over later or never.

    Raises:
        SetupError: A setting has another type or value than it must have.
    """
    check_scope(cfg)
    for setting, wanted, right in RULES:
        node, found = cfg, True
        for key in setting.split('.'):
            found = isinstance(node, dict) and key in node if node is not cfg else key in cfg
            if not found:
                break
            node = node[key]
        if found and not right(node):
            raise SetupError(f'{setting} must be {wanted}, got {setting}={node!r}')
    check_keys(cfg)
    for split in SPLITS:
        check_drop_last(cfg, f'{split}_dataloader')
        for setting, dataset in datasets(cfg, split):
            check_dataset(dataset, setting)
        for setting, metric in evaluators(cfg, split):
            check_iou_metrics(metric, setting)


def check_scope(cfg: Config) -> None:
    """Checks that the default scope is one of a package that is there."""
    scope = cfg.get('default_scope')
    if scope is None or scope in HOSTS or isinstance(scope, str) and installed(scope):
        return
    near = [name for project, name in PROJECTS.items() if str(scope).startswith(project)]
    raise SetupError(
        "default_scope must be an installed package of registries, such as 'mmdet', 'mmseg' or 'mmpretrain', got "
        f'default_scope={scope!r}{hint(near)}'
    )


def installed(scope: str) -> bool:
    """Whether there are registries of a scope, or a package that may bring them."""
    return scope in MODELS.children or scope.isidentifier() and importlib.util.find_spec(scope) is not None


def check_keys(cfg: Config) -> None:
    """Checks the names of settings that mmengine passes on unread."""
    wrapper = cfg.get('optim_wrapper')
    if not isinstance(wrapper, dict):
        return
    clip = wrapper.get('clip_grad')
    if isinstance(clip, dict) and wrapper.get('type', 'OptimWrapper') in ('OptimWrapper', 'AmpOptimWrapper'):
        function = clip_grad_value_ if clip.get('type') == 'value' else clip_grad_norm_
        parameters = list(inspect.signature(function).parameters)[1:]
        _known_keys(clip, ['type', *parameters], 'optim_wrapper.clip_grad')
        if parameters[0] not in clip:
            raise SetupError(f'optim_wrapper.clip_grad must have {parameters[0]}, got {dict(clip)}')
    paramwise = wrapper.get('paramwise_cfg')
    if isinstance(paramwise, dict) and wrapper.get('constructor') in (None, 'DefaultOptimWrapperConstructor'):
        near = {key: paramwise[key] for key in paramwise if get_close_matches(key, PARAMWISE, n=1, cutoff=0.75)}
        _known_keys(near, PARAMWISE, 'optim_wrapper.paramwise_cfg')  # what other constructors read may stay


def check_drop_last(cfg: Config, setting: str) -> None:
    """Checks that a data loader leaves it to its batch sampler to drop samples: torch refuses both."""
    loader = cfg.get(setting)
    if isinstance(loader, dict) and loader.get('batch_sampler') is not None and loader.get('drop_last'):
        raise SetupError(
            f'{setting}.drop_last must be False where there is a batch sampler, got {setting}.drop_last='
            f'{loader["drop_last"]!r}: set {setting}.batch_sampler.drop_last=True'
        )


def _known_keys(settings: dict, known: Iterable[str], setting: str) -> None:
    for key in settings:
        if key not in known:
            raise SetupError(
                f'{setting} may have {", ".join(known)}, got {setting}.{key}{hint(get_close_matches(key, known, n=1))}'
            )


def check_dataset(dataset: dict, setting: str) -> None:
    """Checks the folder and the classes of a data set."""
    root = dataset.get('data_root')
    if isinstance(root, (list, tuple, dict)) or number(root):
        raise SetupError(
            f"{setting}.data_root must be one path (several data sets are joined by type='ConcatDataset'), got "
            f'{setting}.data_root={root!r}'
        )
    metainfo = dataset.get('metainfo')
    if not isinstance(metainfo, dict):
        return
    if 'CLASSES' in metainfo and 'classes' not in metainfo:
        raise SetupError(f'{setting}.metainfo must have its classes as classes, in small letters, got '
                         f'{setting}.metainfo.CLASSES')
    classes = metainfo.get('classes')
    # mmengine reads the names from a file that is named.
    if isinstance(classes, str) and '://' not in classes and not osp.isfile(classes):
        raise SetupError(
            f"{setting}.metainfo.classes must be a tuple of names, ('{classes}',) for one class, or a file of them, "
            f'got {setting}.metainfo.classes={classes!r}'
        )


def check_iou_metrics(metric: dict, setting: str) -> None:
    """Checks what an IoUMetric of mmseg is to count; it looks when it has seen the last image."""
    if type_name(metric) != 'IoUMetric' or 'iou_metrics' not in metric:
        return
    names = metric['iou_metrics']
    names = [names] if isinstance(names, str) else names
    wrong = [name for name in names if name not in IOU_METRICS]
    if wrong:
        raise SetupError(
            f'{setting}.iou_metrics must be of {", ".join(IOU_METRICS)}, got {", ".join(map(repr, wrong))}'
            f'{hint(get_close_matches(str(wrong[0]), IOU_METRICS, n=1))}'
        )


def hint(near: list) -> str:
    """A question after a message, where there is a name near the one that is wrong."""
    return f': did you mean {near[0]}?' if near else ''
