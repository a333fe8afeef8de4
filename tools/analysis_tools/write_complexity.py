"""Writes the tables of docs/complexity.md and their picture from counts: none of our figures is typed by hand.

python tools/analysis_tools/write_complexity.py --into docs/complexity.md

Counted are all backbones of the paper at 224 x 224 with the classifier of ImageNet. What stands between
`<!-- published -->`, `<!-- ratios -->` or `<!-- stages -->` and the `<!-- end -->` after it is replaced; the picture is
written beside the document, with its name.
"""

import argparse
import sys
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

import torch
from complexity import PARTS, count

from mmacmix.layers import Part
from mmacmix.registry import MODELS

BOTH, ATTENTION, CONVOLUTION = ('attention', 'convolution'), ('attention',), ('convolution',)


class Figures(NamedTuple):
    """Parameters in millions, multiply-adds in thousands of millions, as published."""

    parameters: float
    multiply_adds: float


class Row(NamedTuple):
    """A backbone of the paper's table of ImageNet, and the plain one that it is compared with there."""

    name: str
    config: dict
    published: Figures
    plain: str
    plain_published: Figures


ROWS = (
    Row('ResNet-ACmix-26', dict(type='ResNetACmix', depth=26), Figures(10.6, 2.3), 'ResNet-26', Figures(13.7, 2.4)),
    Row('ResNet-ACmix-38', dict(type='ResNetACmix', depth=38), Figures(14.6, 2.9), 'ResNet-38', Figures(19.6, 3.2)),
    Row('ResNet-ACmix-50', dict(type='ResNetACmix', depth=50), Figures(18.6, 3.6), 'ResNet-50', Figures(25.6, 4.1)),
    Row('SAN-ACmix-10', dict(type='SANACmix', depth=10), Figures(12.1, 1.9), 'SAN-10', Figures(11.8, 1.9)),
    Row('SAN-ACmix-15', dict(type='SANACmix', depth=15), Figures(16.6, 2.7), 'SAN-15', Figures(16.2, 2.6)),
    Row('SAN-ACmix-19', dict(type='SANACmix', depth=19), Figures(21.2, 3.4), 'SAN-19', Figures(20.5, 3.3)),
    Row('PVT-ACmix-T', dict(type='PVTACmix', arch='tiny'), Figures(13, 2.0), 'PVT-T', Figures(13.2, 1.9)),
    Row('PVT-ACmix-S', dict(type='PVTACmix', arch='small'), Figures(25, 3.9), 'PVT-S', Figures(24.5, 3.8)),
    Row('Swin-ACmix-T', dict(type='SwinACmix', arch='tiny', out_indices=(3,)), Figures(30, 4.6), 'Swin-T',
        Figures(28.29, 4.49)),
    Row('Swin-ACmix-S', dict(type='SwinACmix', arch='small', out_indices=(3,)), Figures(51, 9.0), 'Swin-S',
        Figures(49.61, 8.75)),
)


class Ratio(NamedTuple):
    """Multiply-adds of an ACmix backbone in those of a larger one without; ``stated`` in the paper's text."""

    name: str
    of: str
    config: dict
    stated: Optional[float] = None


RATIOS = (
    Ratio('ResNet-ACmix-26', 'SASA-ResNet-50', dict(type='ResNetACmix', depth=50), 0.8),
    Ratio('ResNet-ACmix-38', 'SASA-ResNet-50', dict(type='ResNetACmix', depth=50)),
    Ratio('SAN-ACmix-15', 'SAN-19', dict(type='SANACmix', depth=19), 0.8),
    Ratio('PVT-ACmix-T', 'PVT-Large', dict(type='PVTACmix', arch='large'), 0.4),
    Ratio('PVT-ACmix-S', 'PVT-Large', dict(type='PVTACmix', arch='large')),
)


