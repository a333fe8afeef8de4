"""What running statistics cost: `python tools/evidence/batch_norm.py --data data`, for docs/evidence.md.

Tests the weights that run.py left, as they are and with each batch of held-out images normalised by its own statistics
as in training, and counts the images on which the backbone's maps grow out of bounds. Trains nothing.
"""

import argparse
import itertools
import statistics
import sys
import tempfile
from pathlib import Path
from typing import List, Optional, Tuple

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

#: An image's maps have grown where their largest entry is so many times the median image's.
GROWN = 10.0


class BatchStatisticsHook(Hook):
    """Normalises a batch by its own statistics in a test; the running ones stay as they are."""

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
        usual = statistics.median_low(self.values)
        return sum(value > GROWN * usual for value in self.values)


def test(cfg: Config, weights: Path, batch: int, own: bool, folder: str) -> Tuple[float, LargestEntries]:
    """The figure that decides, in percent, and the backbone's largest entries.

    Args:
        cfg: Of a row.
        weights: Checkpoint.
        batch: Images at a time.
        own: Whether the batch's own statistics normalise it.
        folder: For logs.
    """
    cfg = cfg.copy()
    cfg.test_dataloader.batch_size = batch
    cfg.work_dir, cfg.load_from = folder, str(weights)
    cfg.experiment_name = f'{weights.parent.name}_{"own" if own else "running"}'
    runner = Runner.from_cfg(cfg)
    if own:
        runner.register_hook(BatchStatisticsHook())
    entries = LargestEntries()
    runner.model.backbone.register_forward_hook(entries)
    task = TASKS[weights.parent.name.partition('_')[0]]
    return runner.test()[next(iter(task.metrics))] * task.factor, entries


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--tasks', nargs='+', default=['bccd'], choices=TASKS, help='default: bccd')
    parser.add_argument('--rows', nargs='+', default=['san-norm'], metavar='ROW', help='as of run.py (san-norm)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], metavar='N', help='default: 0')
    parser.add_argument('--data', type=Path, default=Path('data'), metavar='DIR', help='as of run.py (%(default)s)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/evidence'), metavar='DIR', help='as of run.py')
    args = parser.parse_args(argv)
    try:
        rows = expand(args.rows)
    except ValueError as error:
        parser.error(f'--{error}')
    runs = [Run(task, row, seed) for task, row, seed in itertools.product(args.tasks, rows, args.seeds)]
    for run in runs:
        if finished_fingerprint(args.out / run.name) != digest(run.config()):
            parser.error(f'--out must have the weights of {run.name}, which run.py makes, got --out {args.out}')
    lines = [['run', 'running statistics', 'statistics of batches of 8', 'images with grown maps'], ['---'] * 4]
    with tempfile.TemporaryDirectory() as folder:
        for run in runs:
            cfg = Config.fromfile(run.config())
            cfg.merge_from_dict(data_options(run.task, args.data))
            weights = args.out / run.name / 'weights.pth'
            figure, entries = test(cfg, weights, 1, False, folder)
            own, _ = test(cfg, weights, cfg.train_dataloader.batch_size, True, folder)
            lines.append([f'{label(run.row)}, seed {run.seed}', f'{figure:.1f}', f'{own:.1f}',
                          f'{entries.grown()} of {len(entries.values)}'])
            print(lines[-1], flush=True)
    print(markdown(lines))
    return 0


if __name__ == '__main__':
    sys.exit(main())
