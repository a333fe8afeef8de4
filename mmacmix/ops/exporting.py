"""Forms that torch.export and torch.onnx take down: plain operators, and sizes that stay open."""

from typing import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mmacmix.ops.reflection import reflect


def exporting() -> bool:
    """Whether torch.export or torch.onnx records the operators.

    Then ours are written as plain ones of torch, and axes are filled up, cut and resized by index: a slice or a pad
    would tie the record to the sizes of the example.
    """
    asked = getattr(torch.compiler, 'is_exporting', None) if hasattr(torch, 'compiler') else None
    return bool(asked is not None and asked()) or torch.onnx.is_in_onnx_export()


def whole(length: int, unit: int) -> int:
    """The least multiple of ``unit`` that is no less than ``length``."""
    return (length + unit - 1) // unit * unit  # ONNX divides towards 0, so nothing below 0 must be divided


def fill_up(x: Tensor, dim: int, length: int) -> Tensor:
    """An axis continued by zeros to ``length`` entries, which are no fewer than it has."""
    if exporting():
        return read_or_zero(x, dim, torch.arange(length, device=x.device))
    missing = length - x.size(dim)
    return F.pad(x, (*(0, 0) * (x.dim() - 1 - dim), 0, missing)) if missing else x


def repeat_last(x: Tensor, dim: int, length: int) -> Tensor:
    """An axis continued by copies of its last entry to ``length`` entries, which are no fewer than it has."""
    if exporting() or torch.jit.is_tracing():
        return x.index_select(dim, torch.arange(length, device=x.device).clamp(max=x.size(dim) - 1))
    missing = length - x.size(dim)
    # torch's replication padding has no deterministic gradient on a GPU.
    return torch.cat([x, *[x.narrow(dim, x.size(dim) - 1, 1)] * missing], dim) if missing else x


def read_or_zero(x: Tensor, dim: int, index: Tensor) -> Tensor:
    """Entries of an axis by their places, (n,), none below 0; zeros where a place is behind its end."""
    last = x.size(dim) - 1
    there = (index <= last).to(x.dtype)
    return x.index_select(dim, index.clamp(max=last)) * there.view(-1, *(1,) * (x.dim() - 1 - dim))


def window_rows(x: Tensor, kernel_size: int, stride: int = 1, dilation: int = 1) -> Iterator[Tensor]:
    """What each row of the windows reads on the map continued by reflection.

    Args:
        x: (..., H, W)

    Yields:
        For each row of the windows (..., ceil(H / stride), kernel_size, ceil(W / stride)).
    """
    ys, xs = (_places(n, kernel_size, stride, dilation, x.device) for n in x.shape[-2:])
    for row in ys:
        yield x.index_select(-2, row).index_select(-1, xs.flatten()).unflatten(-1, (kernel_size, -1))


def _places(length: int, kernel_size: int, stride: int, dilation: int, device: torch.device) -> Tensor:
    """Entries of an axis that the windows read, (kernel_size, windows)."""
    centres = torch.arange(0, length, stride, device=device)
    taps = torch.arange(kernel_size, device=device) * dilation - kernel_size // 2 * dilation
    # A tensor: torch.onnx does not take a remainder by an open size.
    period = (2 * torch.arange(length, device=device)[-1:]).clamp(min=1)
    return reflect(taps.unsqueeze(1) + centres, period)


def local_attention_by_rows(
    q: Tensor, k: Tensor, v: Tensor, kernel_size: int, stride: int, dilation: int, scale: float
) -> Tensor:
    """:func:`mmacmix.ops.local_attention`, a row of the windows at a time; the logits are written out."""
    queries = window_rows(q * scale, 1, stride)
    q = next(queries)  # (B, heads, d, H, 1, W)
    logits = torch.cat([(q * row).sum(2) for row in window_rows(k, kernel_size, stride, dilation)], 3)
    probabilities = logits.softmax(3).unsqueeze(2).split(kernel_size, 4)
    rows = window_rows(v, kernel_size, stride, dilation)
    return sum((part * row).sum(4) for part, row in zip(probabilities, rows))


def aggregation_by_rows(v: Tensor, weights: Tensor, kernel_size: int) -> Tensor:
    """:func:`mmacmix.ops.aggregation.aggregation`, a row of the windows at a time."""
    groups = weights.size(1)
    parts = weights.transpose(2, 3).unsqueeze(1).split(kernel_size, 4)  # (B, 1, G, H, k, W) each
    rows = (row.unflatten(1, (-1, groups)) for row in window_rows(v, kernel_size))
    return sum((part * row).sum(4) for part, row in zip(parts, rows)).flatten(1, 2)


def window_mlp_by_rows(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
    """:func:`mmacmix.ops.window_mlp.window_mlp`, a row of the windows at a time."""
    scale, shift, weight = (y.to(x.dtype) for y in (scale, shift, weight))
    total = 0
    for y, row in enumerate(window_rows(x, weight.size(3))):  # (B, C, H, k, W)
        hidden = (row * scale[:, y, :, None].unsqueeze(1) + shift[:, y, :, None].unsqueeze(1)).relu()
        total = total + torch.einsum('bchkw,mck->bmhw', hidden, weight[:, :, y])
    return total
