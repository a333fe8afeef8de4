"""Converts weights of another project into a backbone checkpoint for init_cfg=dict(type='Pretrained', ...).

python tools/model_converters/convert_checkpoint.py SRC DST --source acmix
python tools/model_converters/convert_checkpoint.py swin_tiny_patch4_window7_224.pth swin-acmix-t.pth --source swin

It reports what was taken, what starts fresh and what was ignored. The file that it writes says what starts fresh, and
loading accepts that nothing else is missing.
"""

import argparse
import os
import re
import sys
from collections import Counter, OrderedDict
from pathlib import Path

import torch

import mmacmix
from mmacmix.checkpoint_files import load_file
from mmacmix.converters import SOURCES, Converted, convert_with_report
from mmacmix.ops.checks import PATHS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('src', metavar='SRC', type=Path, help='checkpoint of the other project')
    parser.add_argument('dst', metavar='DST', type=Path, help='file to write')
    parser.add_argument(
        '--source',
        required=True,
        help="which project: 'acmix', the released code of the paper (ResNet, Swin), or a backbone without ACmix "
        f"as a start, one of {', '.join(SOURCES[1:])}",
    )
    parser.add_argument(
        '--paths', nargs='+', default=PATHS, choices=PATHS, help='paths of the backbone (default: both)'
    )
    args = parser.parse_args()
    if not args.src.is_file():
        parser.error(f'SRC does not exist: {args.src}')
    if args.dst.is_dir() or any(parent.is_file() for parent in args.dst.parents):
        parser.error(f'DST must be a file in a folder, got {args.dst}')
    if args.dst.exists() and args.dst.samefile(args.src):
        parser.error(f'DST must be another file than SRC, got {args.dst}')
    return args


def report(converted: Converted) -> None:
    """Prints what was taken, what starts fresh and what was ignored; numbered parts of a name as one."""
    for title, names in (
        ('loaded', converted.state),
        ('fresh', converted.fresh),
        ('ignored', converted.ignored),
    ):
        patterns = Counter(re.sub(r'(?<=[.])\d+(?=[.])', '*', name) for name in names)
        print(f'{title}: {len(names)}')
        for pattern, count in sorted(patterns.items()):
            print(f'  {count:4d} x {pattern}')


def main() -> None:
    args = parse_args()
    try:
        # The release's trainer saves its settings beside the model: read as a plain mapping, then left out.
        checkpoint = load_file(str(args.src), 'cpu', {'yacs.config.CfgNode': OrderedDict})
    except ValueError as error:
        sys.exit(str(error))
    try:
        converted = convert_with_report(checkpoint, args.source, args.paths)
    except (TypeError, ValueError) as error:
        sys.exit(f'{args.src}: {error}')
    args.dst.parent.mkdir(parents=True, exist_ok=True)
    unfinished = args.dst.with_name(args.dst.name + '.tmp')
    meta = dict(mmacmix_version=mmacmix.__version__, source=args.source, fresh=converted.fresh)
    torch.save(dict(state_dict=converted.state, meta=meta), unfinished)
    os.replace(unfinished, args.dst)
    report(converted)
    count = sum(value.numel() for value in converted.state.values())
    print(f'{args.dst}: {len(converted.state)} parameters and buffers, {count / 1e6:.2f} M numbers')


if __name__ == '__main__':
    main()