def costs(config: dict, paths: Sequence[str] = BOTH) -> Dict[str, Part]:
    """Costs by stage of a backbone with a classifier of 1000 classes, for 224 x 224 pixels."""
    with torch.device('meta'):
        backbone = MODELS.build({**config, 'type': f"mmacmix.{config['type']}", 'paths': paths})
    return count(backbone, 224, 224, classes=1000)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lines of Markdown, the first column to the left and the others to the right."""
    rule = ['---'] + ['---:'] * (len(header) - 1)
    return '\n'.join(f'| {" | ".join(row)} |' for row in (header, rule, *rows))


def off(counted: float, published: float) -> str:
    return f'{100 * (counted / published - 1):+.1f} %'


def published_table() -> str:
    header = ['backbone', 'parameters (M), paper', 'counted', 'off', 'multiply-adds (G), paper', 'counted', 'off']
    rows = []
    for row in ROWS:
        plain = [(row.plain, row.plain_published, costs(row.config, ATTENTION)['total'])]
        if row.config['type'] == 'ResNetACmix':  # whose counterpart in the paper is no attention
            plain = []
        for name, figures, total in ((row.name, row.published, costs(row.config)['total']), *plain):
            parameters, multiply_adds = total.parameters / 1e6, total.multiply_adds / 1e9
            rows.append([
                name,
                f'{figures.parameters:g}', f'{parameters:.2f}', off(parameters, figures.parameters),
                f'{figures.multiply_adds:g}', f'{multiply_adds:.2f}', off(multiply_adds, figures.multiply_adds),
            ])
    return table(header, rows)


def ratios_table() -> str:
    header = ['multiply-adds of', 'in those of', 'paper', 'counted']
    rows = []
    for ratio in RATIOS:
        ours = next(row.config for row in ROWS if row.name == ratio.name)
        share = costs(ours)['total'].multiply_adds / costs(ratio.config, ATTENTION)['total'].multiply_adds
        rows.append([ratio.name, ratio.of, f'{ratio.stated:.0%}' if ratio.stated else '', f'{share:.0%}'])
    return table(header, rows)


def stages_table() -> str:
    header = ['backbone', 'paths']
    header += ['I: projections', 'II: attention', 'II: convolution', 'everything else', 'total', 'parameters (M)']
    rows = []
    for row in ROWS:
        for paths, title in ((BOTH, 'both'), (ATTENTION, 'attention'), (CONVOLUTION, 'convolution')):
            parts = costs(row.config, paths)
            figures = [f'{parts[part].multiply_adds / 1e9:.2f}' for part in (*PARTS, 'total')]
            rows.append([row.name, title, *figures, f"{parts['total'].parameters / 1e6:.2f}"])
    return table(header, rows)


TABLES = {'published': published_table, 'ratios': ratios_table, 'stages': stages_table}


def write(text: str) -> str:
    """The document with its tables.

    Raises:
        ValueError: A marker is missing, or is there twice.
    """
    for name, make in TABLES.items():
        before, found, rest = text.partition(f'<!-- {name} -->')
        _, end, after = rest.partition('<!-- end -->')
        if not end or f'<!-- {name} -->' in rest:
            raise ValueError(f'the document must have <!-- {name} --> once, and <!-- end --> behind it')
        text = f'{before}{found}\n\n{make()}\n\n{end}{after}'
    return text


def draw(path: Path) -> None:
    """Writes the picture: the multiply-adds of every backbone, a bar of four parts."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    names = [row.name for row in ROWS]
    parts = [costs(row.config) for row in ROWS]
    titles = ('stage I: shared projections', 'stage II: attention', 'stage II: convolution', 'everything else')
    figure, axis = plt.subplots(figsize=(9, 4.4))
    left = [0.0] * len(ROWS)
    for part, title, colour in zip(PARTS, titles, ('#4477aa', '#ee6677', '#ccbb44', '#dddddd')):
        width = [p[part].multiply_adds / 1e9 for p in parts]
        axis.barh(names, width, left=left, label=title, color=colour)
        left = [a + b for a, b in zip(left, width)]
    for y, (p, end) in enumerate(zip(parts, left)):
        second = p['attention'].multiply_adds + p['convolution'].multiply_adds
        axis.text(end + 0.08, y, f"stage II: {second / p['total'].multiply_adds:.0%}", va='center', size=8)
    axis.invert_yaxis()
    axis.set_xlim(0, max(left) * 1.12)
    axis.set_xlabel('multiply-adds (G), 224 x 224, with classifier')
    axis.legend(frameon=False, fontsize=9, loc='center right')
    axis.spines[['top', 'right']].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--into', type=Path, required=True, metavar='FILE', help='the document, with its markers')
    args = parser.parse_args(argv)
    try:
        text = write(args.into.read_text())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    args.into.write_text(text)
    draw(args.into.with_suffix('.png'))
    print(args.into, args.into.with_suffix('.png'), sep='\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())
