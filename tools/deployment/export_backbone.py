r"""Exports a backbone in its deploy form to ONNX, or as a program of torch.export, and compares it with PyTorch.

python tools/deployment/export_backbone.py configs/retinanet/retinanet_swin-acmix-t_fpn_1x_coco.py \
    --checkpoint epoch_12.pth
python tools/deployment/export_backbone.py ResNetACmix depth=26 --out resnet-acmix-26.onnx

Batch and image size stay open. Only standard ONNX operators are used. The file appears under its name once its outputs
at sizes and batches other than those it was made with are those of PyTorch.
"""

import argparse
import importlib
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Optional

sys.path.append(str(Path(__file__).resolve().parents[1] / 'analysis_tools'))
import torch  # noqa: E402
from comparing import Refused, compare, runner, sizes_to_check, table  # noqa: E402
from complexity import build  # noqa: E402
from exports import FORMATS, MIN_SIDE, export, least_side  # noqa: E402
from torch import nn  # noqa: E402

from mmacmix.checkpoints import load_pretrained, read_checkpoint  # noqa: E402
from mmacmix.state_dicts import unwrap  # noqa: E402


def parse_args(argv: Optional[list] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog='The exit code is 0 if the file was written and agrees with PyTorch, otherwise 1 and there is no file.')
    parser.add_argument('model', help='a config file, or a class of mmacmix.backbones')
    parser.add_argument('options', nargs='*', help='arguments of the backbone, name=value')
    parser.add_argument('--checkpoint', metavar='FILE',
                        help='weights of the backbone, or of a whole detector or segmenter whose backbone is taken '
                        '(default: random weights)')
    parser.add_argument('--out', type=Path, metavar='FILE', help='default: work_dirs/deployment/MODEL.onnx or .pt2')
    parser.add_argument('--format', choices=FORMATS, default='onnx',
                        help="'onnx' (default), or 'torch': for torch.export.load, which does not need mmacmix")
    parser.add_argument('--shape', nargs=2, type=int, default=(256, 320), metavar=('H', 'W'),
                        help='the size in pixels of the example that is traced (default: 256 320)')
    parser.add_argument('--fixed-size', action='store_true',
                        help='images always have the size --shape, which some runtimes need or are faster with; '
                        'the batch stays open')
    parser.add_argument('--opset', type=int, default=18, help='ONNX opset, 18 or later (default: 18)')
    parser.add_argument('--rounds', type=int, default=5,
                        help='timed calls, of which the median counts (default: 5; 0: none)')
    parser.add_argument('--threads', type=int, default=0,
                        help='of PyTorch and ONNX Runtime in the comparison (default: all)')
    args = parser.parse_args(argv)
    if min(args.shape) < MIN_SIDE and not args.fixed_size or min(args.shape) < 1:
        parser.error(f'--shape must be at least {MIN_SIDE} x {MIN_SIDE}, or 1 x 1 with --fixed-size, '
                     f'got {args.shape[0]} x {args.shape[1]}')
    for name, least in (('opset', 18), ('rounds', 0), ('threads', 0)):
        if getattr(args, name) < least:
            parser.error(f'--{name} must be at least {least}, got {getattr(args, name)}')
    suffix = FORMATS[args.format].suffix
    args.out = args.out or Path('work_dirs/deployment', f'{Path(args.model).stem}{suffix}')
    if args.out.suffix != suffix:
        parser.error(f'--out must end in {suffix} for --format {args.format}, got {args.out}')
    if args.out.is_dir():
        parser.error(f'--out must be a file, got the folder {args.out}')
    return args


def load(model: nn.Module, checkpoint: str) -> None:
    """Loads the weights of a backbone, or those of the backbone of a whole model.

    Raises:
        ValueError: The checkpoint cannot be read, or does not fit.
    """
    whole = any(key.startswith('backbone.') for key in unwrap(read_checkpoint(checkpoint)))
    load_pretrained(model, checkpoint, 'backbone' if whole else None, optional_keys=model.optional_keys)


def check_packages(names: tuple) -> None:
    if not hasattr(torch.compiler, 'is_exporting'):
        raise Refused(f'export needs torch 2.7 or later, got {torch.__version__}')
    missing = []
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    if missing:
        raise Refused(f'the packages {", ".join(missing)} are needed: pip install {" ".join(missing)}')


def main(argv: Optional[list] = None) -> int:
    args = parse_args(argv)
    # Of deprecations in their own code, and of packages that are not there.
    warnings.filterwarnings('ignore', module=r'torch|onnxscript|copyreg')
    logging.getLogger('torch.onnx').setLevel(logging.ERROR)
    try:
        check_packages(FORMATS[args.format].packages)
        model = build(args.model, args.options)
        if args.checkpoint:
            load(model, args.checkpoint)
        else:
            print('random weights: --checkpoint names trained ones')
        model.eval()
        try:
            model.switch_to_deploy()
        except ValueError as error:
            raise Refused(f'the model has no deploy form: {error}') from error
        if args.threads:
            torch.set_num_threads(args.threads)
        args.out.parent.mkdir(parents=True, exist_ok=True)
        part = args.out.with_name(f'.{args.out.stem}.part{args.out.suffix}')
        try:
            export(model, part, args)
            print(f'comparing with PyTorch, {torch.get_num_threads()} threads')
            call = runner(part)
            # ONNX Runtime holds nobody to the sizes that torch recorded, so smaller ones must be right as well.
            least = least_side(model) if args.format == 'torch' else MIN_SIDE
            sizes = sizes_to_check(args.shape, args.fixed_size, least)
            results = [compare(model, call, size, args.rounds) for size in sizes]
            print(table(results, FORMATS[args.format].runtime))
            os.replace(part, args.out)
        finally:
            part.unlink(missing_ok=True)
    except (Refused, OSError, ValueError) as error:
        sys.exit(f'export_backbone.py: error: {error}')
    print(f'{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB')
    return 0


if __name__ == '__main__':
    sys.exit(main())
