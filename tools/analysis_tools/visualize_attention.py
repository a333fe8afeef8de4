"""Draws where chosen pixels of an image attend in a trained ACmix model, and what the convolution path adds.

python tools/analysis_tools/visualize_attention.py CONFIG CHECKPOINT IMAGE --points 120,80 300,200 --out-dir attention

For each point (x,y in pixels of the image) it writes DIR/IMAGE_point1.png, ...: a row for each layer and a column for
each head, the weights of the point's pixel laid over the image around it. DIR/IMAGE_paths.png has, for each layer, the
length of what attention and convolution add to every pixel, and the convolution's share of both. Without --layers it
takes the last ACmix layer of each resolution; --list-layers prints the names of all.
"""

import argparse
import sys
from pathlib import Path
from typing import List, Optional, Tuple

import numpy as np
from attention_maps import Image, Layer, build_backbone, choose_layers, load_image, run_layers, summands, weights_at

from mmacmix.engine.config_files import open_config

Point = Tuple[float, float]


def pyplot():
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    return plt


def point(text: str) -> Point:
    """'120,80' as (120.0, 80.0)."""
    try:
        x, y = (float(part) for part in text.split(','))
    except ValueError:
        raise argparse.ArgumentTypeError(f'a point must be x,y in pixels of the image, got {text!r}') from None
    return x, y


def draw_point(image: Image, layers: List[Layer], place: Point, heads: int, title: str, out: Path) -> None:
    """Weights of one point: layers from top to bottom, heads from left to right."""
    plt = pyplot()
    x, y = place[0] * image.scale[0], place[1] * image.scale[1]
    maps = [weights_at(layer, image, x, y) for layer in layers]
    columns = 1 + min(heads, max(len(weights) for weights in maps))
    figure, grid = plt.subplots(
        len(layers), columns, squeeze=False, figsize=(2.4 * columns, 2.7 * len(layers)), constrained_layout=True
    )
    for row, layer, weights in zip(grid, layers, maps):
        region = around(weights, image, layer)
        top = np.abs(weights).max()
        signed = weights.min() < 0
        for axes in row:
            axes.set_axis_off()
        show(row[0], image, region)
        left, right, upper, lower = window(weights, image, layer)
        corners = [left, right, right, left, left], [upper, upper, lower, lower, upper]
        row[0].plot(*corners, color='yellow', linewidth=1.5)
        row[0].set_title(f'{layer.name}\n{layer.size[0]} x {layer.size[1]} pixels', fontsize=9)
        for head, axes in zip(range(len(weights)), row[1:]):
            show(axes, image, region, grey=True)
            axes.imshow(
                weights[head],
                extent=extent(image, layer),
                interpolation='nearest',
                cmap='coolwarm' if signed else 'inferno',
                vmin=-top if signed else 0,
                vmax=top,
                alpha=np.clip(np.abs(weights[head]) / top * 3, 0, 0.8),
            )
            limit(axes, region)
            axes.set_title(f'head {head + 1}, up to {np.abs(weights[head]).max():.2f}', fontsize=9)
        for axes in row:
            axes.plot(x, y, marker='+', color='lime', markersize=12, markeredgewidth=2)
    shown = columns - 1
    most = max(len(weights) for weights in maps)
    note = f', the first {shown} of up to {most} heads' if shown < most else ''
    figure.suptitle(f'{title}: weights of ({place[0]:g}, {place[1]:g}){note}', fontsize=11)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def draw_paths(image: Image, layers: List[Layer], title: str, out: Path) -> None:
    """What each path adds, by layer."""
    plt = pyplot()
    figure, grid = plt.subplots(
        len(layers), 4, squeeze=False, figsize=(14, 2.8 * len(layers)), constrained_layout=True
    )
    height, width = image.picture.shape[:2]
    for row, layer in zip(grid, layers):
        parts = summands(layer)
        top = max(part.max() for part in parts.values())
        total = sum(parts.values())
        place = extent(image, layer)
        show(row[0], image, (0, width, 0, height))
        row[0].set_title(f'{layer.name}\n{layer.out_size[0]} x {layer.out_size[1]} pixels', fontsize=9)
        for axes, path in zip(row[1:], ('attention', 'convolution')):
            axes.set_title(f'|{path}|', fontsize=9)
            if path in parts:
                drawn = axes.imshow(parts[path], extent=place, cmap='magma', vmin=0, vmax=top, interpolation='nearest')
                figure.colorbar(drawn, ax=axes, shrink=0.8)
        if len(parts) == 2:
            share = parts['convolution'] / np.maximum(total, np.finfo(np.float32).tiny)
            drawn = row[3].imshow(share, extent=place, cmap='coolwarm_r', vmin=0, vmax=1, interpolation='nearest')
            figure.colorbar(drawn, ax=row[3], shrink=0.8)
            rates = f'rates {layer.module.rate1.item():.2f}, {layer.module.rate2.item():.2f}'
            row[3].set_title(f'share of convolution: {share.mean():.2f}\n{rates}', fontsize=9)
        for axes in row:
            axes.set_axis_off()
            limit(axes, (0, width, 0, height))
    figure.suptitle(f'{title}: length of what each path adds to every pixel', fontsize=11)
    figure.savefig(out, dpi=110)
    plt.close(figure)


