"""The convolution path of ACmix: shared mixing of the projected maps, then shifts that can learn."""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor


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
    batch, _, d, height, width = q.shape
    maps = torch.cat([q, k, v], 1).flatten(2, 3)  # (B, 3 heads, d * H, W)
    mixed = F.conv2d(maps, fc_weight, fc_bias)  # (B, k * k, d * H, W)
    mixed = mixed.unflatten(2, (d, height)).transpose(1, 2)  # (B, d, k * k, H, W)
    mixed = mixed.reshape(batch, -1, height, width)
    padding = dilation * (dep_weight.size(-1) // 2)
    return F.conv2d(mixed, dep_weight, None, stride, padding, dilation, groups=d)
