"""Time and memory of whole backbones: mmacmix's, the host's plain ones, and the released order of operations.

python tools/benchmarks/backbone_cost.py --sizes 224 800x1344 --threads 2

'forward' is inference in eval mode; 'training' is a step without the optimizer: train mode, forward, the sum of the
means of all outputs, backward into fresh gradients. See docs/performance.md.
"""

import argparse
import importlib.util
import sys
from typing import Callable, Dict

import torch
from official import official_resnet_acmix_50
from runs import PASSES, add_arguments, check_arguments, run, size
from torch import nn


def resnet_acmix(depth: int) -> nn.Module:
    from mmacmix.backbones import ResNetACmix

    return ResNetACmix(depth)


def resnet(depth: int) -> nn.Module:
    from mmdet.models.backbones import ResNet

    return ResNet(depth, norm_eval=False)  # as ResNetACmix: statistics of the batch


def swin_acmix(arch: str) -> nn.Module:
    from mmacmix.backbones import SwinACmix

    return SwinACmix(arch, drop_path_rate=0.2)


def swin(depths: tuple) -> nn.Module:
    from mmdet.models.backbones import SwinTransformer

    return SwinTransformer(depths=depths, drop_path_rate=0.2)


def san_acmix(depth: int, **options) -> nn.Module:
    from mmacmix.backbones import SANACmix

    return SANACmix(depth, **options)


def pvt_acmix(arch: str) -> nn.Module:
    from mmacmix.backbones import PVTACmix

    return PVTACmix(arch)


def pvt(depths: list) -> nn.Module:
    from mmdet.models.backbones import PyramidVisionTransformer

    return PyramidVisionTransformer(num_layers=depths)


MODELS: Dict[str, Callable[[], nn.Module]] = {
    'resnet-acmix-26': lambda: resnet_acmix(26),
    'resnet-acmix-50': lambda: resnet_acmix(50),
    'resnet-50': lambda: resnet(50),
    'swin-acmix-t': lambda: swin_acmix('tiny'),
    'swin-t': lambda: swin((2, 2, 6, 2)),
    'pvt-acmix-t': lambda: pvt_acmix('tiny'),
    'pvt-t': lambda: pvt([2, 2, 2, 2]),
    'san-acmix-10': lambda: san_acmix(10),
    'san-10-acmix-attention': lambda: san_acmix(10, paths=('attention',)),  # the hosts have no SAN
}
VARIANTS = ('channels_last', 'deploy', 'norm_eval', 'official', 'with_cp')
SMALLEST_OFFICIAL = 96  # pixels: reflection by 3 needs maps of 4 x 4 at 1/32
DEFAULT_SIDES = (
    'resnet-acmix-50', 'resnet-acmix-50:norm_eval', 'resnet-acmix-50:deploy', 'resnet-acmix-50:official',
    'resnet-50', 'resnet-50:norm_eval', 'resnet-50:channels_last',
    'swin-acmix-t', 'swin-acmix-t:deploy', 'swin-t',
)


def build(side: str) -> nn.Module:
    """The backbone of a side, 'model' or 'model:variant'.

    Raises:
        ValueError: The model has no such variant.
    """
    name, *variants = side.split(':')
    model = MODELS[name]()
    model.init_weights()
    for variant in variants:
        if variant == 'channels_last':
            model = model.to(memory_format=torch.channels_last)
        elif variant == 'official':
            weights = model.state_dict()
            model = official_resnet_acmix_50()
            model.load_state_dict(weights)
        elif variant == 'norm_eval':
            if not hasattr(model, 'norm_eval') or 'resnet' not in name:
                raise ValueError(f"'norm_eval' needs batch normalisation, which {type(model).__name__} does not have")
            model.norm_eval = True
        elif variant == 'with_cp':
            for module in model.modules():
                if hasattr(module, 'with_cp'):
                    module.with_cp = True
        elif not hasattr(model, 'switch_to_deploy'):
            raise ValueError(f"'deploy' needs a method switch_to_deploy(), which {type(model).__name__} does not have")
        else:
            model.eval().switch_to_deploy()
    return model


