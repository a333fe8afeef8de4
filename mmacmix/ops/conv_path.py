"""The convolution path of ACmix: shared mixing of the projected maps, then shifts that can learn."""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

# Multiply-adds per pixel and channel of a head: 108 heads one after the other, 27 heads**2 fused (3 x 3). Training
# on a CPU was 2.1 times as fast fused at 4 heads. A bias of fc would need a map of its own along the border.
FUSED_HEADS = 4


def convolution_path(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    fc_weight: Tensor,
    dep_weight: Tensor,
    fc_bias: Optional[Tensor] = None,
    stride: int = 1,
    dilation: int = 1,
) -> Tensor:
    """Convolution from the maps that attention projects (ACmix paper, section 3.3, figure 3).

    The 3 * heads maps mix into k * k maps by ``fc``, the same weights for every one of the d
    channels of a head; then channel c of d convolves its k * k maps into ``heads`` outputs.

    Args:
        q, k, v: The projections, (B, heads, d, H, W) each, without position code; any strides.
        fc_weight: (k * k, 3 * heads, 1, 1).
        dep_weight: (heads * d, k * k, k, k), the kernels of d groups.
        fc_bias: (k * k,), or None. The border is zero-padded after this bias.
        stride: Step between outputs.
        dilation: Step between the taps of dep_weight.

    Returns:
        (B, d * heads, ceil(H / stride), ceil(W / stride)); channels are ordered (d, head), while
        attention's are ordered (head, d): released weights rely on adding the two as they stand.
    """
    if fc_bias is None and q.size(1) <= FUSED_HEADS:
        return _fused(q, k, v, fc_weight, dep_weight, stride, dilation)
    return _as_defined(q, k, v, fc_weight, dep_weight, fc_bias, stride, dilation)


def _as_defined(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    fc_weight: Tensor,
    dep_weight: Tensor,
    fc_bias: Optional[Tensor],
    stride: int,
    dilation: int,
) -> Tensor:
    """The two convolutions one after the other, with an intermediate of k * k * d channels."""
    d, height = q.shape[2:4]
    maps = torch.cat([q, k, v], 1).flatten(2, 3)  # (B, 3 heads, d * H, W)
    mixed = F.conv2d(maps, fc_weight, fc_bias)  # (B, k * k, d * H, W)
    mixed = mixed.unflatten(2, (d, height)).transpose(1, 2)  # (B, d, k * k, H, W)
    mixed = mixed.flatten(1, 2)
    return F.conv2d(
        mixed, dep_weight, None, stride, _padding(dep_weight, dilation), dilation, groups=d
    )


def _fused(
    q: Tensor, k: Tensor, v: Tensor, fc_weight: Tensor, dep_weight: Tensor, stride: int, dilation: int
) -> Tensor:
    """The two convolutions as one: their weights are multiplied first, so there is no intermediate."""
    d = q.size(2)
    maps = torch.cat([q, k, v], 1).transpose(1, 2).flatten(1, 2)  # (B, d * 3 heads, H, W)
    weight = torch.einsum('ctyx,tm->cmyx', dep_weight, fc_weight.flatten(1))  # (C, 3 heads, k, k)
    return F.conv2d(maps, weight, None, stride, _padding(dep_weight, dilation), dilation, groups=d)


def _padding(dep_weight: Tensor, dilation: int) -> int:
    return dilation * (dep_weight.size(-1) // 2)
