"""An exported backbone beside PyTorch: outputs at several sizes, and time."""

import time
from pathlib import Path
from statistics import median
from typing import Callable, List, NamedTuple, Sequence, Tuple

import torch
from torch import Tensor, nn

TOLERANCE = 1e-4  # of the greatest value of a map


class Refused(Exception):
    """An export that cannot be, or must not be used; says why."""


class Comparison(NamedTuple):
    """At one size: greatest difference as a share of the greatest value, and seconds of a call."""

    batch: int
    height: int
    width: int
    error: float
    torch_s: float
    exported_s: float


def in_channels(model: nn.Module) -> int:
    return next(module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d))


def sizes_to_check(shape: Tuple[int, int], fixed_size: bool, least: int) -> List[Tuple[int, int, int]]:
    """Batch, height and width, first those that the record was not made with; no side is below ``least``."""
    height, width = shape
    if fixed_size:
        return [(1, height, width), (3, height, width)]
    # Odd sizes, one window, many windows, taller than wide.
    sizes = [(1, 97, 131), (3, 64, 65), (1, 230, 500), (2, 301, 224), (1, 417, 235), (1, height, width)]
    return [size for size in sizes if min(size[1:]) >= least]


def compare(
    model: nn.Module, call: Callable[[Tensor], Sequence[Tensor]], size: Tuple[int, int, int], rounds: int
) -> Comparison:
    """
    Args:
        model: The backbone.
        call: :func:`runner` of the exported one.
        size: Batch, height and width.
        rounds: Timed calls; 0 times none.

    Raises:
        Refused: The exported model does not run at this size, or has other outputs than PyTorch.
    """
    batch, height, width = size
    at = f'at {batch} x {height} x {width}'
    image = torch.randn(batch, in_channels(model), height, width)
    with torch.inference_mode():
        expected = model(image)
        try:
            found = call(image)
        except Exception as error:  # the runtimes' own
            raise Refused(f'the exported model does not run {at}: {error}') from error
        worst = max_error(found, expected)
        if not worst <= TOLERANCE:
            raise Refused(f'outputs of the exported model {at} differ from those of PyTorch by {worst:.1e}, '
                          f'{TOLERANCE:.0e} is allowed')
        seconds = time_in_turns((model, call), image, rounds) if rounds else [float('nan')] * 2
    return Comparison(*size, worst, *seconds)


def runner(path: Path) -> Callable[[Tensor], Sequence[Tensor]]:
    """A function of the image that runs the exported model."""
    if path.suffix == '.pt2':
        return torch.export.load(path).module()
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return lambda image: [torch.from_numpy(x) for x in session.run(None, {'image': image.numpy()})]


def max_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Greatest difference of any map, as a share of its greatest value; infinite for other shapes or NaN."""
    if [x.shape for x in found] != [x.shape for x in expected]:
        return float('inf')
    errors = [((a - b).abs().max() / b.abs().max().clamp_min(1e-30)).item() for a, b in zip(found, expected)]
    return max(errors) if all(error == error for error in errors) else float('inf')


def time_in_turns(calls: Sequence[Callable], image: Tensor, rounds: int) -> List[float]:
    """Median seconds of each, one after the other in every round."""
    seconds: List[List[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, seconds):
            start = time.perf_counter()
            call(image)
            taken.append(time.perf_counter() - start)
    return [median(taken) for taken in seconds]


def table(results: Sequence[Comparison], runtime: str) -> str:
    lines = [f'| images | error | PyTorch ms | {runtime} ms | times as fast as PyTorch |', '|---|---|---|---|---|']
    for r in results:
        timed = r.torch_s == r.torch_s
        cells = [''] * 3
        if timed:
            cells = [f'{r.torch_s * 1e3:.0f}', f'{r.exported_s * 1e3:.0f}', f'{r.torch_s / r.exported_s:.2f}']
        lines.append(f'| {r.batch} x {r.height} x {r.width} | {r.error:.0e} | {" | ".join(cells)} |')
    return '\n'.join(lines)
