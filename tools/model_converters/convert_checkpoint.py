"""Converts weights of another project into a backbone checkpoint for init_cfg=dict(type='Pretrained', ...).

python tools/model_converters/convert_checkpoint.py SRC DST --source acmix
"""

import argparse
import contextlib
import os
import re
import sys
from collections import OrderedDict
from pathlib import Path

import torch

import mmacmix
from mmacmix.checkpoints import convert


def load(path: Path) -> dict:
    """Reads tensors and plain values only; no code of the file runs."""
    context = contextlib.nullcontext()
    if torch.__version__ >= (2, 6):
        # The release's trainer saves its settings beside the model: read as a plain mapping, then left out.
        context = torch.serialization.safe_globals([(OrderedDict, 'yacs.config.CfgNode')])
    with context:
        return torch.load(path, map_location='cpu', weights_only=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', metavar='SRC', type=Path, help='checkpoint of the other project')
    parser.add_argument('dst', metavar='DST', type=Path, help='file to write')
    parser.add_argument(
        '--source',
        required=True,
        help="which project: 'acmix', the released code of the paper (ResNet, Swin)",
    )
    args = parser.parse_args()
    if not args.src.is_file():
        parser.error(f'SRC does not exist: {args.src}')
    if args.dst.exists() and args.dst.samefile(args.src):
        parser.error(f'DST must be another file than SRC, got {args.dst}')
    return args


def main() -> None:
    args = parse_args()
    try:
        checkpoint = load(args.src)
    except Exception as error:  # a damaged or crafted file can make torch raise anything
        # Not torch's own words, which advise to load the file unsafely.
        refused = re.search(r'(?i)unsupported global:? (?:GLOBAL )?(\S+)', str(error))
        what = f'it holds {refused[1]}, which could run code' if refused else 'it is damaged or no checkpoint'
        sys.exit(f'cannot read {args.src} as a checkpoint of tensors: {what} ({type(error).__name__})')
    try:
        state = convert(checkpoint, args.source)
    except (TypeError, ValueError) as error:
        sys.exit(f'{args.src}: {error}')
    args.dst.parent.mkdir(parents=True, exist_ok=True)
    unfinished = args.dst.with_name(args.dst.name + '.tmp')
    meta = dict(mmacmix_version=mmacmix.__version__, source=args.source)
    torch.save(dict(state_dict=state, meta=meta), unfinished)
    os.replace(unfinished, args.dst)
    count = sum(value.numel() for value in state.values())
    print(f'{args.dst}: {len(state)} parameters and buffers, {count / 1e6:.2f} M numbers')


if __name__ == '__main__':
    main()
