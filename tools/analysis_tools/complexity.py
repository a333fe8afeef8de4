"""Counts parameters, multiply-adds and activations of an ACmix backbone, or of the backbone of a config.

python tools/analysis_tools/complexity.py ResNetACmix depth=26 --shape 224 224
python tools/analysis_tools/complexity.py PVTACmix arch=tiny "paths=('attention',)" --classes 1000
python tools/analysis_tools/complexity.py configs/retinanet/retinanet_swin-acmix-t_fpn_1x_coco.py --shape 800 1344

ACmix layers are counted by formula, whichever way they are implemented, in the stages of the paper's analysis (section
4.2): stage I, the projections that both paths share, and stage II, attention and convolution. Everything else is
counted as torch does it. It is done on the meta device, so nothing is computed. Softmax, normalisation and activation
functions are left out of the multiply-adds, as is usual. Activations are the outputs of all modules, in float32, of
which training keeps most.
"""

import argparse
import ast
import sys
from typing import Any, Callable, Dict, Iterable, List, Optional, Set, Tuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmacmix.engine.config_files import open_config
from mmacmix.layers import Cost, Part
from mmacmix.registry import MODELS

PARTS = ('projection', 'attention', 'convolution', 'rest')
TITLES = dict(zip(
    (*PARTS, 'total'),
    ('stage I, projections', 'stage II, attention', 'stage II, convolution', 'everything else', 'total'),
))


def tally(modules: Iterable[nn.Module], call: Callable[[], Any]) -> Tuple[int, int, Any]:
    """Calls something on the meta device, which computes nothing, and counts as torch does.

    Args:
        modules: Whose outputs are counted.
        call: What is run.

    Returns:
        Multiply-adds of the call, elements of all outputs of the modules, and what the call returned.
    """
    elements = 0

    def add_outputs(module: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal elements
        tensors = output if isinstance(output, (tuple, list)) else (output,)
        elements += sum(x.numel() for x in tensors if isinstance(x, Tensor))

    hooks = [module.register_forward_hook(add_outputs) for module in modules]
    counter = FlopCounterMode(display=False, depth=None)
    try:
        with counter, torch.no_grad():
            result = call()
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // 2, elements, result


def count(backbone: nn.Module, height: int, width: int, classes: int = 0) -> Dict[str, Part]:
    """Costs of a backbone for one image.

    Args:
        backbone: Takes (1, 3, height, width); it is moved to the meta device.
        height, width: Size of the image in pixels.
        classes: If not 0, a linear classifier on the last map is counted as well.

    Returns:
        'projection', 'attention' and 'convolution' of all ACmix layers together, the 'rest' and the 'total'.
    """
    backbone.to('meta').eval()  # which some backbones of the hosts do not return from
    costs: List[Cost] = []
    run: Set[nn.Module] = set()

    def stand_in(layer: nn.Module):
        def forward(x: Tensor, affine: Optional[Tuple[Tensor, Tensor]] = None) -> Tensor:
            rows, cols = x.shape[1:3] if layer.channels_last else x.shape[2:]
            costs.append(layer.cost(rows, cols))
            run.add(layer)
            return x.new_empty(layer.output_shape(x.shape))

        return forward

    layers = [module for module in backbone.modules() if hasattr(module, 'cost')]
    inside = {inner for layer in layers for inner in layer.modules()}
    for layer in layers:
        layer.forward = stand_in(layer)
    leaves = [module for module in backbone.modules() if module not in inside and not list(module.children())]
    image = torch.empty(1, 3, height, width, device='meta')
    multiply_adds, elements, maps = tally(leaves, lambda: backbone(image))
    last = maps[-1].size(1)
    head = classes * (last + 1)
    # Of stages that are not run the parameters count all the same.
    idle = [layer.cost(1, 1) for layer in layers if layer not in run]
    costs += [Cost(*(Part(part.parameters) for part in cost)) for cost in idle]
    parts = {
        name: Part(*(sum(figures) for figures in zip(*(getattr(cost, name) for cost in costs)))) if costs else Part()
        for name in PARTS[:3]
    }
    parameters = sum(p.numel() for p in backbone.parameters()) + head
    parts['rest'] = Part(
        parameters - sum(part.parameters for part in parts.values()),
        multiply_adds + classes * last,
        elements + classes,
    )
    parts['total'] = Part(*(sum(figures) for figures in zip(*parts.values())))
    return parts


def table(rows: Iterable[Tuple[str, Part]]) -> str:
    """Lines of titles and costs."""
    rows = list(rows)
    width = max(len(title) for title, _ in rows) + 3
    lines = [f'{"":{width}}{"parameters":>14}{"multiply-adds":>16}{"activations":>14}']
    for title, part in rows:
        figures = part.parameters / 1e6, part.multiply_adds / 1e9, part.elements * 4 / 2**20
        lines.append('{:{}}{:12.2f} M{:14.2f} G{:10.1f} MiB'.format(title, width, *figures))
    return '\n'.join(lines)


def build(model: str, options: list) -> nn.Module:
    """Builds a backbone from a class name with options, or from a config file."""
    if model.endswith('.py'):
        try:
            config = dict(open_config(model).model.backbone)
        except (AttributeError, FileNotFoundError, TypeError, ValueError) as error:
            sys.exit(f'{model} must be a config with model.backbone: {error}')
    else:
        config = dict(type=f'mmacmix.{model}')
    for option in options:
        name, _, value = option.partition('=')
        try:
            config[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            config[name] = value
    if not str(config['type']).startswith('mmacmix.') or MODELS.get(config['type']) is None:
        sys.exit(f"{config['type']} is not a backbone of mmacmix (mmacmix.backbones)")
    try:
        return MODELS.build(config)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        sys.exit(f'{model}: {error}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', help='class of mmacmix.backbones, or a config file')
    parser.add_argument('options', nargs='*', help='arguments of the class, name=value')
    parser.add_argument('--shape', nargs=2, type=int, default=(224, 224), metavar=('H', 'W'))
    parser.add_argument('--classes', type=int, default=0, help='count a classifier too (ImageNet: 1000)')
    args = parser.parse_args()
    if min(args.shape) < 1 or args.classes < 0:
        parser.error(f'--shape must be above and --classes not below 0, got {args.shape} and {args.classes}')
    try:
        parts = count(build(args.model, args.options), *args.shape, args.classes)
    except (RuntimeError, ValueError) as error:
        sys.exit(f'{args.model} cannot run on images of 3 x {args.shape[0]} x {args.shape[1]}: {error}')
    print(f'{" ".join([args.model, *args.options])} at {args.shape[0]} x {args.shape[1]}')
    print(table((title, parts[name]) for name, title in TITLES.items()))


if __name__ == '__main__':
    main()
