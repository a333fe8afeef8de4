"""Reading of config files that says what is wrong with one, or with the settings that override it."""

import os.path as osp
from typing import Optional

from mmengine.config import Config, DictAction

#: What a config may do wrong when it is read, changed or built.
MISTAKES = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError,
)


#: Packages of models and data sets.
HOSTS = ('mmdet', 'mmseg', 'mmpretrain')


class SetupError(ValueError):
    """Something in the config or in the data cannot work; the message says what to change."""


class CfgOptions(DictAction):
    """--cfg-options, whose values must be KEY=VALUE."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for value in values:
            if '=' not in value:
                parser.error(f'{option_string} must be KEY=VALUE, got {value!r}')
        try:
            super().__call__(parser, namespace, values, option_string)
        except AssertionError as error:
            parser.error(f'{option_string}: {error}')


def open_config(path: str) -> Config:
    """What a config file says.

    Raises:
        FileNotFoundError: The file, or one in its ``_base_``, does not exist.
        SetupError: It is no config.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f'the config must be an existing file, got config={path}')
    try:
        return Config.fromfile(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'_base_ must name existing files, got config={path} ({error})') from error
    except SyntaxError as error:
        raise SetupError(f'{path}, or a file in its _base_, has a mistake of syntax: {error}') from error
    except MISTAKES as error:
        raise SetupError(f'{path} must be a config that mmengine reads: {describe(error)}') from error


def override(cfg: Config, options: Optional[dict], path: str) -> None:
    """Puts the settings of --cfg-options into a config, which messages call ``path``.

    Raises:
        SetupError: They do not fit it.
    """
    try:
        cfg.merge_from_dict(options or {})
    except MISTAKES as error:
        raise SetupError(f'--cfg-options must fit {path}: {describe(error)}') from error


def type_name(part: dict, default: str = '') -> str:
    """The class of a part of a config without module or scope, whether it is there by name or, in pure Python, itself.

    >>> type_name(dict(type='mmdet.Resize'))
    'Resize'
    """
    kind = part.get('type') or default
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def host_of(cfg: Config) -> Optional[str]:
    """The package that a config is for: its default scope, or in a config without one the host of the model's class."""
    kind = (cfg.get('model') or {}).get('type')
    packages = [base.__module__.partition('.')[0] for base in kind.__mro__] if isinstance(kind, type) else \
        [str(kind).partition('.')[0]]
    return cfg.get('default_scope') or next((name for name in packages if name in HOSTS), None)


def made_by(thing: object, *packages: str) -> bool:
    """Whether the class of an object is one of these packages."""
    return type(thing).__module__.split('.')[0] in packages


def describe(error: BaseException) -> str:
    """The first line of an error, with its type where it says little by itself."""
    text = next(iter(str(error).strip().splitlines()), '')
    return text if isinstance(error, ValueError) and text else f'{type(error).__name__}: {text}'
