"""The first layer of a perceptron over windows, as in patchwise self-attention: windows are never written out."""

import contextlib
from typing import ContextManager, Optional, Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmacmix.ops.bands import bands
from mmacmix.ops.checks import check_odd, check_positive_integers
from mmacmix.ops.exporting import exporting, window_mlp_by_rows
from mmacmix.ops.in_place import compiling
from mmacmix.ops.reflection import fold_reflection, pad_reflection


def window_mlp(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
    """Linear layer over the normalised, rectified window around every pixel (SAN, arXiv 2004.13621, section 4.2).

    ``out[m, i] = sum_cj weight[m, c, j] relu(scale[c, j] x[c, i + j] + shift[c, j])``, on the map continued by
    reflection at its borders.

    Args:
        x: (B, C, H, W), any strides.
        scale, shift: (C, k, k) each.
        weight: (outputs, C, k, k), k odd.

    Returns:
        (B, outputs, H, W)

    Raises:
        ValueError: Shapes do not fit, or k is not odd.
        RuntimeError: On a second derivative, which there is none of.
    """
    if weight.dim() != 4 or weight.size(2) != weight.size(3):
        raise ValueError(f'weight must have shape (outputs, C, k, k), got weight.shape={tuple(weight.shape)}')
    kernel_size = int(weight.size(3))  # no tensor while torch.jit traces
    check_positive_integers(kernel_size=kernel_size)
    check_odd(kernel_size=kernel_size)
    if x.dim() != 4 or x.size(1) != weight.size(1) or min(x.shape[2:]) < 1:
        raise ValueError(f'x must have shape (B, C={weight.size(1)}, H, W), got x.shape={tuple(x.shape)}')
    for name, value in (('scale', scale), ('shift', shift)):
        if value.shape != weight.shape[1:]:
            raise ValueError(
                f'{name} must have shape (C, k, k)={tuple(weight.shape[1:])}, got {name}.shape={tuple(value.shape)}'
            )
    if exporting():
        return window_mlp_by_rows(x, scale, shift, weight)
    return _WindowMLP.apply(x, scale, shift, weight)


def window_mlp_reference(x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
    """The specification of :func:`window_mlp`; holds k * k copies of x."""
    k = weight.size(3)
    windows = pad_reflection(x, k // 2).unfold(2, k, 1).unfold(3, k, 1)  # (B, C, H, W, k, k)
    hidden = (windows * scale[:, None, None] + shift[:, None, None]).relu()
    return torch.einsum('bchwyx,mcyx->bmhw', hidden, weight)


def window_moments(x: Tensor, kernel_size: int, centre: Tensor) -> Tuple[Tensor, Tensor]:
    """Sums over images and pixels of x - centre and of its square at every place of a window.

    Args:
        x: (B, C, H, W)
        kernel_size: Side of the window, odd.
        centre: (C,), near the means, for the sake of precision.

    Returns:
        Two tensors (C, kernel_size, kernel_size): what sums over the written-out windows would be.
    """
    padded = pad_reflection(x - centre.view(-1, 1, 1), kernel_size // 2)
    ys, xs = (_ranges(n, kernel_size, padded) for n in x.shape[2:])
    return tuple((ys @ (maps @ xs.t())).sum(0) for maps in (padded, padded.square()))


def no_autocast(x: Tensor) -> ContextManager:
    """Inside, results have the types of their inputs; the meta device knows no autocast."""
    return contextlib.nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def _ranges(length: int, kernel_size: int, like: Tensor) -> Tensor:
    """1 where a tap of a window reads: (kernel_size, length + kernel_size - 1)."""
    place = torch.arange(length + kernel_size - 1, device=like.device)
    first = torch.arange(kernel_size, device=like.device).unsqueeze(1)
    return ((place >= first) & (place < first + length)).to(like.dtype)


class _WindowMLP(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale, shift, weight)
        k = int(weight.size(3))
        padded = pad_reflection(x, k // 2)
        out = x.new_empty((x.size(0), weight.size(0), *x.shape[2:]))
        scale, shift, weight = (y.to(x.dtype) for y in (scale, shift, weight))
        with no_autocast(x):
            for images, rows in bands(padded[:, :, : x.size(2)], (k + 2) * x.size(1)):
                total: Optional[Tensor] = None
                for y in range(k):
                    hidden = _hidden(padded, scale, shift, images, rows, y).relu_()
                    part = weight[:, :, y].flatten(1) @ hidden.flatten(1, 2).flatten(2)
                    total = part if total is None else total.add_(part)
                out[images, :, rows] = total.unflatten(2, (-1, x.size(3)))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        x, scale, shift, weight = ctx.saved_tensors
        given = (scale, shift, weight)
        k = int(weight.size(3))
        padded = pad_reflection(x, k // 2)
        sums = torch.zeros_like(padded)
        scale, shift, weight = (y.to(x.dtype) for y in given)
        exact = torch.promote_types(x.dtype, torch.float32)
        totals = [torch.zeros_like(y, dtype=exact) for y in given]
        with no_autocast(x):
            for images, rows in bands(padded[:, :, : x.size(2)], 2 * (k + 1) * x.size(1)):
                slopes = grad[images, :, rows].flatten(2)  # (B, outputs, pixels)
                for y in range(k):
                    hidden = _hidden(padded, scale, shift, images, rows, y).relu_()
                    flat = hidden.flatten(1, 2).flatten(2)
                    totals[2][:, :, y] += (slopes @ flat.transpose(1, 2)).sum(0).unflatten(1, (-1, k))
                    back = (weight[:, :, y].flatten(1).t() @ slopes).view(hidden.shape)
                    back = torch.where(hidden > 0, back, back.new_zeros(()))
                    totals[1][:, y] += back.sum((0, 3, 4), dtype=exact)
                    totals[0][:, y] += (back * _read(padded, images, rows, y, k)).sum((0, 3, 4), dtype=exact)
                    for tap in range(k):
                        target = sums[images, :, rows.start + y : rows.stop + y, tap : tap + x.size(3)]
                        target.addcmul_(back[:, :, tap], scale[:, y, tap, None, None])
        sums = fold_reflection(fold_reflection(sums, 2, x.size(2), k // 2), 3, x.size(3), k // 2)
        return (sums, *(total.to(y.dtype) for total, y in zip(totals, given)))


def _read(padded: Tensor, images: slice, rows: slice, y: int, k: int) -> Tensor:
    """View of what row y of the windows reads, (B, C, k, rows, W)."""
    part = padded[images, :, rows.start + y : rows.stop + y]
    return part.unfold(3, part.size(3) - k + 1, 1).transpose(2, 3)


def _hidden(padded: Tensor, scale: Tensor, shift: Tensor, images: slice, rows: slice, y: int) -> Tensor:
    """Normalised row y of the windows, (B, C, k, rows, W), contiguous."""
    read = _read(padded, images, rows, y, scale.size(2))
    shift, scale = (part[:, y, :, None, None] for part in (shift, scale))
    if compiling():  # would take `out` for a result with strides of its own
        return torch.addcmul(shift, read, scale).contiguous()
    hidden = torch.empty(read.shape, dtype=read.dtype, device=read.device)
    return torch.addcmul(shift, read, scale, out=hidden)
