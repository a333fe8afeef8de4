"""Draws docs/figures/tile.png: how many keys 16 neighbouring queries read, one by one and together. Needs matplotlib.

python docs/figures/draw_tile.py
"""

from drawing import BLUE, INK, MARK, canvas, grid, save
from matplotlib.patches import Rectangle

CELL, SIDE = 0.42, 14
FIRST = 5  # row and column of the tile's first query


def outline(ax, x, y, row, column, n, color, style):
    """A frame around n x n cells of a map of SIDE x SIDE cells."""
    corner = (x + column * CELL, y + (SIDE - row - n) * CELL)
    ax.add_patch(Rectangle(corner, n * CELL, n * CELL, fc='none', ec=color, lw=2, ls=style, zorder=3))


def cells(row, column, n):
    return {(row + i, column + j) for i in range(n) for j in range(n)}


def main():
    fig, ax = canvas(14.2, 8.0, 1.5)
    for x, title in (
        (0.3, 'written out: every query has its window,\n16 x 49 = 784 copies of keys'),
        (7.6, 'as a tile: 4 x 4 queries share 10 x 10 keys,\n100 copies'),
    ):
        grid(ax, x, 0.3, SIDE, CELL, cells(FIRST - 3, FIRST - 3, 10), BLUE)
        for row, column in cells(FIRST, FIRST, 4):
            corner = (x + column * CELL, 0.3 + (SIDE - row - 1) * CELL)
            ax.add_patch(Rectangle(corner, CELL, CELL, fc=MARK, ec='#888888', lw=0.5))
        ax.text(x + SIDE * CELL / 2, 0.3 + SIDE * CELL + 0.25, title, size=11, ha='center', va='bottom')
    for row, column, color, style in ((5, 5, INK, '-'), (5, 8, '#b03a2e', '--'), (8, 6, '#1e7b4d', ':')):
        outline(ax, 0.3, 0.3, row - 3, column - 3, 7, color, style)
        ax.plot(0.3 + (column + 0.5) * CELL, 0.3 + (SIDE - row - 0.5) * CELL, 'o', color=color, ms=6, zorder=4)
    outline(ax, 7.6, 0.3, FIRST, FIRST, 4, INK, '-')
    outline(ax, 7.6, 0.3, FIRST - 3, FIRST - 3, 10, INK, '-')
    save(fig, __file__, 'tile.png')


if __name__ == '__main__':
    main()