def extent(image: Image, layer: Layer) -> Tuple[float, float, float, float]:
    """Where a map of the layer lies on the picture, as matplotlib wants it: left, right, lower, upper."""
    height, width = image.inputs.shape[2:]
    return 0, width, height, 0


def window(weights: np.ndarray, image: Image, layer: Layer) -> Tuple[float, float, float, float]:
    """Left, right, upper and lower edge, on the picture, of the pixels that have a weight."""
    rows, cols = np.nonzero(np.abs(weights).max(0) > 0)
    height, width = image.inputs.shape[2:]
    y, x = height / weights.shape[1], width / weights.shape[2]
    return cols.min() * x, (cols.max() + 1) * x, rows.min() * y, (rows.max() + 1) * y


def around(weights: np.ndarray, image: Image, layer: Layer) -> Tuple[float, float, float, float]:
    """The window with a margin of half its size, square, within the picture where that is possible."""
    left, right, upper, lower = window(weights, image, layer)
    half = max(right - left, lower - upper)
    x, y = (left + right) / 2, (upper + lower) / 2
    height, width = image.picture.shape[:2]
    half = min(half, max(height, width) / 2)
    x = min(max(x, half), max(width - half, half)) if width > 2 * half else width / 2
    y = min(max(y, half), max(height - half, half)) if height > 2 * half else height / 2
    return x - half, x + half, y - half, y + half


def show(axes, image: Image, region: Tuple[float, float, float, float], grey: bool = False) -> None:
    picture = image.picture
    height, width = picture.shape[:2]
    if grey:
        axes.imshow(picture.mean(2), extent=(0, width, height, 0), cmap='gray', vmin=0, vmax=255)
    else:
        axes.imshow(picture, extent=(0, width, height, 0))
    limit(axes, region)


def limit(axes, region: Tuple[float, float, float, float]) -> None:
    left, right, upper, lower = region
    axes.set_xlim(left, right)
    axes.set_ylim(lower, upper)
    axes.set_aspect('equal')


def parse_args(argv: Optional[List[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a detector, segmenter or classifier with an ACmix backbone')
    parser.add_argument('checkpoint', help='its checkpoint, or that of the backbone alone')
    parser.add_argument('image', type=Path)
    parser.add_argument('--points', nargs='+', type=point, metavar='X,Y', help='default: the middle of the image')
    parser.add_argument('--layers', nargs='+', default=(), metavar='NAME', help='names of ACmix layers in the backbone')
    parser.add_argument('--list-layers', action='store_true', help='print the names of the layers and stop')
    parser.add_argument('--heads', type=int, default=4, help='how many heads to draw at most (%(default)s)')
    parser.add_argument('--out-dir', type=Path, default=Path('attention'), help='folder of the pictures (%(default)s)')
    args = parser.parse_args(argv)
    for name, path in (('CONFIG', args.config), ('CHECKPOINT', args.checkpoint), ('IMAGE', args.image)):
        if '://' not in str(path) and not Path(path).is_file():
            parser.error(f'{name} must be an existing file, got {path}')
    if args.heads < 1:
        parser.error(f'--heads must be 1 or more, got {args.heads}')
    if args.out_dir.exists() and not args.out_dir.is_dir():
        parser.error(f'--out-dir must be a folder, got the file {args.out_dir}')
    return args


def main(argv: Optional[List[str]] = None) -> None:
    args = parse_args(argv)
    try:
        cfg = open_config(args.config)
        backbone = build_backbone(cfg, args.checkpoint)
        image = load_image(cfg, args.image)
        layers = run_layers(backbone, image.inputs)
        chosen = choose_layers(layers, args.layers)
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f'visualize_attention.py: error: {error}')
    if args.list_layers:
        for layer in layers.values():
            print(f'{layer.name:28} {layer.size[0]} x {layer.size[1]}')
        return
    height, width = (length / scale for length, scale in zip(image.picture.shape, image.scale[::-1]))
    points = args.points or [(round(width / 2), round(height / 2))]
    outside = [f'{x:g},{y:g}' for x, y in points if not (0 <= x < width and 0 <= y < height)]
    if outside:
        sys.exit(f'visualize_attention.py: error: --points must lie in the image of {width:g} x {height:g} pixels, '
                 f'got {", ".join(outside)}')
    try:
        args.out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f'visualize_attention.py: error: --out-dir must be a folder that can be written to: {error}')
    attending = [layer for layer in chosen if 'attention' in layer.module.paths]
    for number, place in enumerate(points, start=1):
        if attending:
            out = args.out_dir / f'{args.image.stem}_point{number}.png'
            draw_point(image, attending, place, args.heads, args.image.name, out)
            print(out, flush=True)
    out = args.out_dir / f'{args.image.stem}_paths.png'
    draw_paths(image, chosen, args.image.name, out)
    print(out)


if __name__ == '__main__':
    main()
