"""Weights of other projects made to fit our backbones."""

from typing import Mapping, Sequence

from mmacmix.converters.acmix import convert_acmix
from mmacmix.converters.plain import Converted, convert_pvt, convert_resnet, convert_san, convert_swin
from mmacmix.ops.checks import PATHS, check_paths
from mmacmix.state_dicts import StateDict, unwrap

__all__ = ['Converted', 'SOURCES', 'convert', 'convert_with_report']

_PLAIN = dict(pvt=convert_pvt, resnet=convert_resnet, san=convert_san, swin=convert_swin)
SOURCES = ('acmix', *_PLAIN)


def convert(state_dict: Mapping, source: str, paths: Sequence[str] = PATHS) -> StateDict:
    """Renames and rearranges the weights of another project for our backbones.

    Args:
        state_dict: Parameters by name, or a checkpoint that holds them under 'model' or 'state_dict'; names
            may begin with 'module.', and those of a whole model's backbone with 'backbone.'.
        source: Where they come from.

            * 'acmix': the released code of the paper, ResNet and Swin models or one ACmix module.
            * 'swin': Swin Transformer (official, mmdet, mmseg or mmpretrain), for ``SwinACmix``.
            * 'pvt': Pyramid Vision Transformer, version 1 (official, mmdet or mmseg), for ``PVTACmix``.
            * 'san': patchwise SAN (official), for ``SANACmix``.
            * 'resnet': ResNet with bottlenecks (torchvision, mmdet, mmseg or mmpretrain), for ``ResNetACmix``.

            From 'swin', 'pvt' and 'san' the backbone starts with the outputs of the plain one: rates are (1, 0), and
            ``fc`` and ``dep_conv`` are not in the result. From 'resnet' the stem, 1x1 convolutions, normalisations and
            downsampling are taken, and no ACmix layer is in the result.
        paths: The paths of the backbone that the weights are for.

    Returns:
        A state dict for a backbone of the same sizes. :func:`convert_with_report` tells what it lacks.

    Raises:
        TypeError: An entry is not a tensor.
        ValueError: The source is unknown, or keys are not those of the source; they are named.
    """
    return convert_with_report(state_dict, source, paths).state


def convert_with_report(state_dict: Mapping, source: str, paths: Sequence[str] = PATHS) -> Converted:
    """:func:`convert`, with the names of what starts fresh and of what is ignored."""
    if source not in SOURCES:
        raise ValueError(f'source must be one of {sorted(SOURCES)}, got source={source!r}')
    paths = check_paths(paths)
    state = unwrap(state_dict)
    if source != 'acmix':
        return _PLAIN[source](state, paths)
    if paths != PATHS:
        raise ValueError(f"paths must be {PATHS} for source 'acmix', got paths={paths!r}")
    converted = convert_acmix(state)
    return Converted(converted, [], [key for key in state if key.startswith(('head.', 'fc.')) and key not in converted])
