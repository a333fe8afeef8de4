"""Draws how much of attention and of convolution the layers of trained ACmix models take, over their depth.

python tools/analysis_tools/plot_mixing_rates.py epoch_1.pth epoch_12.pth --out mixing_rates.png
python tools/analysis_tools/plot_mixing_rates.py --log work_dirs/NAME --out mixing_rates.png

With checkpoints (of detectors, segmenters, classifiers or backbones) it draws |rate1| of attention, |rate2| of
convolution and log10 |rate1 / rate2| by layer, one line for each checkpoint, as the paper does. With --log it draws
the same as a map of layers and iterations, from what MixingRatesHook wrote during a training (its work dir, or
scalars.json). The rates are also printed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from mmacmix.checkpoints import read_checkpoint, unwrap
from mmacmix.state_dicts import mixing_layers

SUMMANDS = ('attention', 'convolution')
TITLES = ('|rate of attention|', '|rate of convolution|', 'log10 of their ratio')
Rates = Dict[str, Tuple[float, float]]


def rates_of_checkpoint(path: str) -> Rates:
    """Both rates of every ACmix layer of a checkpoint, by layer, in the order of depth.

    Raises:
        FileNotFoundError: There is no such file.
        TypeError, ValueError: It cannot be read, or has no rates.
    """
    state = unwrap(read_checkpoint(path))
    layers = mixing_layers(state)
    if not layers:
        raise ValueError(f'{path} must hold rate1 and rate2 of ACmix layers with both paths, got none of them')
    return {
        layer[len('backbone.') :] if layer.startswith('backbone.') else layer: (
            float(state[f'{layer}.rate1']),
            float(state[f'{layer}.rate2']),
        )
        for layer in layers
    }


def rates_of_log(path: Path) -> Dict[int, Rates]:
    """Rates by iteration, from scalars.json or from all of them in a work dir.

    A later run replaces what earlier ones have from the iteration on at which it began: 0, or where it was resumed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It has no record of rates.
    """
    files = sorted(path.glob('*/vis_data/scalars.json')) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(f'--log must be a work dir with */vis_data/scalars.json, or this file, got {path}')
    record: Dict[int, Rates] = {}
    for file in files:
        began = None
        for line in file.read_text().splitlines():
            # A training that was stopped can leave its last line incomplete.
            if 'mixing_rates/' not in line or not line.endswith('}'):
                continue
            entry = json.loads(line)
            keys = [key for key in entry if key.startswith('mixing_rates/') and key.endswith('.attention')]
            layers = [key[len('mixing_rates/') : -len('.attention')] for key in keys]
            if began is None:
                began = entry['step']
                record = {step: rates for step, rates in record.items() if step < began}
            record[entry['step']] = {
                layer: tuple(entry[f'mixing_rates/{layer}.{summand}'] for summand in SUMMANDS) for layer in layers
            }
    if not record:
        raise ValueError(f'{path} must hold records of MixingRatesHook, got none of them')
    return dict(sorted(record.items()))


def curves(rates: Rates) -> np.ndarray:
    """|rate1|, |rate2| and log10 of their ratio, (3, layers)."""
    pairs = np.abs(np.array(list(rates.values()), dtype=float)).T
    # A rate of exactly 0, as function-preserving starts have it, would be infinitely far down.
    floor = np.maximum(pairs, 1e-6)
    return np.stack([*pairs, np.log10(floor[0] / floor[1])])


def stage_starts(layers: List[str]) -> Dict[int, str]:
    """Where the names of stages change: position and the stage's name, as 'layer2' or 'layers.1'."""
    starts, before = {}, None
    for i, layer in enumerate(layers):
        parts = layer.split('.')
        stage = '.'.join(parts[:2]) if parts[0] in ('layers', 'stages') else parts[0]
        if stage != before:
            starts[i] = stage
        before = stage
    return starts


def mark_stages(axes, layers: List[str]) -> None:
    starts = stage_starts(layers)
    for position in list(starts)[1:]:
        axes.axvline(position - 0.5, color='0.8', linewidth=1, zorder=0)
    ends = [*list(starts)[1:], len(layers)]
    axes.set_xticks([(start + end - 1) / 2 for start, end in zip(starts, ends)], list(starts.values()))
    axes.tick_params(axis='x', length=0)


