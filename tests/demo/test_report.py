import json

import cv2
import pytest
from report import draw_curves, read_scalars, table, test_metrics
from stages import StepFailed

# Its name makes pytest take it for a test.
test_metrics.__test__ = False


def write(path, *entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text('\n'.join(json.dumps(entry) for entry in entries))


def test_newest_metrics_count(tmp_path):
    write(tmp_path / '20250102_000000' / '20250102_000000.json', {'mIoU': 70.0})
    write(tmp_path / '20250101_000000' / '20250101_000000.json', {'mIoU': 60.0})
    assert test_metrics(tmp_path) == {'mIoU': 70.0}


def test_missing_metrics_are_reported(tmp_path):
    with pytest.raises(StepFailed, match='The test must leave its metrics .* got none in'):
        test_metrics(tmp_path)


def test_scalars_of_a_resumed_training_are_joined(tmp_path):
    first, second = (tmp_path / f'2025010{i}_000000/vis_data/scalars.json' for i in (1, 2))
    write(first, {'loss': 3.0, 'step': 20, 'iter': 20}, {'loss': 9.0, 'step': 40, 'iter': 40})
    with first.open('a') as file:
        file.write('\n{"loss": 8.')
    write(second, {'loss': 2.0, 'step': 40, 'iter': 40}, {'mIoU': 61.0, 'step': 40})
    assert read_scalars(tmp_path) == {'loss': [(20, 3.0), (40, 2.0)], 'mIoU': [(40, 61.0)]}


def test_curves_show_losses_and_metrics(tmp_path):
    entries = [{'loss': 3.0 / step, 'loss_cls': 1.0 / step, 'step': step} for step in range(1, 9)]
    write(tmp_path / 'run/vis_data/scalars.json', *entries)
    draw_curves(tmp_path, {'mIoU': ('mIoU', 0.01)}, 'Model', tmp_path / 'without.png')
    write(tmp_path / 'run/vis_data/scalars.json', *entries, {'mIoU': 61.0, 'step': 8})
    draw_curves(tmp_path, {'mIoU': ('mIoU', 0.01)}, 'Model', tmp_path / 'with.png')
    without, both = (cv2.imread(str(tmp_path / f'{name}.png')) for name in ('without', 'with'))
    half = both.shape[1] // 2
    assert (both[:, half:] != without[:, half:]).any()
    # matplotlib's first colour, of the first line of a plot.
    blue = (both == (180, 119, 31)).all(axis=2)
    assert blue[:, :half].any() and blue[:, half:].any()


def test_missing_losses_are_reported(tmp_path):
    with pytest.raises(StepFailed, match='The training must leave its losses'):
        draw_curves(tmp_path, {}, 'Model', tmp_path / 'curves.png')


def test_table():
    rows = [
        {'model': 'Detector', 'box AP50': 0.61234, 'minutes': 4.26},
        {'model': 'Segmenter', 'mIoU': 0.7, 'minutes': 3.0},
    ]
    assert table(rows, ['model', 'box AP50', 'mIoU', 'minutes']).splitlines() == [
        'model      box AP50   mIoU  minutes',
        '---------  --------  -----  -------',
        'Detector      0.612      -      4.3',
        'Segmenter         -  0.700      3.0',
    ]
