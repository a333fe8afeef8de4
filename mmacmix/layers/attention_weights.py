"""Where one pixel attends, read off the attention path as it runs.

The output of attention is linear in the values, and its derivatives by them are the weights: whatever the window, the
border or the implementation, they need no second copy of the mathematics.
"""

from typing import Callable, Sequence

import torch
from torch import Tensor, nn


def check_pixel(layer: nn.Module, shape: Sequence[int], row: int, col: int) -> None:
    """Checks that ``layer`` attends, and that its output for an input of this shape has the pixel (row, col).

    Raises:
        ValueError: It does not, or has not.
    """
    if 'attention' not in layer.paths or layer.merged is not None:
        raise ValueError(
            "attention_weights must meet a layer with the path 'attention', before switch_to_deploy, "
            f'got paths={layer.paths}' + (' after it' if layer.merged is not None else '')
        )
    size = layer.output_shape(shape)
    rows, cols = size[1:3] if layer.channels_last else size[2:]
    for name, value, length in (('row', row, rows), ('col', col, cols)):
        if not isinstance(value, int) or not 0 <= value < length:
            raise ValueError(f'{name} must be an integer in [0, {length}), got {name}={value!r}')


def derivative(attend: Callable[[Tensor], Tensor], projection: Tensor) -> Tensor:
    """Gradient of the sum of ``attend(projection)`` by its argument."""
    with torch.enable_grad():
        projection = projection.detach().requires_grad_()
        return torch.autograd.grad(attend(projection).sum(), projection)[0]