def draw_checkpoints(models: Dict[str, Rates], out: Path) -> None:
    """One panel each for |rate1|, |rate2| and their log ratio; one line for each checkpoint."""
    plt = pyplot()
    figure, panels = plt.subplots(1, 3, figsize=(13, 4), constrained_layout=True)
    one_depth = len({tuple(rates) for rates in models.values()}) == 1
    colours = plt.get_cmap('viridis')(np.linspace(0, 0.85, len(models)))
    for (label, rates), colour in zip(models.items(), colours):
        places = np.arange(len(rates)) if one_depth else np.linspace(0, 1, len(rates))
        for axes, values in zip(panels, curves(rates)):
            axes.plot(places, values, label=label, color=colour, marker='o', markersize=4)
    for axes, title in zip(panels, TITLES):
        axes.set_title(title)
        axes.grid(axis='y', alpha=0.3)
        if one_depth:
            mark_stages(axes, list(next(iter(models.values()))))
        else:
            axes.set_xlabel('depth, from the first layer to the last')
    top = 1.05 * max(axes.get_ylim()[1] for axes in panels[:2])
    for axes in panels[:2]:
        axes.set_ylim(0, top)
    panels[2].axhline(0, color='black', linewidth=1)
    panels[2].text(0.01, 0.99, 'more attention', transform=panels[2].transAxes, va='top', color='0.4')
    panels[2].text(0.01, 0.01, 'more convolution', transform=panels[2].transAxes, va='bottom', color='0.4')
    if len(models) > 1:
        panels[0].legend(fontsize='small')
    else:
        figure.suptitle(next(iter(models)))
    figure.savefig(out, dpi=130)
    plt.close(figure)


def draw_log(record: Dict[int, Rates], out: Path) -> None:
    """The three as maps: layers from left to right, iterations from top to bottom."""
    plt = pyplot()
    layers = list(next(iter(record.values())))
    table = np.stack([curves(rates) for rates in record.values()], 1)  # (3, records, layers)
    figure, panels = plt.subplots(1, 3, figsize=(13, 5), constrained_layout=True)
    top, reach = table[:2].max(), max(np.abs(table[2]).max(), 0.1)
    styles = (('viridis', 0, top), ('viridis', 0, top), ('RdBu', -reach, reach))
    steps = list(record)
    for axes, title, values, (cmap, low, high) in zip(panels, TITLES, table, styles):
        image = axes.imshow(values, aspect='auto', interpolation='nearest', cmap=cmap, vmin=low, vmax=high)
        figure.colorbar(image, ax=axes)
        shown = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 8)).round().astype(int))
        axes.set_yticks(shown, [str(steps[i]) for i in shown])
        axes.set_title(title)
        mark_stages(axes, layers)
    panels[0].set_ylabel('iterations done')
    figure.savefig(out, dpi=130)
    plt.close(figure)


def pyplot():
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    return plt


def labels_of(paths: List[str]) -> List[str]:
    """File names, with the folder where two are alike, and the whole path where that does not help."""
    names = [Path(path).stem for path in paths]
    longer = [f'{Path(path).parent.name}/{name}' for name, path in zip(names, paths)]
    names = [name if names.count(name) == 1 else long for name, long in zip(names, longer)]
    return [name if names.count(name) == 1 else path for name, path in zip(names, paths)]


def print_table(models: Dict[str, Rates]) -> None:
    for label, rates in models.items():
        print(f'{label}\n  {"layer":28}{"attention":>11}{"convolution":>13}{"log10 ratio":>13}')
        for layer, pair, ratio in zip(rates, rates.values(), curves(rates)[2]):
            print(f'  {layer:28}{pair[0]:11.4f}{pair[1]:13.4f}{ratio:13.2f}')


def main(argv: Optional[List[str]] = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('checkpoints', nargs='*', metavar='CHECKPOINT')
    parser.add_argument('--labels', nargs='+', metavar='LABEL', help='names of the checkpoints in the legend')
    parser.add_argument('--log', type=Path, metavar='PATH', help='work dir of a training, or its scalars.json')
    parser.add_argument('--out', type=Path, default=Path('mixing_rates.png'), help='picture to write (%(default)s)')
    args = parser.parse_args(argv)
    if bool(args.checkpoints) == bool(args.log):
        parser.error('either checkpoints or --log must be given')
    if args.labels and len(args.labels) != len(args.checkpoints):
        parser.error(f'--labels must name {len(args.checkpoints)} checkpoints, got {len(args.labels)} labels')
    for name, values in (('checkpoints', args.checkpoints), ('--labels', args.labels or ())):
        repeated = sorted({value for value in values if values.count(value) > 1})
        if repeated:
            parser.error(f'{name} must differ, got {", ".join(repeated)} more than once')
    if args.out.suffix.lower() not in ('.png', '.pdf', '.svg', '.jpg') or not args.out.parent.is_dir():
        parser.error(f'--out must be a .png, .pdf, .svg or .jpg in an existing folder, got {args.out}')
    try:
        if args.log:
            record = rates_of_log(args.log)
            print_table({f'after {max(record)} iterations': record[max(record)]})
            draw_log(record, args.out)
        else:
            labels = args.labels or labels_of(args.checkpoints)
            models = dict(zip(labels, map(rates_of_checkpoint, args.checkpoints)))
            print_table(models)
            draw_checkpoints(models, args.out)
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f'plot_mixing_rates.py: error: {error}')
    print(args.out)


if __name__ == '__main__':
    main()
