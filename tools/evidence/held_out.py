"""Tests weights in other ways: `python tools/evidence/held_out.py bccd --rows san`, for docs/evidence.md.

Those that run.py left, on held-out images: as they are, with each batch normalised by its own statistics as in
training, and segmenters in windows of the size that they were trained on; and counts the images on which the
backbone's maps grow out of bounds. Trains nothing.
"""

import argparse
import itertools
import math
import sys
import tempfile
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

TOOLS = Path(__file__).resolve().parents[1]
sys.path += [str(TOOLS), str(TOOLS / 'evidence'), str(TOOLS / 'demo')]
from mmengine.config import Config  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from results import markdown  # noqa: E402
from rows import TASKS, Run, data_options, digest, expand, label  # noqa: E402
from stages import finished_fingerprint  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from torch.nn.modules.batchnorm import _BatchNorm  # noqa: E402

#: An image's maps have grown where their largest entry is so many times that of the image which a quarter stays below.
GROWN = 10.0


class BatchStatisticsHook(Hook):
    """Normalises a batch by its own statistics in a test; of finite maps the running ones stay as they are."""

    def before_test_iter(self, runner: Runner, *_, **__) -> None:
        for module in runner.model.modules():
            if isinstance(module, _BatchNorm):
                module.train().momentum = 0.0


class LargestEntries:
    """Forward hook of a backbone.

    Attributes:
        values: Of each image so far, the largest entry of its last map; infinite where one is not finite.
    """

    def __init__(self) -> None:
        self.values: List[float] = []

    def __call__(self, module: nn.Module, _: tuple, maps: Tuple[Tensor, ...]) -> None:
        largest = maps[-1].abs().flatten(1).amax(1)
        self.values += largest.where(largest.isfinite(), largest.new_tensor(float('inf'))).tolist()

    def grown(self) -> int:
        """How many images have grown maps."""
        usual = sorted(self.values)[len(self.values) // 4]
        return sum(math.isinf(value) or value > GROWN * usual for value in self.values)


class Way(NamedTuple):
    """A way to test weights.

    Attributes:
        name: In the table.
        own: Whether the statistics of a batch, as large as in training, normalise it.
        windows: Whether an image is tested in windows of the size of the crops in training; of segmenters.
    """

    name: str
    own: bool = False
    windows: bool = False


WAYS = (
    Way('as they are'),
    Way('statistics of the batch', own=True),
    Way("windows of the crops' size", windows=True),
)


def test(run: Run, way: Way, data: Path, weights: Path, folder: str) -> Tuple[float, LargestEntries]:
    """The figure that decides, in percent, and the backbone's largest entries.

    Args:
        run: What the weights are of.
        way: How they are tested.
        data: As for data_options.
        weights: Checkpoint.
        folder: For logs.
    """
    cfg = Config.fromfile(run.config())
    cfg.merge_from_dict(data_options(run.task, data))
    if way.own:
        cfg.test_dataloader.batch_size = cfg.train_dataloader.batch_size
    if way.windows:
        cfg.model.test_cfg = dict(mode='slide', crop_size=run.shape, stride=tuple(side // 2 for side in run.shape))
    cfg.work_dir, cfg.load_from = folder, str(weights)
    cfg.experiment_name = f'{run.name}_{WAYS.index(way)}'
    runner = Runner.from_cfg(cfg)
    if way.own:
        runner.register_hook(BatchStatisticsHook())
    entries = LargestEntries()
    runner.model.backbone.register_forward_hook(entries)
    task = TASKS[run.task]
    return runner.test()[next(iter(task.metrics))] * task.factor, entries


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('task', choices=TASKS)
    parser.add_argument('--rows', nargs='+', required=True, metavar='ROW', help='as of run.py')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], metavar='N', help='default: 0')
    parser.add_argument('--data', type=Path, default=Path('data'), metavar='DIR', help='as of run.py (%(default)s)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/evidence'), metavar='DIR', help='as of run.py')
    args = parser.parse_args(argv)
    try:
        rows = expand(args.rows)
    except ValueError as error:
        parser.error(f'--{error}')
    runs = [Run(args.task, row, seed) for row, seed in itertools.product(rows, args.seeds)]
    for run in runs:
        folder = args.out / run.name
        if finished_fingerprint(folder) != digest(run.config()) or not (folder / 'weights.pth').is_file():
            parser.error(f'--out must have the weights of {run.name}, which run.py makes, got --out {args.out}')
    ways = [way for way in WAYS if not way.windows or TASKS[args.task].kind == 'segmentation']
    lines = [[next(iter(TASKS[args.task].metrics.values())), *(way.name for way in ways), 'grown maps']]
    lines.append(['---'] * len(lines[0]))
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            weights = args.out / run.name / 'weights.pth'
            figures, entries = zip(*(test(run, way, args.data, weights, folder) for way in ways))
            lines.append([f'{label(run.row)}, seed {run.seed}', *(f'{figure:.1f}' for figure in figures),
                          f'{entries[0].grown()} of {len(entries[0].values)}'])
            print(lines[-1], flush=True)
    print(markdown(lines))
    return 0


if __name__ == '__main__':
    sys.exit(main())
