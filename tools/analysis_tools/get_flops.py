"""Counts parameters, multiply-adds and activations of a whole detector, segmenter or classifier, for one image.

python tools/analysis_tools/get_flops.py configs/retinanet/retinanet_resnet-acmix-26_fpn_1x_coco.py
python tools/analysis_tools/get_flops.py configs/sem_fpn/fpn_swin-acmix-t_8xb4-40k_ade20k-512x512.py --shape 640 640

No data are needed: all is done on the meta device, which computes nothing (and has no operators of mmcv, as deformable
convolution: models with them are refused). The backbone is counted by complexity.py
(ACmix layers by formula), neck and heads as torch does it. Backbones without ACmix can be counted too. Box and mask
heads on regions get as many as test_cfg lets through. What is no product of a layer is left out: RoIAlign, anchors,
NMS, resizing. Auxiliary heads of segmenters are trained, but do not run in inference: of them only the parameters
count.
"""

import argparse
import sys
from functools import partial
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

import torch
from complexity import PARTS, TITLES, count, table, tally
from mmengine.config import Config
from torch import Tensor, nn
from whole_models import HOSTS, add_arguments, build, load, shape_of

from mmacmix.engine.config_files import MISTAKES, describe
from mmacmix.layers import Part

#: Parts of models that can be counted; what else has parameters is refused.
KNOWN = ('backbone', 'neck', 'bbox_head', 'rpn_head', 'roi_head', 'decode_head', 'auxiliary_head', 'head')
ROI_HEADS = ('StandardRoIHead', 'CascadeRoIHead')
REGIONS = dict(rpn=1000, rcnn=100)  # into the box head and into the mask head, where test_cfg does not say


class Row(NamedTuple):
    """Costs of a part of a model; ``inner`` rows are parts of a part, which the total does not add again."""

    title: str
    part: Part
    inner: bool = False


def count_model(model: nn.Module, height: int, width: int) -> List[Row]:
    """Costs of a whole model for one image, the total last.

    Args:
        model: Of mmdet, mmseg or mmpretrain, with a backbone that takes (1, 3, height, width); it is moved to the
            meta device.

    Raises:
        ValueError: A part of the model cannot be counted.
    """
    check(model)
    model.to('meta').eval()
    rows, maps = backbone_rows(model.backbone, height, width)

    def add(name: str, module: nn.Module, call: Callable[[], Any], note: str = '') -> Any:
        title = f'{name} ({kind_of(module)}{note})'
        leaves = [m for m in module.modules() if not list(m.children())]
        try:
            multiply_adds, elements, result = tally(leaves, call)
        except MISTAKES as error:
            raise ValueError(f'{title} cannot be counted: {describe(error)}') from error
        rows.append(Row(title, Part(parameters_of(module), multiply_adds, elements)))
        return result

    if has(model, 'neck'):
        maps = add('neck', model.neck, partial(model.neck, maps))
    for name in ('bbox_head', 'rpn_head', 'decode_head', 'head'):
        if has(model, name):
            head = getattr(model, name)
            add(name, head, partial(head, maps))
    if has(model, 'roi_head'):
        add_roi_head(model, add)
    if has(model, 'auxiliary_head'):
        title = f'auxiliary_head ({kind_of(model.auxiliary_head)}, not run)'
        rows.append(Row(title, Part(parameters_of(model.auxiliary_head))))
    parts = [row.part for row in rows if not row.inner]
    return [*rows, Row('total', Part(*(sum(figures) for figures in zip(*parts))))]


def check(model: nn.Module) -> None:
    """Raises ValueError for a model with parts that would be left out, or run in another way than here."""
    unknown = [name for name, part in model.named_children() if name not in KNOWN and parameters_of(part)]
    if unknown or not has(model, 'backbone'):
        got = f'model.{unknown[0]}' if unknown else 'no backbone'
        raise ValueError(f'the parts of a model must be {", ".join(KNOWN)}, got {got} in {type(model).__name__}')
    if isinstance(getattr(model, 'decode_head', None), nn.ModuleList):
        raise ValueError(f'model.decode_head must be one head, got {len(model.decode_head)} in a cascade')
    if has(model, 'roi_head') and type(model.roi_head).__name__ not in ROI_HEADS:
        kind = type(model.roi_head).__name__
        raise ValueError(f'model.roi_head must be of type {" or ".join(ROI_HEADS)}, got type={kind}')


