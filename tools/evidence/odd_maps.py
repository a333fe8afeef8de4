"""What the border of odd maps costs on CamVid: `python tools/evidence/odd_maps.py`, for docs/evidence.md.

Tests the weights that run.py left of ResNet-ACmix-26 and ResNet-26, with the layers as they are and otherwise, and
prints a table. Trains nothing.
"""

import argparse
import contextlib
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional
from unittest import mock

TOOLS = Path(__file__).resolve().parents[1]
sys.path += [str(TOOLS), str(TOOLS / 'evidence'), str(TOOLS / 'demo')]
import torch  # noqa: E402
from mmcv.transforms import BaseTransform  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.registry import TRANSFORMS  # noqa: E402
from mmengine.runner import Runner  # noqa: E402
from results import SEEDS, markdown, spread  # noqa: E402
from rows import RESNET, TASKS, Run, data_options, digest, label  # noqa: E402
from stages import finished_fingerprint  # noqa: E402
from torch import Tensor  # noqa: E402

from mmacmix.layers import ACmix  # noqa: E402

TASK, PLAIN = 'camvid', 'resnet-26'
#: Side of the crops in training.
CROP = TASKS[TASK].shape[0]
continued, attend, convolve, code = ACmix._continued, ACmix._attend, ACmix._convolve, ACmix.position_code


@TRANSFORMS.register_module(force=True)
class UpperRows(BaseTransform):
    """Leaves the first ``rows`` rows of an image and its labels."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def transform(self, results: dict) -> dict:
        for name in ('img', 'gt_seg_map'):
            results[name] = results[name][:self.rows]
        results['img_shape'] = results['ori_shape'] = results['img'].shape[:2]
        return results


def not_continued(layer: ACmix, x: Tensor) -> Tensor:
    return x


def code_of_a_crop(layer: ACmix, x: Tensor) -> Tensor:
    """The position code in the steps that it has on a map of a crop."""
    side = CROP // 4 * 64 // layer.out_channels * layer.stride  # 64 channels at 1/4 of the image, 128 at 1/8, ...

    def places(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        return (torch.arange(length, dtype=dtype, device=device) - (length - 1) / 2) * (2 / (side - 1))

    with mock.patch('mmacmix.layers.acmix._places', places):
        return code(layer, x)


class Variant(NamedTuple):
    """A way to test the weights.

    Attributes:
        name: In the table.
        methods: Of ACmix, that are replaced.
        options: Of the config.
        rows: Of the images that are left; 0 leaves all.
    """

    name: str
    methods: Dict[str, Callable] = {}
    options: Dict[str, object] = {}
    rows: int = 0


ZEROS = dict(_continued=not_continued)
WINDOWS = {
    'model.test_cfg.mode': 'slide', 'model.test_cfg.crop_size': (CROP, CROP),
    'model.test_cfg.stride': (CROP // 2, CROP // 2)}
VARIANTS = (
    Variant('images whole, zeros behind odd maps', ZEROS),
    Variant(f'in windows of {CROP} x {CROP} every {CROP // 2} pixels', options=WINDOWS),
    Variant('the upper 352 rows, so that all maps are even', rows=352),
    Variant('zeros, and the position code with the steps of a crop', dict(ZEROS, position_code=code_of_a_crop)),
    Variant('zeros, the last row and column repeated for attention alone', dict(
        ZEROS, _attend=lambda layer, qkv, x: attend(layer, continued(layer, qkv), continued(layer, x)))),
    Variant('zeros, the last row and column repeated for convolution alone', dict(
        ZEROS, _convolve=lambda layer, qkv, merged: convolve(layer, continued(layer, qkv), merged))),
    Variant('the layer as it is'),
)


@contextlib.contextmanager
def replaced(methods: Dict[str, Callable]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name, method in methods.items():
            stack.enter_context(mock.patch.object(ACmix, name, method))
        yield


def figure(cfg: Config, weights: Path, variant: Variant, folder: str) -> float:
    """mIoU in percent."""
    cfg = cfg.copy()
    cfg.merge_from_dict(variant.options)
    if variant.rows:
        pipeline = cfg.test_dataloader.dataset.pipeline
        cfg.test_dataloader.dataset.pipeline = [*pipeline[:-1], dict(type='UpperRows', rows=variant.rows), pipeline[-1]]
    cfg.work_dir, cfg.load_from = folder, str(weights)
    cfg.experiment_name = f'{cfg.filename}_{weights.parent.name}_{VARIANTS.index(variant)}'.replace('/', '_')
    with replaced(variant.methods):
        return Runner.from_cfg(cfg).test()[next(iter(TASKS[TASK].metrics))]


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seeds', nargs='+', type=int, default=list(SEEDS), metavar='N', help='default: all')
    parser.add_argument('--data', type=Path, default=Path('data'), metavar='DIR', help='as of run.py (%(default)s)')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/evidence'), metavar='DIR', help='as of run.py')
    args = parser.parse_args(argv)
    runs = [Run(TASK, row, seed) for row in (RESNET, PLAIN) for seed in args.seeds]
    for run in runs:
        if finished_fingerprint(args.out / run.name) != digest(run.config()):
            parser.error(f'--out must have the weights of {run.name}, which run.py makes, got --out {args.out}')
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        for run, variant in itertools.product(runs, VARIANTS):
            if run.row != RESNET and variant.methods:  # it has no ACmix
                continue
            cfg = Config.fromfile(run.config())
            cfg.merge_from_dict(data_options(TASK, args.data))
            value = figure(cfg, args.out / run.name / 'weights.pth', variant, folder)
            figures.setdefault((variant.name, run.row), []).append(value)
            print(f'{run.name}, {variant.name}: {value:.2f}', flush=True)
    lines = [['mIoU', label(RESNET), label(PLAIN)], ['---'] * 3]
    for variant in VARIANTS:
        values = [figures.get((variant.name, row)) for row in (RESNET, PLAIN)]
        lines.append([variant.name, *(str(spread(some)) if some else '' for some in values)])
    print(markdown(lines))
    return 0


if __name__ == '__main__':
    sys.exit(main())
