"""Time and memory of local attention: mmacmix's backends, the released order of operations, FlexAttention.

python tools/benchmarks/operator_cost.py --sizes 56 200x334 --threads 2

'training' is forward and backward, with gradients of q, k, v and the position code. See docs/performance.md.
"""

import argparse
import sys
from typing import Callable

import torch
from official import official_attention
from runs import PASSES, add_arguments, check_arguments, positive, run, size

from mmacmix.ops import local_attention

BACKENDS = ('auto', 'triton', 'tiled', 'reference')
SIDES = (*BACKENDS, 'official', 'flex')
DEFAULT_SIDES = {'cpu': ('auto', 'reference', 'official'), 'cuda': SIDES}
MEMORY_FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}


def prepare(case: dict, side: str) -> Callable[[int, int], Callable[[], None]]:
    """Function from a size (H, W) to the call that is measured."""
    training = case['pass'] == 'training'
    kernel_size, stride, dilation = case['kernel'], case['stride'], case['dilation']
    dtype = torch.float32 if case['dtype'] == 'tf32' else getattr(torch, case['dtype'])
    head_dim = case['channels'] // case['heads']

    def at(height: int, width: int) -> Callable[[], None]:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> torch.Tensor:
            x = torch.randn(shape, generator=generator).to(case['device'], dtype)
            return x.contiguous(memory_format=MEMORY_FORMATS[case['memory_format']]) if len(shape) == 4 else x

        maps = [random(case['batch'], case['channels'], height, width).requires_grad_(training) for _ in range(3)]
        position = random(head_dim, height, width).requires_grad_(training)
        out_size = (-(-height // stride), -(-width // stride))
        grad = random(case['batch'], case['channels'], *out_size).unflatten(1, (case['heads'], head_dim))
        if side == 'flex':
            from flex import flex_attention

            attend = flex_attention(height, width, kernel_size, stride, dilation, case['device'])

        def forward() -> torch.Tensor:
            q, k, v = (x.unflatten(1, (case['heads'], head_dim)) for x in maps)
            if side == 'official':
                return official_attention(q, k, v, position, kernel_size, stride, dilation)
            if side == 'flex':
                return attend(q, k, v, position)
            return local_attention(q, k, v, kernel_size, stride, dilation, position=position, backend=side)

        def call() -> None:
            if training:
                torch.autograd.grad(forward(), [*maps, position], grad)
            else:
                with torch.no_grad():
                    forward()

        return call

    return at


def parse_args(argv: list) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sides', nargs='+', choices=SIDES, help='all that the device has by default')
    parser.add_argument(
        '--sizes', nargs='+', type=size, default=[(28, 28), (56, 56), (112, 112), (200, 334)],
        metavar='HxW', help='of the map (default 28 56 112 200x334)',
    )
    parser.add_argument('--channels', type=positive, default=64)
    parser.add_argument('--heads', type=positive, default=4)
    parser.add_argument('--kernel', type=positive, default=7)
    parser.add_argument('--stride', type=positive, default=1)
    parser.add_argument('--dilation', type=positive, default=1)
    parser.add_argument('--memory-format', choices=MEMORY_FORMATS, default='contiguous')
    add_arguments(parser, 'work_dirs/benchmarks/operator.csv')
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    args.sides = list(dict.fromkeys(args.sides or available_sides(args)))
    if args.channels % args.heads:
        parser.error(f'--channels must be divisible by --heads {args.heads}, got {args.channels}')
    if args.kernel % 2 == 0:
        parser.error(f'--kernel must be odd, got {args.kernel}')
    reach = args.kernel // 2 * args.dilation
    for side in args.sides:
        reason = why_not(side, args)
        if reason:
            parser.error(f'--sides {side} cannot run here: {reason}')
        for height, width in args.sizes:
            if side in ('official', 'flex') and min(height, width) <= reach:
                parser.error(f'--sizes must be above {reach} for --sides {side}, got {height}x{width}')
    return args


def available_sides(args: argparse.Namespace) -> list:
    return [side for side in DEFAULT_SIDES[args.device] if not why_not(side, args)]


def why_not(side: str, args: argparse.Namespace) -> str:
    """Why a side cannot run on this device, or ''."""
    if side == 'flex':
        if args.device != 'cuda' or torch.__version__ < (2, 5):
            return f'FlexAttention needs CUDA and torch 2.5, got {args.device} and torch {torch.__version__}'
    elif side != 'official':
        dtype = torch.float32 if args.dtype == 'tf32' else getattr(torch, args.dtype)
        x = torch.zeros(0, args.heads, max(1, args.channels // args.heads), 1, 1, dtype=dtype, device=args.device)
        try:
            local_attention(x, x, x, backend=side)
        except (RuntimeError, ValueError) as error:
            return str(error)
    return ''


def main(argv: list = None) -> int:
    args = parse_args(sys.argv[1:] if argv is None else argv)
    cases = []
    for name in dict.fromkeys(p for p in PASSES if p in args.passes):
        for height, width in dict.fromkeys(args.sizes):
            case = {'pass': name, 'height': height, 'width': width}
            for option in ('device', 'threads', 'dtype', 'memory_format', 'batch', 'channels', 'heads', 'kernel'):
                case[option] = getattr(args, option)
            cases.append((dict(case, stride=args.stride, dilation=args.dilation), args.sides))
    return run('operator', 'operator_cost', cases, args)


if __name__ == '__main__':
    sys.exit(main())
