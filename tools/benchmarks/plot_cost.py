"""Draws time and memory against pixels, both axes logarithmic, from the CSV files of the benchmarks.

python tools/benchmarks/plot_cost.py docs/performance/*.csv --out docs/performance

One picture for each benchmark, machine and setting; the bars of a point are its fastest and slowest round.
"""

import argparse
import sys
from pathlib import Path
from typing import List

from groups import Group, describe, file_names, load
from sides import in_order, label, style

PASSES = {'forward': 'forward', 'training': 'forward + backward'}
TITLES = {'operator': 'Local attention', 'backbone': 'Backbones'}


def draw(group: Group, path: Path) -> None:
    """Writes the picture of a group: a column for each pass, time above memory."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    passes = [name for name in PASSES if group.sizes(name)]
    figure, axes = plt.subplots(
        2, len(passes), figsize=(5.2 * len(passes), 7.6), squeeze=False, sharex=True, sharey='row'
    )
    for column, name in enumerate(passes):
        time, memory = axes[:, column]
        for side in in_order(group.benchmark, group.sides()):
            draw_side(group, name, side, time, memory)
        time.set_title(PASSES[name])
        memory.set_xlabel(f'pixels of {"the map" if group.benchmark == "operator" else "an image"}')
        for axis in (time, memory):
            axis.set(xscale='log', yscale='log')
            axis.grid(True, which='major', color='#dddddd')
            draw_slope(axis)
        draw_sizes(time, group.sizes(name))
    axes[0, 0].set_ylabel('time of a call (s), median')
    axes[1, 0].set_ylabel('peak memory above model and input (MiB)')
    figure.suptitle(f'{TITLES[group.benchmark]}: {describe(group)}', size=11)
    entries = {text: line for axis in axes.flat for line, text in zip(*axis.get_legend_handles_labels())}
    rows = -(-len(entries) // (2 * len(passes)))
    figure.legend(entries.values(), entries, loc='lower center', ncols=2 * len(passes), frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0.02 + 0.03 * rows, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_side(group: Group, name: str, side: str, time, memory) -> None:
    """The two lines of a side; sizes without a figure are left out."""
    rows = [group.cases[name, height, width].get(side) for height, width in group.sizes(name)]
    timed = [row for row in rows if row and row['median_s']]
    if timed:
        low, middle, high = ([float(row[c]) for row in timed] for c in ('min_s', 'median_s', 'max_s'))
        bars = [[m - a for a, m in zip(low, middle)], [b - m for m, b in zip(middle, high)]]
        time.errorbar(
            [int(row['pixels']) for row in timed], middle, yerr=bars, label=label(side), capsize=2, ms=4, **style(side)
        )
    # At 0 there is nothing to draw on a logarithmic axis.
    held = [row for row in rows if row and row['peak_extra_mib'] and float(row['peak_extra_mib']) > 0]
    if held:
        pixels, extra = [int(row['pixels']) for row in held], [float(row['peak_extra_mib']) for row in held]
        memory.plot(pixels, extra, label=label(side), ms=4, **style(side))


def draw_slope(axis) -> None:
    """A grey line that grows in proportion to the pixels, below the others."""
    points = [line.get_xydata() for line in axis.get_lines() if len(line.get_xydata())]
    if not points:
        return
    first, last = min(p[:, 0].min() for p in points), max(p[:, 0].max() for p in points)
    lowest = min(p[:, 1].min() / p[p[:, 1].argmin(), 0] for p in points) * 0.6
    axis.plot([first, last], [lowest * first, lowest * last], color='#aaaaaa', lw=1, ls=(0, (1, 2)), label='~ pixels')


def draw_sizes(axis, sizes: List[tuple]) -> None:
    """Sizes along the upper edge, above the curves."""
    bottom, top = axis.get_ylim()
    axis.set_ylim(bottom, top * (top / bottom) ** 0.25)
    for height, width in sizes:
        text = str(height) if height == width else f'{height}x{width}'
        axis.annotate(
            text, (height * width, 0.985), xycoords=('data', 'axes fraction'), rotation=90, size=7, color='#666666',
            ha='center', va='top',
        )


def main(argv: list = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('csv', nargs='+', type=Path, metavar='CSV', help='files of operator_cost.py, backbone_cost.py')
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='folder for the pictures')
    args = parser.parse_args(argv)
    try:
        groups = load(args.csv)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for group, name in zip(groups, file_names(groups)):
        draw(group, args.out / name)
        print(args.out / name)
    return 0


if __name__ == '__main__':
    sys.exit(main())
