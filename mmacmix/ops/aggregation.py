"""Aggregation with given weights, as in patchwise self-attention: windows are never written out."""

from typing import Tuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmacmix.ops.bands import bands
from mmacmix.ops.checks import check_odd, check_positive_integers
from mmacmix.ops.exporting import aggregation_by_rows, exporting
from mmacmix.ops.reflection import fold_reflection, pad_reflection


def aggregation(v: Tensor, weights: Tensor, kernel_size: int) -> Tensor:
    """Weighted sum over the window around every pixel (SAN, CVPR 2020, arXiv 2004.13621, section 3.2).

    ``out[c, i] = sum_j weights[c % G, j, i] v[c, i + j]``, on the map continued by reflection at its borders.

    Args:
        v: Values, (B, C, H, W), any strides.
        weights: (B, G, kernel_size**2, H, W), rows of the window first; G divides C, and C / G channels share weights.
        kernel_size: Side of the window, odd.

    Returns:
        (B, C, H, W) in the dtype of v; sums are taken in float32 at least.

    Raises:
        TypeError: A tensor is not of a floating-point type.
        ValueError: Shapes, dtypes or devices do not fit, or the window is not odd.
        RuntimeError: On a second derivative, which there is none of.
    """
    check_positive_integers(kernel_size=kernel_size)
    check_odd(kernel_size=kernel_size)
    for name, x in (('v', v), ('weights', weights)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f'{name} must be a floating-point tensor, got {kind}')
    if v.dim() != 4 or min(v.shape[1:]) < 1:
        raise ValueError(f'v must have shape (B, C, H, W) with C, H and W of at least 1, got v.shape={tuple(v.shape)}')
    groups = weights.size(1) if weights.dim() > 1 else 0
    size = (v.size(0), groups, kernel_size**2, *v.shape[2:])
    if groups < 1 or v.size(1) % groups or tuple(weights.shape) != size:
        raise ValueError(
            'weights must have shape (B, G, kernel_size**2, H, W) with G a divisor of C, '
            f'got weights.shape={tuple(weights.shape)} for v.shape={tuple(v.shape)} and kernel_size={kernel_size}'
        )
    if weights.dtype != v.dtype or weights.device != v.device:
        raise ValueError(
            'v and weights must share dtype and device, '
            f'got v on {v.device} in {v.dtype} and weights on {weights.device} in {weights.dtype}'
        )
    if exporting():
        return aggregation_by_rows(v, weights, kernel_size)
    return _Aggregation.apply(v, weights, kernel_size)


def aggregation_reference(v: Tensor, weights: Tensor, kernel_size: int) -> Tensor:
    """The specification of :func:`aggregation`; holds kernel_size**2 copies of v."""
    windows = pad_reflection(v, kernel_size // 2).unfold(2, kernel_size, 1).unfold(3, kernel_size, 1)
    shared = weights.permute(0, 1, 3, 4, 2).repeat(1, v.size(1) // weights.size(1), 1, 1, 1)
    return (windows.flatten(-2) * shared).sum(-1)


class _Aggregation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, v: Tensor, weights: Tensor, kernel_size: int) -> Tensor:
        ctx.save_for_backward(v, weights)
        ctx.kernel_size = kernel_size
        exact = torch.promote_types(v.dtype, torch.float32)
        padded = pad_reflection(v, kernel_size // 2).to(exact)
        out = v.new_empty(v.shape)
        for images, rows in bands(padded[:, :, : v.size(2)], 2 * v.size(1)):
            by_tap = weights[images, :, :, rows].to(exact).unsqueeze(1)  # (B, 1, G, k * k, rows, W)
            total = by_tap.new_zeros(by_tap.size(0), v.size(1) // by_tap.size(2), *by_tap[0, 0, :, 0].shape)
            for tap in range(kernel_size**2):
                total.addcmul_(by_tap[:, :, :, tap], _shifted(padded, images, rows, tap, kernel_size, total))
            out[images, :, rows] = total.flatten(1, 2)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Tensor, Tensor, None]:
        v, weights = ctx.saved_tensors
        k, pad = ctx.kernel_size, ctx.kernel_size // 2
        exact = torch.promote_types(v.dtype, torch.float32)
        padded = pad_reflection(v, pad).to(exact)
        sums = torch.zeros_like(padded)
        grad_weights = torch.empty_like(weights, memory_format=torch.contiguous_format)
        for images, rows in bands(padded[:, :, : v.size(2)], 4 * v.size(1)):
            by_tap = weights[images, :, :, rows].to(exact).unsqueeze(1)
            given = grad[images, :, rows].to(exact).unflatten(1, (-1, weights.size(1)))  # (B, C / G, G, rows, W)
            product = torch.empty_like(given)
            for tap in range(k**2):
                torch.mul(given, _shifted(padded, images, rows, tap, k, given), out=product)
                grad_weights[images, :, tap, rows] = product.sum(1)
                _shifted(sums, images, rows, tap, k, given).addcmul_(given, by_tap[:, :, :, tap])
        sums = fold_reflection(fold_reflection(sums, 2, v.size(2), pad), 3, v.size(3), pad)
        return sums.to(v.dtype), grad_weights, None


def _shifted(padded: Tensor, images: slice, rows: slice, tap: int, kernel_size: int, like: Tensor) -> Tensor:
    """View of the pixels that a tap of the windows of some rows reads, (B, C / G, G, rows, W) as ``like``."""
    y, x = divmod(tap, kernel_size)
    part = padded[images, :, rows.start + y : rows.stop + y, x : x + like.size(4)]
    return part.unflatten(1, like.shape[1:3])
