"""Do the steps of a pipeline load and pack what the model and the metrics take?"""

from typing import List

from torch import nn

from mmacmix.engine.config_files import HOSTS, SetupError, made_by

# Steps that are known by their names; where there is another, anything may be.
KNOWN = ('mmcv', 'mmengine', *HOSTS, 'mmacmix')
PACKING = ('Pack', 'Format', 'TestTimeAug', 'MultiBranch')
HEADS = ('decode_head', 'bbox_head', 'rpn_head', 'roi_head')


def check_pipeline(model: nn.Module, dataset: object, setting: str, split: str, goes_on: bool = False,
                   counted: bool = True) -> None:
    """Checks the names of the steps of a built data set of mmdet or mmseg.

    Args:
        model: The whole model, without wrappers.
        dataset: One without wrappers.
        setting: Where it stands in the config.
        split: 'train', 'val' or 'test'.
        goes_on: Whether a wrapper has further steps.
        counted: Whether a metric of validation compares label maps.

    Raises:
        SetupError: A step is missing.
    """
    steps = flat(getattr(dataset, 'pipeline', None))
    if not all(made_by(part, *KNOWN) for part in [dataset, *steps]) or not steps:
        return
    names = [type(step).__name__ for step in steps]
    segments = hasattr(model, 'decode_head')
    trained = split == 'train' and any(isinstance(getattr(model, name, None), nn.Module) for name in HEADS)
    if not made_by(model, 'mmdet', 'mmseg'):
        return
    if (trained or split == 'val' and segments and counted) and 'LoadImageFromFile' in names and not _loads(names):
        raise SetupError(f'{setting}.pipeline must have a step LoadAnnotations, got {", ".join(names)}')
    if not goes_on and not any(word in name for name in names for word in PACKING):
        pack = 'PackSegInputs' if segments else 'PackDetInputs'
        raise SetupError(f'{setting}.pipeline must end with a step that packs, as {pack}, got {", ".join(names)}')


def flat(step: object) -> list:
    """All the steps of a built pipeline, those inside steps such as RandomChoice and KeyMapper too."""
    inner = step if isinstance(step, (list, tuple)) else getattr(step, 'transforms', None)
    if isinstance(inner, (list, tuple)):
        inside = [one for child in inner for one in flat(child)]
    else:
        inside = flat(inner) if inner is not None else []
    return inside if isinstance(step, (list, tuple)) or type(step).__name__ == 'Compose' else [step, *inside]


def has_steps(dataset: object) -> bool:
    """Whether a wrapper of data sets, or one in it, has steps of its own, as MultiImageMixDataset has."""
    inner = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    return inner != [None] and (hasattr(dataset, 'pipeline') or any(map(has_steps, inner)))


def _loads(names: List[str]) -> bool:
    """Whether there is a step that loads more than images."""
    return any(name.startswith('Load') and 'Image' not in name or name == 'TestTimeAug' for name in names)
