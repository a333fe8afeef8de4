"""Draws what rows predict on held-out images, beside the truth: `python tools/evidence/draw_predictions.py bccd`.

Wants the weights that run.py left of seed 0. On white, as docs/evidence.md shows it, or with --photographs on the
images themselves, which are not ours to publish. One process serves one host, so one task at a time.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Dict, List, Optional

TOOLS = Path(__file__).resolve().parents[1]
sys.path += [str(TOOLS), str(TOOLS / 'evidence'), str(TOOLS / 'demo')]
import cv2  # noqa: E402
import numpy as np  # noqa: E402
from mmengine.config import Config  # noqa: E402
from pictures import contact_sheet, load  # noqa: E402
from rows import CONFIGS, GROUPS, ROOT, ROWS, TASKS, Run, data_options, digest, expand, label  # noqa: E402
from stages import finished_fingerprint  # noqa: E402


def draw(kind: str, config: Config, weights: Path, indices: List[int], photographs: bool, folder: Path) -> None:
    """Writes truth_I.png and prediction_I.png of images of the test set.

    Args:
        kind: 'detection' or 'segmentation'.
        config: What the weights were trained with.
        weights: Checkpoint.
        indices: Of images.
        photographs: Whether to draw on the image, else on white.
        folder: For the pictures.
    """
    import torch
    from mmengine.dataset import pseudo_collate

    dataset, model, visualizer = load(kind, config, weights)
    for index in indices:
        with torch.no_grad():
            sample = model.test_step(pseudo_collate([dataset[index]]))[0]
        image = cv2.imread(sample.img_path)[..., ::-1]
        image = np.ascontiguousarray(image) if photographs else np.full_like(image, 255)
        for name, truth in (('truth', True), ('prediction', False)):
            np.random.seed(0)  # the visualiser varies its colours a little at random
            visualizer.add_datasample(
                name, image, sample, draw_gt=truth, draw_pred=not truth, out_file=str(folder / f'{name}_{index}.png'))


def sheet(task: str, weights: Dict[str, Path], configs: Path, data: Path, count: int, photographs: bool) -> np.ndarray:
    """All rows on one page: an image in each line, with the truth first.

    Args:
        task: A key of TASKS.
        weights: Checkpoints by row.
        configs: Folder of the rows' configs.
        data: Folder with the task's data.
        count: Number of images, evenly spaced.
        photographs: As for :func:`draw`.

    Returns:
        uint8 BGR.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for place, (row, file) in enumerate(weights.items()):
            cfg = Config.fromfile(Run(task, row, 0).config(configs))
            cfg.merge_from_dict(data_options(task, data))
            if not paths:
                total = len(_test_images(cfg))
                indices = np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist()
                paths = [[Path(folder) / '0' / f'truth_{index}.png'] for index in indices]
            out = Path(folder) / str(place)
            out.mkdir()
            draw(TASKS[task].kind, cfg, file, indices, photographs, out)
            for line, index in zip(paths, indices):
                line.append(out / f'prediction_{index}.png')
        title = f'From left to right: truth; {"; ".join(label(row) for row in weights)}'
        return contact_sheet([path for line in paths for path in line], title, columns=1 + len(weights))


def _test_images(cfg: Config):
    from mmengine.registry import DATASETS, init_default_scope

    init_default_scope(cfg.default_scope)
    return DATASETS.build(cfg.test_dataloader.dataset)


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=f'Groups of rows: {", ".join(GROUPS)}. Rows: {", ".join(ROWS)}.')
    parser.add_argument('task', choices=TASKS)
    parser.add_argument('--rows', nargs='+', default=['pass'], metavar='ROW', help='rows or groups (default: pass)')
    parser.add_argument('--data', type=Path, default=Path('data'), metavar='DIR', help='as of run.py (%(default)s)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/evidence'), metavar='DIR', help='as of run.py')
    parser.add_argument('--configs', type=Path, default=CONFIGS, metavar='DIR', help='configs of the rows')
    parser.add_argument('--count', type=int, default=3, metavar='N', help='images (%(default)s)')
    parser.add_argument('--photographs', action='store_true', help='draw on the photographs')
    parser.add_argument('--into', type=Path, metavar='FILE', help='default: docs/evidence/TASK_predictions.png')
    args = parser.parse_args(argv)
    try:
        rows = expand(args.rows)
    except ValueError as error:
        parser.error(f'--{error}')
    weights = {row: args.out / Run(args.task, row, 0).name / 'weights.pth' for row in rows}
    for row, file in weights.items():
        made_with = finished_fingerprint(file.parent)
        if not file.is_file() or made_with != digest(Run(args.task, row, 0).config(args.configs)):
            parser.error(f'--out must have {file.parent.name}/{file.name}, which run.py makes with the config as it is '
                         f'now, got --out {args.out}')
    if args.photographs and args.into is None:
        parser.error('--into must say where pictures with photographs go')
    into = args.into or ROOT / 'docs' / 'evidence' / f'{args.task}_predictions.png'
    into.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(into), sheet(args.task, weights, args.configs, args.data, args.count, args.photographs))
    print(into)
    return 0


if __name__ == '__main__':
    sys.exit(main())
