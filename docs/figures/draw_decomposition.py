"""Draws docs/figures/decomposition.png: convolution and self-attention in the same two stages. Needs matplotlib.

python docs/figures/draw_decomposition.py
"""

from drawing import BLUE, GREY, INK, ORANGE, arrow, box, canvas, circle, frame, grid, save
from matplotlib.patches import Rectangle

ROWS = (5.6, 4.2, 2.3)  # of the projections that are drawn


def shifted(ax, x, y, dx, dy):
    """A map that has moved inside of its frame."""
    ax.add_patch(Rectangle((x, y), 0.9, 0.9, fc='white', ec='#888888', ls=':'))
    ax.add_patch(Rectangle((x + 0.2 * dx, y + 0.2 * dy), 0.9, 0.9, fc=ORANGE, ec=INK, lw=0.9))


def convolution(ax):
    ax.text(0.85, 5.35, '3 x 3\nconvolution', size=12, weight='bold', ha='center', va='center')
    box(ax, 0.2, 3.8, 1.3, 1.0, 'map\nC x H x W', GREY, 8)
    taps = (((0, 0), 1, -1), ((0, 1), 0, -1), ((2, 2), -1, 1))
    for y, ((i, j), dx, dy) in zip(ROWS, taps):
        box(ax, 3.6, y, 2.7, 0.85, f'1 x 1 by $K_{{{i}{j}}}$', GREY, 11)
        grid(ax, 2.75, y + 0.12, 3, 0.2, {(i, j)})
        arrow(ax, (1.55, 4.3), (2.7, y + 0.42))
        arrow(ax, (6.35, y + 0.42), (8.0, y + 0.42))
        shifted(ax, 8.25, y, dx, dy)
        arrow(ax, (9.5, y + 0.42), (11.12, 4.3 + 0.1 * (y - 4.2)))
    for x in (4.95, 8.7):
        ax.text(x, 3.68, '...  nine of them  ...', size=9, ha='center', va='center')
    circle(ax, 11.55, 4.3, '+')
    arrow(ax, (11.95, 4.3), (12.75, 4.3))
    box(ax, 12.8, 3.8, 1.3, 1.0, 'map\nC x H x W', GREY, 8)


def attention(ax):
    ax.text(0.85, 0.75, 'self-\nattention', size=12, weight='bold', ha='center', va='center')
    box(ax, 0.2, -0.75, 1.3, 1.0, 'map\nC x H x W', GREY, 8)
    for y, name in ((0.75, 'q'), (-0.7, 'k'), (-2.15, 'v')):
        box(ax, 3.6, y, 2.7, 0.9, f'1 x 1  ->  {name}', GREY, 11)
        arrow(ax, (1.55, -0.25), (3.52, y + 0.45))
    box(ax, 8.0, -0.35, 2.4, 1.2, 'softmax of q . k\nover the window', BLUE, 9)
    arrow(ax, (6.35, 1.2), (7.95, 0.45))
    arrow(ax, (6.35, -0.25), (7.95, 0.15))
    arrow(ax, (6.35, -1.7), (10.95, -1.35))
    box(ax, 11.0, -1.75, 1.1, 0.9, 'sum\nof v', BLUE, 9)
    arrow(ax, (10.45, -0.1), (11.1, -0.8))
    arrow(ax, (12.15, -1.3), (12.75, -1.3))
    box(ax, 12.8, -1.8, 1.3, 1.0, 'map\nC x H x W', GREY, 8)


def main():
    fig, ax = canvas(14.4, 10.7, 1.35)
    ax.set_ylim(-2.8, 7.9)
    frame(ax, 2.45, -2.6, 4.2, 9.35, 'Stage I: 1 x 1 projections\nmultiply-adds grow with C$^2$')
    frame(ax, 7.4, -2.6, 5.0, 9.35, 'Stage II: shift and sum, or weigh and sum\nmultiply-adds grow with C')
    convolution(ax)
    attention(ax)
    save(fig, __file__, 'decomposition.png')


if __name__ == '__main__':
    main()
