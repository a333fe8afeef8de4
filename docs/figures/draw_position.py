"""Draws docs/figures/position.png: why the position code can be subtracted from the keys. Needs matplotlib and torch.

python docs/figures/draw_position.py
"""

import torch
from drawing import canvas, image, save

SIDE, DIM, COLORS = 1.9, 8, 'RdBu_r'


def parts():
    """The summands of one query's logits over a 7 x 7 window, (7, 7) each, and the two softmaxes."""
    generator = torch.Generator().manual_seed(3)
    query, weight = (torch.randn(*shape, generator=generator) for shape in ((DIM,), (2, DIM)))
    keys = torch.randn(7, 7, DIM, generator=generator)
    place = torch.linspace(-0.6, 0.6, 7)
    ys, xs = torch.meshgrid(place, place, indexing='ij')
    code = torch.stack([xs, ys], -1) @ weight  # of the pixels of the window
    own = torch.tensor([0.5, -0.4]) @ weight  # of the pixel that asks
    scale = DIM ** -0.5
    summands = [scale * keys @ query, (scale * query @ own).expand(7, 7), -scale * code @ query]
    folded = scale * (keys - code) @ query
    softmaxes = [x.flatten().softmax(0).view(7, 7) for x in (sum(summands), folded)]
    assert torch.allclose(*softmaxes, atol=1e-6)
    return summands, folded, softmaxes


def main():
    (dots, constant, slope), folded, softmaxes = parts()
    fig, ax = canvas(15.2, 6.6, 1.6)
    most = max(x.abs().max().item() for x in (dots, constant, slope, folded))
    top = max(x.max().item() for x in softmaxes)
    upper, lower = 3.9, 0.5
    columns = (0.3, 3.4, 6.5, 9.6)
    shown = ((dots, '$q_i\\cdot k_j$'), (constant, '$q_i\\cdot p_i$'), (slope, '$-\\ q_i\\cdot p_j$'))
    for x, (values, title) in zip(columns, shown):
        image(ax, x, upper, SIDE, values.tolist(), COLORS, (-most, most))
        ax.text(x + SIDE / 2, upper + SIDE + 0.2, title, size=12, ha='center')
    for x in columns[1:3]:
        ax.text(x - 0.6, upper + SIDE / 2, '+', size=16, ha='center', va='center')
    ax.text(columns[1] + SIDE / 2, upper - 0.3, 'one number\nfor the whole window', size=9, ha='center', va='top')
    image(ax, columns[2], lower, SIDE, folded.tolist(), COLORS, (-most, most))
    ax.text(columns[2] + SIDE / 2, lower + SIDE + 0.2, '$q_i\\cdot (k_j - p_j)$', size=12, ha='center')
    for y, values in zip((upper, lower), softmaxes):
        ax.annotate(
            '', (12.3, y + SIDE / 2), (8.8, y + SIDE / 2), arrowprops=dict(arrowstyle='-|>', lw=1.2, color='#222222')
        )
        ax.text(10.5, y + SIDE / 2 + 0.15, 'softmax', size=11, ha='center')
        image(ax, 12.5, y, SIDE, values.tolist(), 'Greys', (0, top))
    ax.text(12.5 + SIDE / 2, (upper + lower + SIDE) / 2, 'the same weights', size=11, ha='center', va='center')
    save(fig, __file__, 'position.png')


if __name__ == '__main__':
    main()
