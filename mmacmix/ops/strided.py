"""Strided convolutions, right also where torch errs in bfloat16."""

from typing import Optional, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.utils import _pair as pair

from mmacmix.ops.exporting import exporting
from mmacmix.ops.in_place import autocast

Sizes = Union[int, Tuple[int, int]]
#: Padding and dilation of patches.
PATCHES = (0, 1), ((0, 0), (1, 1))


def convolution(
    x: Tensor,
    weight: Tensor,
    bias: Optional[Tensor] = None,
    stride: Sizes = 1,
    padding: Sizes = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """``F.conv2d``, but for two forms of strided kernels in bfloat16 on a CPU, where torch (2.13) leaves parts unset.

    Of an output of one column these are parts of the output or of the gradient of the weights. So a second column is
    computed, from zeros as padding adds them, and cut off. Of patches, kernels as large as their stride, they are parts
    of the output where these have few inputs (a kernel of 4, 16 to 24 inputs) and the processor has AMX. So patches are
    the matrix product that they are by definition.
    """
    settings = stride, padding, dilation, groups
    if x.device.type != 'cpu' or not (x.dtype == torch.bfloat16 or autocast()) or exporting() or torch.jit.is_tracing():
        return F.conv2d(x, weight, bias, *settings)
    (rows, columns), (_, pad), (_, gap) = pair(stride), pair(padding), pair(dilation)
    reach = gap * (weight.size(3) - 1) + 1
    if min(columns, reach) == 1:
        return F.conv2d(x, weight, bias, *settings)
    if weight.shape[2:] == (rows, columns) and settings[1:3] in PATCHES:
        if groups == 1:
            return _patches(x, weight, bias)
        biases = [None] * groups if bias is None else bias.chunk(groups)
        return torch.cat([_patches(*group) for group in zip(x.chunk(groups, 1), weight.chunk(groups), biases)], 1)
    if not reach <= x.size(3) + 2 * pad < reach + columns:
        return F.conv2d(x, weight, bias, *settings)
    wider = F.pad(x, (0, reach + columns - 2 * pad - x.size(3)))
    # A copy, in the order of axes that the output has: not a view, and without gaps.
    return F.conv2d(wider, weight, bias, *settings)[..., :1].clone()


def _patches(x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    """Kernels beside each other, without padding, over (B, C, H, W)."""
    height, width = weight.shape[2:]
    rows, columns = x.size(2) // height, x.size(3) // width
    x = x[:, :, : rows * height, : columns * width].unflatten(3, (columns, width)).unflatten(2, (rows, height))
    pixels = x.permute(0, 2, 4, 3, 5, 1).flatten(3)  # (B, rows, columns, height * width * C)
    return F.linear(pixels, weight.permute(0, 2, 3, 1).flatten(1), bias).permute(0, 3, 1, 2)
