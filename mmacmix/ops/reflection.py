"""Reflection borders of any width on maps of any size."""

from typing import Union

import torch
from torch import Tensor


def reflection_index(length: int, pad: int, device=None) -> Tensor:
    """Positions to read so that an axis appears with ``pad`` reflected entries on both sides.

    Position i reads i modulo the period 2 (length - 1), mirrored in its second half. Where
    ``torch.nn.ReflectionPad2d`` is defined (pad < length) this is the same; it goes on for
    wider borders, and an axis of length 1 repeats its only entry.

    Returns:
        int64 indices of shape (length + 2 * pad,), each in [0, length).

    Example:
        >>> reflection_index(3, 4).tolist()
        [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]
    """
    return reflect(torch.arange(-pad, length + pad, device=device), max(2 * (length - 1), 1))


def reflect(place: Tensor, period: Union[int, Tensor]) -> Tensor:
    """Entries that are read at these places of an axis continued by reflection, whose period is 2 (length - 1) or 1."""
    place = place.remainder(period)
    return torch.minimum(place, period - place)


def pad_reflection(x: Tensor, pad: int) -> Tensor:
    """Reflects the last two axes of (..., H, W) into (..., H + 2 pad, W + 2 pad)."""
    for dim in (-2, -1):
        x = x.index_select(dim, reflection_index(x.size(dim), pad, x.device))
    return x


def fold_reflection(grad: Tensor, dim: int, length: int, pad: int) -> Tensor:
    """Transpose of reading an axis through ``reflection_index``: sums what each entry was read for.

    Border rows are added one after the other, so the result does not depend on any thread order.

    Args:
        grad: Gradient of the padded axis, which is overwritten. What lies beyond length + 2 pad is left out.
        dim: The padded axis.
        length: Its length without the border.
        pad: Width of the border on each side.

    Returns:
        View of ``grad`` whose axis ``dim`` has ``length`` entries.
    """
    index = reflection_index(length, pad).tolist()
    for i in [*range(pad), *range(pad + length, length + 2 * pad)]:
        grad.select(dim, pad + index[i]).add_(grad.select(dim, i))
    return grad.narrow(dim, pad, length)
