"""Are the classes that a config names known, before any of them is built?"""

from difflib import get_close_matches
from typing import Iterator, List, Tuple

from mmengine import Config
from mmengine.registry import (
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIM_WRAPPERS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
    VISUALIZERS,
    Registry,
)

from mmacmix.engine.config_files import SetupError
from mmacmix.engine.data_paths import datasets, evaluators
from mmacmix.engine.setting_checks import SPLITS, hint, installed

# Parts of a model that every host builds from its registry of models.
MODEL_PARTS = ('backbone', 'neck', 'data_preprocessor', 'head', 'roi_head', 'rpn_head', 'bbox_head', 'mask_head',
               'decode_head', 'auxiliary_head')


def check_types(cfg: Config) -> None:
    """Checks that the registries know the types of the usual parts of a config.

    Raises:
        SetupError: One does not; the message has the setting and the nearest name.
    """
    scope = cfg.get('default_scope')
    if scope is None or not installed(scope):
        return  # everything is named by its module, or nothing can be known
    for setting, part, root in typed(cfg):
        name = part.get('type')
        if not isinstance(name, str):
            continue
        with root.switch_scope_and_registry(scope) as registry:
            if not _known(registry, name):
                ours = [f'mmacmix.{name}'] if _known(registry, f'mmacmix.{name}') else []
                near = ours or get_close_matches(name, _names(registry, name), n=1)
                raise SetupError(
                    f'{setting}.type must be in the registry of {registry.name.replace("_", " ")}s of {scope}, or have '
                    f'the prefix of another, got {setting}.type={name!r}{hint(near)}'
                )


def typed(cfg: Config) -> Iterator[Tuple[str, dict, Registry]]:
    """The usual parts of a config, each with its setting and the registry it is built from."""
    wrapper = cfg.get('optim_wrapper')
    if isinstance(wrapper, dict):
        yield 'optim_wrapper', wrapper, OPTIM_WRAPPERS
        if isinstance(wrapper.get('optimizer'), dict):
            yield 'optim_wrapper.optimizer', wrapper['optimizer'], OPTIMIZERS
    for name, root in (('param_scheduler', PARAM_SCHEDULERS), ('default_hooks', HOOKS), ('custom_hooks', HOOKS)):
        for setting, part in _inside(cfg.get(name), name):
            yield setting, part, root
    for name, root in (('train_cfg', LOOPS), ('val_cfg', LOOPS), ('test_cfg', LOOPS), ('visualizer', VISUALIZERS)):
        if isinstance(cfg.get(name), dict):
            yield name, cfg[name], root
    for split in SPLITS:
        for setting, metric in evaluators(cfg, split):
            yield setting, metric, METRICS
        for setting, dataset in datasets(cfg, split):
            yield setting, dataset, DATASETS
            for where, step in _inside(dataset.get('pipeline'), f'{setting}.pipeline'):
                yield where, step, TRANSFORMS
    yield from _model(cfg.get('model'), 'model')


def _model(part: object, setting: str) -> Iterator[Tuple[str, dict, Registry]]:
    if isinstance(part, (list, tuple)):
        for i, child in enumerate(part):
            yield from _model(child, f'{setting}.{i}')
    elif isinstance(part, dict):
        yield setting, part, MODELS
        for key in MODEL_PARTS:
            yield from _model(part.get(key), f'{setting}.{key}')


def _inside(part: object, setting: str) -> Iterator[Tuple[str, dict]]:
    """The dicts with a type in a list or dict of them, or the one itself."""
    if isinstance(part, dict) and 'type' in part:
        yield setting, part
        return
    items = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, (list, tuple)) else ()
    for key, child in items:
        if isinstance(child, dict) and 'type' in child:
            yield f'{setting}.{key}', child


def _known(registry: Registry, name: str) -> bool:
    try:
        return registry.get(name) is not None
    except RuntimeError:  # mmengine's word for a path that leads nowhere
        return False


def _names(registry: Registry, name: str) -> List[str]:
    """What may stand where a name is not known."""
    names, above = [], registry
    while above is not None:
        names.extend(above.module_dict)
        above = above.parent
    scope = name.split('.')[0] if '.' in name else None
    for child, other in registry._get_root_registry().children.items():
        if child == scope:
            names.extend(f'{child}.{known}' for known in other.module_dict)
    return sorted(names)
