"""Draws docs/figures/shift.png: a shift as a convolution, and the convolution path. Needs matplotlib and torch.

python docs/figures/draw_shift.py
"""

import torch
import torch.nn.functional as F
from drawing import BLUE, GREY, INK, MARK, ORANGE, arrow, box, canvas, grid, image, save
from matplotlib.patches import Rectangle

from mmacmix.layers.shift import init_shift_kernels

LETTER = ('.......', '.###...', '.#.....', '.###...', '.#.....', '.#.....', '.......')
TAPS = (0, 5, 8)
HEADS = 4


def shifts(ax):
    """The letter, three of the kernels, and what they make of it."""
    letter = torch.tensor([[float(c == '#') for c in row] for row in LETTER])
    kernels = torch.empty(1, 9, 3, 3)
    init_shift_kernels(kernels)
    ax.text(0.3, 9.3, 'a)  A shift is a depthwise convolution', size=12, weight='bold')
    image(ax, 0.4, 6.7, 1.9, letter.tolist(), 'Blues', (0, 1.4))
    ax.text(1.35, 6.3, 'map', size=10, ha='center', va='center')
    for tap, x in zip(TAPS, (3.9, 8.6, 13.3)):
        moved = F.conv2d(letter[None, None], kernels[:, tap:tap + 1], padding=1)[0, 0]
        row, column = divmod(tap, 3)
        ax.text(x - 0.45, 7.65, '*', size=16, ha='center', va='center')
        grid(ax, x, 7.2, 3, 0.3, {(row, column)})
        ax.text(x + 0.45, 6.3, f'kernel {tap}:\n1 at ({row}, {column})', size=9, ha='center', va='center')
        ax.text(x + 1.25, 7.65, '=', size=14, ha='center', va='center')
        image(ax, x + 1.6, 6.7, 1.9, moved.tolist(), 'Blues', (0, 1.4))
    ax.text(9.95, 6.3, 'moved left', size=9, ha='left', va='center')
    ax.text(5.25, 6.3, 'moved right and down', size=9, ha='left', va='center')
    ax.text(14.65, 6.3, 'moved left and up', size=9, ha='left', va='center')


def stack(ax, x, y, colors, height):
    """Maps above one another."""
    for n, color in enumerate(colors):
        ax.add_patch(Rectangle((x, y + (len(colors) - 1 - n) * height), 1.0, 0.8 * height, fc=color, ec=INK, lw=0.7))


def path(ax):
    ax.text(0.3, 5.2, 'b)  The convolution path, for each of the d channels of a head', size=12, weight='bold')
    stack(ax, 1.1, 0.9, HEADS * [MARK] + HEADS * [BLUE] + HEADS * [GREY], 0.32)
    for y, name in ((4.0, 'q'), (2.75, 'k'), (1.45, 'v')):
        ax.text(0.85, y, name, size=11, ha='right', va='center')
    ax.text(1.6, 0.45, f'3 N maps (N = {HEADS} heads)', size=9, ha='center')
    arrow(ax, (2.3, 2.8), (3.3, 2.8))
    box(ax, 3.4, 2.1, 2.5, 1.4, 'fc\n9 sums of the\n3 N maps', ORANGE, 9)
    ax.text(4.65, 1.7, 'one for all channels', size=9, ha='center')
    arrow(ax, (6.0, 2.8), (7.0, 2.8))
    stack(ax, 7.1, 0.95, 9 * [ORANGE], 0.42)
    ax.text(7.6, 0.45, '9 maps', size=9, ha='center')
    for tap in range(9):
        y = 0.95 + (8 - tap) * 0.42
        ax.plot((8.2, 8.75), (y + 0.17, y + 0.17), color=INK, lw=0.8)
        grid(ax, 8.85, y + 0.005, 3, 0.115, {divmod(tap, 3)})
        ax.plot((9.3, 10.6), (y + 0.17, 2.8), color=INK, lw=0.8)
    ax.text(9.0, 0.45, '9 kernels\nthat can learn', size=9, ha='center', va='center')
    ax.text(10.95, 2.8, '+', size=16, ha='center', va='center', bbox=dict(boxstyle='circle', fc='white', ec=INK))
    arrow(ax, (11.35, 2.8), (12.2, 2.8))
    stack(ax, 12.3, 2.15, HEADS * [ORANGE], 0.32)
    ax.text(12.8, 1.75, 'N outputs, each with\n9 kernels of its own', size=9, ha='center', va='center')
    ax.plot((8.6, 8.6, 11.35, 11.35), (4.75, 4.9, 4.9, 4.75), color=INK, lw=0.8)
    ax.text(11.5, 4.85, 'dep_conv: one grouped convolution', size=10, va='center')


def main():
    fig, ax = canvas(17.2, 9.8, 1.55)
    shifts(ax)
    path(ax)
    save(fig, __file__, 'shift.png')


if __name__ == '__main__':
    main()
