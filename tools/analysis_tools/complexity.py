"""Counts parameters and multiply-adds of an ACmix backbone, or of the backbone of a config.

python tools/analysis_tools/complexity.py ResNetACmix depth=26 --shape 224 224
python tools/analysis_tools/complexity.py configs/retinanet/retinanet_swin-acmix-t_fpn_1x_coco.py --shape 800 1344

Convolutions and matrix products are counted as torch does them, on the meta device, so nothing is computed. Local
attention is counted by its formula (torch 2.4 and later), two multiply-adds for each channel and pixel of a window,
whichever way it is implemented; softmax, normalisation and activations are left out, as is usual.
"""

import argparse
import ast
import sys
from typing import Dict, Tuple

import torch
from mmengine.config import Config
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmacmix.layers import ACmix
from mmacmix.registry import MODELS


def count(backbone: nn.Module, height: int, width: int) -> Dict[str, int]:
    """Parameters and multiply-adds of a backbone for one image.

    Args:
        backbone: Takes (1, 3, height, width).
        height, width: Size of the image in pixels.

    Returns:
        'parameters', and 'multiply_adds' of the whole, of which 'local_attention' by formula.
    """
    backbone = backbone.to('meta').eval()
    attention = 0

    def note(module: ACmix, inputs: Tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal attention
        attention += 2 * module.attn_kernel_size**2 * output[0].numel()

    for module in backbone.modules():
        if isinstance(module, ACmix):
            module.register_forward_hook(note)
    counter = FlopCounterMode(display=False, depth=None)
    # The registered operator is counted by its formula; without it (torch before 2.4) by the products of its tiles.
    with counter, torch.no_grad():
        backbone(torch.empty(1, 3, height, width, device='meta'))
    return dict(
        parameters=sum(p.numel() for p in backbone.parameters()),
        multiply_adds=counter.get_total_flops() // 2,
        local_attention=attention,
    )


def build(model: str, options: list) -> nn.Module:
    """Builds a backbone from a class name with options, or from a config file."""
    if model.endswith('.py'):
        config = dict(Config.fromfile(model).model.backbone)
    else:
        config = dict(type=f'mmacmix.{model}')
    for option in options:
        name, _, value = option.partition('=')
        try:
            config[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            config[name] = value
    if not config['type'].startswith('mmacmix.') or MODELS.get(config['type']) is None:
        sys.exit(f"{config['type']} is not a backbone of mmacmix (mmacmix.backbones)")
    return MODELS.build(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', help='class of mmacmix.backbones, or a config file')
    parser.add_argument('options', nargs='*', help='arguments of the class, name=value')
    parser.add_argument('--shape', nargs=2, type=int, default=(224, 224), metavar=('H', 'W'))
    args = parser.parse_args()
    figures = count(build(args.model, args.options), *args.shape)
    print(f'{args.model} {" ".join(args.options)} at {args.shape[0]} x {args.shape[1]}')
    print(f'parameters       {figures["parameters"] / 1e6:8.2f} M')
    print(f'multiply-adds    {figures["multiply_adds"] / 1e9:8.2f} G')
    print(f'  local attention{figures["local_attention"] / 1e9:8.2f} G')


if __name__ == '__main__':
    main()
