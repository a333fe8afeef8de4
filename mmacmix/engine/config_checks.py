"""Looks at a config before anything is built, for what mmengine takes in silence or finds only after the data."""

import difflib
import inspect
import os
import os.path as osp
from typing import Iterable, Iterator, Optional, Tuple

from mmengine import Config
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.runner import FlexibleRunner, Runner

from mmacmix.engine.config_files import SetupError, open_config, override, type_name
from mmacmix.engine.data_paths import found
from mmacmix.engine.setting_checks import check_settings
from mmacmix.engine.type_checks import check_types
from mmacmix.registry import MODELS
from mmacmix.state_dicts import listing

# What runners, and the tools, read of a config beside the arguments of a runner.
READ = (
    'activation_checkpointing',
    'auto_scale_lr',
    'compile',
    'custom_imports',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
)
# Where the variables of a config file end up.
BUILT = (
    'data_preprocessor', 'model', 'optim_wrapper', 'param_scheduler', 'train_cfg',
    *(f'{split}_{part}' for split in ('train', 'val', 'test') for part in ('dataloader', 'evaluator')),
)


def read_config(path: str, options: Optional[dict] = None) -> Config:
    """A config with the settings of ``--cfg-options`` in it.

    Raises:
        FileNotFoundError: The file, or one in its ``_base_``, does not exist.
        SetupError: It is no config; an option is not read or does not fit, a setting has a wrong type or value, or a
            name is not found by the host.
    """
    cfg = open_with(path, options)
    check_names(cfg)
    check_settings(cfg)
    check_types(cfg)
    return cfg


def open_with(path: str, options: Optional[dict] = None) -> Config:
    """A config with the settings of ``--cfg-options``, which must be read, and no other check.

    Raises:
        FileNotFoundError: The file, or one in its ``_base_``, does not exist.
        SetupError: It is no config; an option is not read, or does not fit.
    """
    cfg = open_config(path)
    check_options(cfg, options or {})
    override(cfg, options, path)
    return cfg


def check_options(cfg: Config, options: Iterable[str]) -> None:
    """Checks that every option of the command line sets something that is read.

    Args:
        cfg: The config as it is in its file.
        options: Keys of the settings to override, as 'train_cfg.max_epochs'.

    Raises:
        SetupError: mmengine would add a setting that nothing reads, or change a variable after it was used.
    """
    read = set(READ).union(*(inspect.signature(runner.__init__).parameters for runner in (Runner, FlexibleRunner)))
    if 'data_preprocessor' in (cfg.get('model') or {}):
        read.discard('data_preprocessor')  # the model's own goes first
    known = {*cfg, *read}
    for option in options:
        name = option.split('.')[0]
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f': did you mean {near[0]}?' if near else ''
            raise SetupError(f'--cfg-options must set what the config or the runner has, got {option}{hint}')
        copies = list(_copies(cfg, name)) if name not in read else []
        if any(not any(f'{copy}.'.startswith(f'{key}.') for key in options) for copy in copies):
            raise SetupError(
                f'--cfg-options must set what is read of the config, got {option}: {name} is used only where the file '
                f'itself says so; its value is in {listing(copies, 5)}'
            )


def _copies(cfg: Config, name: str) -> Iterator[str]:
    """Settings that have the value of a variable of the config file, which nothing else reads."""
    value = cfg[name]
    for setting, other in (pair for key in cfg if key in BUILT and key != name for pair in _values(cfg[key], key)):
        # What is short or a number can be equal by chance, so that a hook may well read it by its own name.
        telling = isinstance(value, (dict, list, tuple)) and value or isinstance(value, str) and len(value) > 5
        if (telling or setting.split('.')[-1] == name) and type(other) is type(value) and other == value:
            yield setting


def _values(node: object, setting: str) -> Iterator[Tuple[str, object]]:
    yield setting, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, child in items:
        yield from _values(child, f'{setting}.{key}')


def check_names(cfg: Config) -> None:
    """Checks that our classes are named so that the host finds them.

    Raises:
        SetupError: ``default_scope`` is ours, or a backbone of ours stands without its prefix.
    """
    scope = cfg.get('default_scope')
    if scope == 'mmacmix':
        raise SetupError(
            "default_scope must be that of the host, 'mmdet', 'mmseg' or 'mmpretrain', got default_scope='mmacmix': "
            'a backbone is found by its prefix, as in type=\'mmacmix.ResNetACmix\''
        )
    for setting, part in parts(cfg.get('model') or {}, 'model'):
        name = part.get('type')
        if not setting.endswith('backbone') or not isinstance(name, str) or '.' in name:
            continue
        with MMENGINE_MODELS.switch_scope_and_registry(scope) as registry:
            unknown = registry.get(name) is None
        if unknown and MODELS.get(name) is not None:
            raise SetupError(f"{setting}.type must be 'mmacmix.{name}', got {setting}.type='{name}'")


def check_pretrained(cfg: Config) -> None:
    """Checks that the files of weights that a model starts from exist.

    Raises:
        FileNotFoundError: One does not; the message names it and the setting.
    """
    for setting, part in parts(cfg.get('model') or {}, 'model'):
        path = part.get('checkpoint')
        if type_name(part) in ('Pretrained', 'PretrainedInit') and isinstance(path, str) \
                and not found(osp.expanduser(path)):
            raise FileNotFoundError(f'{path} does not exist: set {setting}.checkpoint in the config')


def check_work_dir(work_dir: str) -> None:
    """Checks that a folder can be made, and written to, without making it.

    Raises:
        SetupError: It is a file, or lies in one, or may not be written.
    """
    path = osp.abspath(work_dir)
    while not osp.lexists(path):
        path = osp.dirname(path)
    if not osp.isdir(path) or not os.access(path, os.W_OK | os.X_OK):
        what = 'may not be written' if osp.isdir(path) else 'is no folder'
        raise SetupError(
            f'the work dir must be a folder that can be written, got work_dir={work_dir}, and {path} {what}: '
            'use --work-dir'
        )


def parts(node: object, setting: str) -> Iterator[Tuple[str, dict]]:
    """All dicts in a part of a config, itself too, each with its setting."""
    return (pair for pair in _values(node, setting) if isinstance(pair[1], dict))