def prepare(case: dict, side: str) -> Callable[[int, int], Callable[[], None]]:
    """Function from the size of images to the call that is measured."""
    torch.manual_seed(0)
    model = build(side).to(case['device'])
    model.train(case['pass'] == 'training')
    layout = torch.channels_last if 'channels_last' in side else torch.contiguous_format
    half = case['dtype'] in ('bfloat16', 'float16')
    autocast = dict(device_type=case['device'], dtype=getattr(torch, case['dtype']) if half else None, enabled=half)

    def at(height: int, width: int) -> Callable[[], None]:
        images = torch.randn(case['batch'], 3, height, width, device=case['device']).to(memory_format=layout)

        def infer() -> None:
            with torch.inference_mode(), torch.autocast(**autocast):
                model(images)

        def train() -> None:
            with torch.autocast(**autocast):
                loss = sum(x.mean() for x in model(images))
            loss.backward()
            for parameter in model.parameters():  # the next call allocates them again
                parameter.grad = None

        return train if case['pass'] == 'training' else infer

    return at


def parse_args(argv: list) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--sides', nargs='+', type=side_name, default=list(DEFAULT_SIDES), metavar='MODEL[:VARIANT]',
        help=f'models: {", ".join(MODELS)}; variants: {", ".join(VARIANTS)} (default {" ".join(DEFAULT_SIDES)})',
    )
    parser.add_argument(
        '--sizes', nargs='+', type=size, default=[(224, 224), (320, 320), (448, 448), (640, 640), (800, 1344)],
        metavar='HxW', help='of the images (default 224 320 448 640 800x1344)',
    )
    add_arguments(parser, 'work_dirs/benchmarks/backbone.csv')
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    for side in args.sides:
        official = 'official' in side
        if ('acmix' not in side or official) and importlib.util.find_spec('mmdet') is None:
            parser.error(f'--sides {side} needs mmdet, which is not installed')
        for height, width in args.sizes:
            if official and min(height, width) <= SMALLEST_OFFICIAL:
                parser.error(f'--sizes must be above {SMALLEST_OFFICIAL} for --sides {side}, got {height}x{width}')
        if 'deploy' in side or 'norm_eval' in side:
            try:
                build(side)
            except ValueError as error:
                parser.error(f'--sides {side}: {error}')
    return args


def side_name(text: str) -> str:
    name, *variants = text.split(':')
    if name not in MODELS:
        raise argparse.ArgumentTypeError(f'model must be one of {", ".join(MODELS)}, got {name!r}')
    for variant in variants:
        if variant not in VARIANTS:
            raise argparse.ArgumentTypeError(f'variant must be one of {", ".join(VARIANTS)}, got {variant!r}')
        if variant == 'official' and name != 'resnet-acmix-50':
            raise argparse.ArgumentTypeError(f"variant 'official' needs the model resnet-acmix-50, got {name!r}")
    if len(variants) > 1 and 'official' in variants:
        raise argparse.ArgumentTypeError(f"variant 'official' must be the only one, got {text!r}")
    return text


def main(argv: list = None) -> int:
    args = parse_args(sys.argv[1:] if argv is None else argv)
    cases = []
    for name in (p for p in PASSES if p in args.passes):
        # The deploy form is for inference; without training norm_eval and with_cp change nothing.
        others = {'norm_eval', 'with_cp'} if name == 'forward' else {'deploy'}
        sides = [side for side in dict.fromkeys(args.sides) if not others & set(side.split(':'))]
        for height, width in dict.fromkeys(args.sizes) if sides else ():
            case = {'pass': name, 'height': height, 'width': width}
            for option in ('device', 'threads', 'dtype', 'batch'):
                case[option] = getattr(args, option)
            blank = dict.fromkeys(('memory_format', 'channels', 'heads', 'kernel', 'stride', 'dilation'), '')
            cases.append((dict(case, **blank), sides))
    return run('backbone', 'backbone_cost', cases, args)


if __name__ == '__main__':
    sys.exit(main())
