"""Draws docs/figures/acmix.png: what an ACmix layer computes. Needs matplotlib.

python docs/figures/draw_acmix.py
"""

from drawing import BLUE, GREY, ORANGE, arrow, box, canvas, circle, frame, grid, save


def main():
    fig, ax = canvas(16.5, 6.7)
    frame(ax, 2.0, 0.35, 2.6, 5.6, 'Stage I: shared')
    frame(ax, 5.6, 0.35, 7.6, 5.6, 'Stage II: two light paths')

    box(ax, 0.2, 2.7, 1.1, 0.9, 'map\nC x H x W', GREY, 8)
    for y, name in ((4.4, 'q'), (2.75, 'k'), (1.1, 'v')):
        box(ax, 2.4, y, 1.8, 0.8, f'1 x 1  ->  {name}', GREY)
        arrow(ax, (1.35, 3.15), (2.36, y + 0.4))
        arrow(ax, (4.25, y + 0.4), (5.9, 4.6))
        arrow(ax, (4.25, y + 0.4), (5.9, 1.7))

    box(ax, 5.95, 3.7, 5.0, 1.9, '', BLUE)
    ax.text(6.2, 5.2, 'self-attention', size=11, weight='bold')
    ax.text(6.2, 4.45, 'softmax of q . k over the\n7 x 7 window, sum of v', size=9, va='center')
    grid(ax, 9.4, 3.98, 7, 0.19, {(3, 3)})

    box(ax, 5.95, 0.75, 5.0, 1.9, '', ORANGE)
    ax.text(6.2, 2.25, 'convolution', size=11, weight='bold')
    ax.text(6.2, 1.5, 'fc: 3 N maps -> 9,\nthen 9 learnable shifts', size=9, va='center')
    grid(ax, 9.05, 1.35, 3, 0.2, {(0, 0)})
    grid(ax, 9.75, 1.35, 3, 0.2, {(1, 2)})
    ax.text(10.55, 1.62, '...', size=12)

    for y, name in ((4.65, r'$\times\ \mathrm{rate}_1$'), (1.7, r'$\times\ \mathrm{rate}_2$')):
        arrow(ax, (11.0, y), (11.5, y))
        box(ax, 11.55, y - 0.35, 1.35, 0.7, name, GREY, 11)
        arrow(ax, (12.95, y), (13.95, 3.25 if y > 3 else 3.0))
    circle(ax, 14.2, 3.13, '+')
    arrow(ax, (14.55, 3.13), (15.1, 3.13))
    box(ax, 15.15, 2.7, 1.1, 0.9, 'map\nC x H x W', GREY, 8)

    save(fig, __file__, 'acmix.png')


if __name__ == '__main__':
    main()
