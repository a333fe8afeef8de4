"""What the demo reads from mmengine's logs: metrics, curves, and the table at the end."""

import json

from scalars import read_scalars
from stages import StepFailed


def test_metrics(folder):
    """The metrics that the newest ``mim test`` left in its work folder.

    Args:
        folder (pathlib.Path): The ``--work-dir`` of the test.

    Returns:
        dict[str, float]: By the names that the host gives them.

    Raises:
        StepFailed: If there are none.
    """
    # Both the folders and the files are named by date and time.
    files = sorted(folder.glob('*/*.json'))
    if not files:
        raise StepFailed(f'The test must leave its metrics as TIME/TIME.json, got none in {folder}')
    return json.loads(files[-1].read_text())


def draw_curves(folder, metrics, title, path):
    """Plot losses and held-out metrics of a training.

    Args:
        folder (pathlib.Path): The ``--work-dir`` of the training.
        metrics (dict[str, tuple[str, float]]): Name in the log and factor to [0, 1], by label.
        title (str): Of the picture.
        path (pathlib.Path): PNG to write.

    Raises:
        StepFailed: If the training left no losses.
    """
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    series = read_scalars(folder)
    if 'loss' not in series:
        raise StepFailed(
            f'The training must leave its losses as TIME/vis_data/scalars.json in {folder}'
        )
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), constrained_layout=True)
    for name, points in sorted(series.items()):
        if 'loss' in name:
            left.plot(*zip(*points), label=name, linewidth=2 if name == 'loss' else 1)
    left.set(xlabel='iteration', ylabel='training loss', ylim=(0, None))
    for label, (name, factor) in metrics.items():
        points = [(step, value * factor) for step, value in series.get(name, [])]
        if points:
            right.plot(*zip(*points), label=label, marker='o')
    right.set(xlabel='iteration', ylabel='on held-out images', ylim=(0, 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def table(rows, columns):
    """Plain text columns, with '-' where a row has no value.

    Args:
        rows (list[dict]): Values by column; fractions are printed with three digits, minutes with
            one, the others as they are.
        columns (list[str]): Their order; the first is aligned to the left.

    Returns:
        str: One line a row, after a head and a rule.

    >>> print(table([{'model': 'A', 'mIoU': 0.5}], ['model', 'mIoU']))
    model   mIoU
    -----  -----
    A      0.500
    """
    cells = [columns]
    for row in rows:
        values = [row.get(column, '-') for column in columns]
        cells.append([_cell(*pair) for pair in zip(columns, values)])
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    cells.insert(1, ['-' * width for width in widths])
    lines = []
    for first, *others in cells:
        padded = [first.ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(others, widths[1:])]
        lines.append('  '.join(padded).rstrip())
    return '\n'.join(lines)


def _cell(column, value):
    if not isinstance(value, float):
        return str(value)
    return f'{value:.1f}' if column == 'minutes' else f'{value:.3f}'
