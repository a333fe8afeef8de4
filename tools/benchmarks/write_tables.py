"""Writes the tables of docs/performance.md from the CSV files of the benchmarks: none is typed by hand.

python tools/benchmarks/write_tables.py docs/performance/*.csv --into docs/performance.md

What stands between `<!-- operator: tables -->` and `<!-- operator: end -->`, and the same for `backbone`, is replaced.
"""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Dict, List, Sequence

from groups import Group, describe, file_names, load
from sides import RATIOS, TABLES, in_order, label

PASSES = {'forward': 'Forward', 'training': 'Forward and backward'}
NOTHING = 'Not measured yet.'


def write(text: str, groups: Sequence[Group], pictures: Sequence[str]) -> str:
    """A document with the tables of these groups.

    Args:
        text: The document, with both pairs of markers.
        groups: What was measured.
        pictures: Link to the picture of each group, '' where there is none.

    Raises:
        ValueError: A marker is not there exactly once.
    """
    for benchmark in TABLES:
        parts = [section(g, picture) for g, picture in zip(groups, pictures) if g.benchmark == benchmark]
        begin, end = f'<!-- {benchmark}: tables -->', f'<!-- {benchmark}: end -->'
        if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
            raise ValueError(f'the document must have {begin} and then {end}, each once')
        body = '\n\n'.join(parts) if parts else NOTHING
        text = re.sub(f'(?s){begin}.*{end}', lambda _: f'{begin}\n\n{body}\n\n{end}', text)  # noqa: B023
    return text


def section(group: Group, picture: str) -> str:
    """Heading, provenance, picture and tables of a group."""
    versions = [f'{name} {" and ".join(group.values(name))}' for name in ('torch', 'mmacmix', 'mmcv', 'mmdet', 'commit')
                if group.values(name)]
    dates = [date[:10] for date in group.values('date')]
    measured = dates[0] if dates[0] == dates[-1] else f'{dates[0]} to {dates[-1]}'
    parts = [f'### {describe(group)}', f'Measured {measured}; {", ".join(versions)}.']
    parts.append('```bash\n' + '\n'.join(group.values('command')) + '\n```')
    if picture:
        parts.append(f'![Time and memory against pixels: {describe(group)}]({picture})')
    for title, members in TABLES[group.benchmark].items():
        for name, heading in PASSES.items():
            for table in tables(group, name, members):
                parts.append(f'**{title + ": " if title else ""}{heading.lower() if title else heading}, {table}')
    return '\n\n'.join(parts)


def tables(group: Group, name: str, members: Sequence[str]) -> List[str]:
    """Time and memory of one pass; none where no member has a row."""
    rows = [(size, group.cases[(name, *size)]) for size in group.sizes(name)]
    present = {side for _, row in rows for side in row if side.split(':')[0] in members}
    if not present:
        return []
    sides = in_order(group.benchmark, present)
    ratios = [
        (a, b)
        for a, b in RATIOS[group.benchmark]
        if any(a in row and b in row and row[a]['date'] == row[b]['date'] for _, row in rows)
    ]
    unit, factor = ('ms', 1e3) if group.benchmark == 'operator' else ('s', 1.0)
    result = []
    for title, columns, scale in (
        (f'{unit}, median (fastest to slowest round)**', ('median_s', 'min_s', 'max_s'), factor),
        ('peak MiB above model and input**', ('peak_extra_mib',), 1.0),
    ):
        head = ['size', *map(label, sides), *(f'{label(a)} / {label(b)}' for a, b in ratios)]
        lines = [f'| {" | ".join(head)} |', '|' + '---|' * len(head)]
        for (height, width), row in rows:
            cells = [cell(row.get(side), columns, scale) for side in sides]
            cells += [ratio(row, a, b, columns[0]) for a, b in ratios]
            lines.append(f'| {height} x {width} | {" | ".join(cells)} |')
        result.append(title + '\n\n' + '\n'.join(lines))
    return result


def cell(row: Dict[str, str], columns: Sequence[str], scale: float) -> str:
    """A figure with its spread, why there is none, or '' where it was not tried."""
    if not row:
        return ''
    if not row[columns[0]]:
        return row['status'].partition(':')[0]
    middle, *spread = (figure(float(row[column]) * scale) for column in columns)
    return f'{middle} ({" to ".join(spread)})' if spread else middle


def figure(value: float) -> str:
    """Three digits, without an exponent."""
    return f'{value:.0f}' if value >= 100 else f'{value:.3g}'


def ratio(rows: Dict[str, Dict[str, str]], above: str, below: str, column: str) -> str:
    """How many times the one side is the other, or '': figures of two runs have no ratio."""
    pair = [rows.get(side) or {} for side in (above, below)]
    if len({row.get('date') for row in pair}) > 1:
        return ''
    values = [float(row.get(column) or 0) for row in pair]
    return f'{figure(values[0] / values[1])}x' if min(values) > 0 else ''


def main(argv: list = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('csv', nargs='*', type=Path, metavar='CSV', help='without one the document loses its tables')
    parser.add_argument('--into', type=Path, required=True, metavar='FILE', help='document with the markers')
    parser.add_argument('--pictures', type=Path, metavar='DIR', help='of plot_cost.py (default: beside the first CSV)')
    args = parser.parse_args(argv)
    try:
        groups = load(args.csv)
        folder = args.pictures or (args.csv[0].parent if args.csv else Path())
        pictures = [folder / name for name in file_names(groups)]
        links = [Path(os.path.relpath(p, args.into.parent)).as_posix() if p.is_file() else '' for p in pictures]
        args.into.write_text(write(args.into.read_text(), groups, links))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(args.into)
    return 0


if __name__ == '__main__':
    sys.exit(main())
