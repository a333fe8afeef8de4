"""Speed and memory of a whole detector or segmenter beside the same one on the host's plain backbone.

python tools/analysis_tools/benchmark.py configs/retinanet/retinanet_resnet-acmix-50_fpn_1x_coco.py

Both are measured in one run, in turns: inference from the image to boxes, masks or labels, and training steps with the
optimizer. No data and no weights are needed: images are random, and every region counts as an object, so that NMS and
mask head have as many as test_cfg lets through.
"""

import argparse
import sys
from pathlib import Path
from typing import Dict, List, Optional

sys.path.append(str(Path(__file__).resolve().parents[1] / 'benchmarks'))
import records  # noqa: E402
import runs  # noqa: E402
from whole_model_cost import Side, config_of  # noqa: E402
from whole_models import HOSTS, add_arguments, shape_of  # noqa: E402

TITLES = {'forward': 'inference', 'training': 'training'}


def parse_args(argv: Optional[list] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add_arguments(parser)
    parser.add_argument(
        '--against', default='plain', metavar='plain|none|CONFIG',
        help="what to compare with: 'plain' (default), the same config with the host's ResNet-50, PVT or Swin; 'none'; "
        'or another config')
    runs.add_arguments(parser, 'work_dirs/benchmarks/whole_models.csv')
    # 0 stands for the host's.
    parser.set_defaults(batch=0, rounds=10)
    args = parser.parse_args(argv)
    runs.check_arguments(parser, args)
    return args


def raw_options(argv: List[str]) -> List[str]:
    """The KEY=VALUE of --cfg-options, which must be written out, as they were written."""
    found: List[str] = []
    inside = False
    for word in argv:
        if word.startswith('--'):
            name, given, value = word.partition('=')
            inside = name == '--cfg-options'
            found += [value] if inside and given else []
        elif inside:
            found.append(word)
    return found


def table(rows: List[Dict[str, str]]) -> str:
    """A table of figures, a line for each model and pass; ratios where two models were measured in one run."""
    lines = [
        '| model | backbone | pass | images/s | peak MiB above model and images | peak MiB in all |',
        '|---|---|---|---|---|---|',
    ]
    for name, title in TITLES.items():
        members = [row for row in rows if row['pass'] == name]
        for row in members:
            side = Side.of(row['side'])
            if row['status'] == 'ok':
                cells = [f'{int(row["batch"]) / float(row["median_s"]):.3g}',
                         f'{float(row["peak_extra_mib"]):.0f}', f'{float(row["peak_total_mib"]):.0f}']
            else:
                cells = [row['status'].partition(':')[0], '', '']
            lines.append(f'| {model_name(side)} | {backbone_name(side)} | {title} | {" | ".join(cells)} |')
        if len(members) == 2 and all(row['status'] == 'ok' for row in members):
            first, second = members
            speed = float(second['median_s']) / float(first['median_s'])
            memory = (float(first[key]) / float(second[key]) for key in ('peak_extra_mib', 'peak_total_mib'))
            cells = [f'{speed:.2f}x', *(f'{ratio:.2f}x' for ratio in memory)]
            lines.append(f'| first / second | | {title} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def model_name(side: Side) -> str:
    return ' '.join([Path(side.path).stem, *side.options])


def backbone_name(side: Side) -> str:
    """'ResNetACmix 50', 'SwinTransformer (2, 2, 6, 2)'"""
    backbone = config_of(side).model.backbone
    size = next((backbone[key] for key in ('depth', 'arch', 'depths', 'num_layers') if key in backbone), '')
    if isinstance(size, dict):
        size = size['depths']
    size = tuple(size) if isinstance(size, (list, tuple)) else size
    return f'{backbone.type.split(".")[-1]} {size}'.strip()


def main(argv: Optional[list] = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    try:
        sides = [Side(args.config, False, tuple(raw_options(argv)))]
        if args.against == 'plain':
            sides.append(sides[0]._replace(plain=True))
        elif args.against != 'none':
            sides.append(Side(args.against))
        cfg = config_of(sides[0])
        other = config_of(sides[-1])
        if other.default_scope != cfg.default_scope:
            raise ValueError(f'--against must have default_scope={cfg.default_scope} as {args.config}, '
                             f'got default_scope={other.default_scope}')
        height, width = shape_of(cfg, args.shape)
        names = list(dict.fromkeys(side.name() for side in sides))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'benchmark.py: error: {error}')
    constant = dict(height=height, width=width, batch=args.batch or HOSTS[cfg.default_scope].batch)
    constant.update((name, getattr(args, name)) for name in ('device', 'threads', 'dtype'))
    constant.update(dict.fromkeys(('memory_format', 'channels', 'heads', 'kernel', 'stride', 'dilation'), ''))
    cases = [({'pass': name, **constant}, names) for name in runs.PASSES if name in args.passes]
    code = runs.run('whole_model', 'whole_model_cost', cases, args)
    wanted = {records.key(row): row for row in records.read(args.out)}  # the latest of equal ones
    current = dict(constant, pixels=height * width, benchmark='whole_model', **records.versions(),
                   device_name=records.device_name(args.device))
    rows = [wanted.get(records.key(dict(current, side=name, **case))) for case, _ in cases for name in names]
    print(f'\n{height} x {width}, batch {constant["batch"]}, {args.dtype}, {current["device_name"]}'
          + (f', {args.threads} threads' if args.device == 'cpu' else ''))
    print(table([row for row in rows if row]))
    return code


if __name__ == '__main__':
    sys.exit(main())
