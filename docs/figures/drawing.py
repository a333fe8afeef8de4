"""What the figures share: colours, boxes, arrows and small grids. Needs matplotlib."""

from pathlib import Path
from typing import Collection, Sequence, Tuple

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

BLUE, ORANGE, GREY, INK, MARK = '#dbe8f6', '#fbe5cf', '#eeeeee', '#222222', '#4a86c5'


def canvas(width: float, height: float, scale: float = 1.5):
    """A figure whose axes count in boxes from the lower left corner, ``scale`` of them to an inch."""
    fig, ax = plt.subplots(figsize=(width / scale, height / scale), dpi=130)
    ax.set_xlim(0, width)
    ax.set_ylim(0, height)
    ax.set_aspect('equal')
    ax.axis('off')
    return fig, ax


def box(ax, x: float, y: float, width: float, height: float, text: str, color: str, size: float = 11) -> None:
    ax.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle='round,pad=0.02,rounding_size=0.12', fc=color, ec=INK, lw=1.1
        )
    )
    ax.text(x + width / 2, y + height / 2, text, ha='center', va='center', size=size, color=INK)


def arrow(ax, start: Tuple[float, float], end: Tuple[float, float]) -> None:
    ax.add_patch(FancyArrowPatch(start, end, arrowstyle='-|>', mutation_scale=13, lw=1.2, color=INK))


def circle(ax, x: float, y: float, text: str) -> None:
    ax.text(x, y, text, size=16, ha='center', va='center', bbox=dict(boxstyle='circle', fc='white', ec=INK))


def grid(
    ax, x: float, y: float, n: int, cell: float, marked: Collection[Tuple[int, int]], color: str = MARK
) -> None:
    """n x n cells with the upper left corner of the first row at the top; ``marked`` are (row, column)."""
    for i in range(n):
        for j in range(n):
            fill = color if (i, j) in marked else 'white'
            corner = (x + j * cell, y + (n - 1 - i) * cell)
            ax.add_patch(Rectangle(corner, cell, cell, fc=fill, ec='#888888', lw=0.5))


def frame(ax, x: float, y: float, width: float, height: float, title: str, size: float = 11) -> None:
    """A dashed frame with a title above it."""
    ax.add_patch(Rectangle((x, y), width, height, fc='none', ec='#999999', ls='--'))
    ax.text(x + width / 2, y + height + 0.15, title, ha='center', va='bottom', size=size)


def image(ax, x: float, y: float, side: float, values: Sequence, cmap: str, limits: Tuple[float, float]) -> None:
    """A matrix as a picture with thin lines between its entries."""
    n = len(values)
    ax.imshow(values, cmap=cmap, vmin=limits[0], vmax=limits[1], extent=(x, x + side, y, y + side), zorder=1)
    for i in range(n + 1):
        at = side * i / n
        ax.plot((x, x + side), (y + at, y + at), color='#bbbbbb', lw=0.4, zorder=2)
        ax.plot((x + at, x + at), (y, y + side), color='#bbbbbb', lw=0.4, zorder=2)


def save(fig, script: str, name: str) -> None:
    """Writes ``name`` beside the script that draws it."""
    fig.savefig(Path(script).with_name(name), bbox_inches='tight')
    plt.close(fig)