def backbone_rows(backbone: nn.Module, height: int, width: int) -> Tuple[List[Row], Tuple[Tensor, ...]]:
    """Rows of the backbone, those of its ACmix layers where it has some, and the maps that it gives."""
    title = f'backbone ({type(backbone).__name__})'
    try:
        parts = count(backbone, height, width)
        with torch.no_grad():
            maps = backbone(torch.empty(1, 3, height, width, device='meta'))
    except MISTAKES as error:
        raise ValueError(f'{title} cannot be counted on images of 3 x {height} x {width}: {describe(error)}') from error
    rows = [Row(title, parts['total'])]
    if any(parts[name] != Part() for name in PARTS[:3]):
        rows += [Row(f'  {TITLES[name]}', parts[name], inner=True) for name in PARTS]
    return rows, maps


def add_roi_head(model: nn.Module, add: Callable) -> None:
    """Adds the heads on regions, which are fed with maps of the regions' size: RoIAlign has no meta kernel."""
    roi_head = model.roi_head
    for kind, stage in (('bbox', 'rpn'), ('mask', 'rcnn')):
        if not getattr(roi_head, f'with_{kind}'):
            continue
        number = ((model.test_cfg or {}).get(stage) or {}).get('max_per_img', REGIONS[stage])
        head = getattr(roi_head, f'{kind}_head')
        add(f'roi_head.{kind}_head', head, partial(run_on_regions, roi_head, kind, number), f', {number} regions')
    if roi_head.with_shared_head:  # its multiply-adds are in those of the heads that it runs for
        add('roi_head.shared_head', roi_head.shared_head, lambda: None, ', run in the heads above')


def run_on_regions(roi_head: nn.Module, kind: str, number: int) -> None:
    """Runs the 'bbox' or 'mask' heads of a roi_head, of every stage of a cascade, on so many regions."""
    extractors, heads = (as_list(getattr(roi_head, f'{kind}_{part}')) for part in ('roi_extractor', 'head'))
    for extractor, head in zip(extractors, heads):
        size = extractor.roi_layers[0].output_size
        regions = torch.empty(number, extractor.out_channels, *size, device='meta')
        head(roi_head.shared_head(regions) if roi_head.with_shared_head else regions)


def has(owner: nn.Module, name: str) -> bool:
    return getattr(owner, name, None) is not None


def as_list(module: nn.Module) -> List[nn.Module]:
    return list(module) if isinstance(module, nn.ModuleList) else [module]


def kind_of(module: nn.Module) -> str:
    """'FPN', or '3 x FCNMaskHead' of a list."""
    parts = as_list(module)
    return f'{len(parts)} x {type(parts[0]).__name__}' if isinstance(module, nn.ModuleList) else type(module).__name__


def parameters_of(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def notes(cfg: Config, rows: List[Row]) -> str:
    """What the figures leave out, as far as it is in this model."""
    lines = ['Softmax, normalisation and activation functions are not counted; activations are float32.']
    titles = ' '.join(row.title for row in rows)
    if 'roi_head' in titles:
        lines.append('RoIAlign is not counted. Regions: as many as test_cfg lets through at most, in every stage.')
    if cfg.default_scope == 'mmdet':
        lines.append('Boxes, NMS and masks in the size of the image are not counted.')
    if 'auxiliary_head' in titles:
        lines.append('The auxiliary head runs in training only: its parameters count, its multiply-adds do not.')
    return '\n'.join(lines)


def main(argv: Optional[list] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args(argv)
    try:
        cfg = load(args.config, args.cfg_options)
        height, width = shape_of(cfg, args.shape)
        rows = count_model(build(cfg), height, width)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'get_flops.py: error: {error}')
    host = HOSTS[cfg.default_scope]
    size = f'one image of {height} x {width}' + ('' if args.shape else f' (default of a {host.model}: {host.why})')
    print(f'{args.config}, {cfg.model.type}, {size}')
    print(table((row.title, row.part) for row in rows))
    print(notes(cfg, rows))


if __name__ == '__main__':
    main()
