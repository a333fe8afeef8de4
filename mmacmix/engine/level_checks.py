"""Do the heads of a detector take as many maps, and of as many channels, as there are?"""

from typing import List

from torch import nn

from mmacmix.engine.config_files import SetupError, made_by


def check_levels(model: nn.Module, maps: List[int], part: str) -> None:
    """Checks the heads behind a backbone, or behind a neck, against the channels of its maps.

    Raises:
        SetupError: A head takes other maps.
    """
    for name in ('rpn_head', 'bbox_head'):
        check_strides(getattr(model, name, None), f'model.{name}', maps, part)
    roi_head = getattr(model, 'roi_head', None)
    for name in ('bbox_roi_extractor', 'mask_roi_extractor'):
        extractor = getattr(roi_head, name, None)
        if isinstance(extractor, nn.ModuleList):
            for i, one in enumerate(extractor):
                check_extractor(one, f'model.roi_head.{name}.{i}', maps, part)
        elif extractor is not None:
            check_extractor(extractor, f'model.roi_head.{name}', maps, part)


def check_strides(head: object, setting: str, maps: List[int], part: str) -> None:
    """Checks that a head of mmdet with anchors or points has a stride for each map; mmdet's own error says nothing."""
    if not made_by(head, 'mmdet'):
        return
    strides = getattr(getattr(head, 'prior_generator', None), 'strides', None)
    if isinstance(strides, (list, tuple)) and len(strides) != len(maps):
        strides = [stride[0] if isinstance(stride, (list, tuple)) else stride for stride in strides]
        raise SetupError(
            f'{setting} must have a stride for each of the {len(maps)} maps of the {part}, got {len(strides)}, '
            f'{strides}: set the strides of {setting}, in its anchor_generator where it has one, or '
            f'model.{part}.{"num_outs" if part == "neck" else "out_indices"}'
        )


def check_extractor(extractor: object, setting: str, maps: List[int], part: str) -> None:
    """Checks that what cuts regions out of maps knows how many there are, and how many channels they have."""
    if type(extractor).__name__ != 'SingleRoIExtractor':
        return
    strides = list(extractor.featmap_strides)
    if len(strides) > len(maps):
        raise SetupError(
            f'{setting}.featmap_strides must be of the {len(maps)} maps of the {part}, got '
            f'{setting}.featmap_strides={strides}'
        )
    # One map is taken as it is.
    if len(strides) > 1 and any(channels != extractor.out_channels for channels in maps[:len(strides)]):
        raise SetupError(
            f'{setting}.out_channels must be the channels of the maps of the {part}, {maps[0]}, got '
            f'{setting}.out_channels={extractor.out_channels}'
        )
