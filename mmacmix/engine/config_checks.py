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


def read_config(path: str, options: Optional[dict] = None) -> Config:
    """A config with the settings of ``--cfg-options`` in it.

    Raises:
        FileNotFoundError: The file, or one in its ``_base_``, does not exist.
        SetupError: It is no config; an option is not read or does not fit, a setting has a wrong type or value, or a
            name is not found by the host.
    """
    cfg = open_config(path)
    options = options or {}
    check_options(cfg, options)
    override(cfg, options, path)
    check_names(cfg)
    check_settings(cfg)
    check_types(cfg)
    return cfg


def check_options(cfg: Config, options: Iterable[str]) -> None:
    """Checks that every option of the command line sets something that is read.

    Args:
        cfg: The config as it is in its file.
        options: Keys of the settings to override, as 'train_cfg.max_epochs'.

    Raises:
        SetupError: mmengine would add a setting that nothing reads.
    """
    known = {*cfg, *READ}
    for runner in (Runner, FlexibleRunner):
        known.update(inspect.signature(runner.__init__).parameters)
    for option in options:
        name = option.split('.')[0]
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            hint = f': did you mean {near[0]}?' if near else ''
            raise SetupError(f'--cfg-options must set what the config or the runner has, got {option}{hint}')


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
    for setting, part in _parts(cfg.get('model') or {}, 'model'):
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
    for setting, part in _parts(cfg.get('model') or {}, 'model'):
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


def _parts(node: object, setting: str) -> Iterator[Tuple[str, dict]]:
    """All dicts in a part of a config, each with its setting."""
    if isinstance(node, dict):
        yield setting, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, child in items:
        yield from _parts(child, f'{setting}.{key}')
