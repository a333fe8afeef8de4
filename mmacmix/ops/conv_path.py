"""The convolution path of ACmix: shared mixing of the projected maps, then shifts that can learn."""

from typing import Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from mmacmix.ops.biased import biased_convolution
from mmacmix.ops.exporting import exporting

# Multiply-adds per pixel and channel of a head: 108 heads one after the other, 27 heads**2 fused (3 x 3). Fused there
# is no intermediate of k * k * d channels; at 4 heads training on a CPU was twice as fast so.
FUSED_HEADS = 4
# A group of so many outputs leaves half of a CPU's vector registers empty: two groups as one, with zeros in between,
# were a third faster in inference and a tenth in training, larger groups slower.
PAIRED_OUTPUTS = 4


def convolution_path(
    qkv: Tensor,
    fc_weight: Optional[Tensor],
    dep_weight: Tensor,
    fc_bias: Optional[Tensor] = None,
    stride: int = 1,
    dilation: int = 1,
    bias: Optional[Tensor] = None,
) -> Tensor:
    """Convolution from the maps that attention projects (ACmix paper, section 3.3, figure 3).

    The 3 * heads maps mix into k * k maps by ``fc``, the same weights for every one of the d
    channels of a head; then channel c of d convolves its k * k maps into ``heads`` outputs.

    Args:
        qkv: The projections, (B, 3, heads, d, H, W), without position code; any strides, and no copy
            where it is a view of (B, d, 3, heads, H, W), contiguous or channels_last.
        fc_weight: (k * k, 3 * heads, 1, 1), or None where dep_weight comes from :func:`fused_weight`.
        dep_weight: (heads * d, k * k, k, k), the kernels of d groups.
        fc_bias: (k * k,), or None. The border is zero-padded after this bias.
        stride: Step between outputs.
        dilation: Step between the taps of dep_weight.
        bias: Bias of the outputs, (heads * d,), or None.

    Returns:
        (B, d * heads, ceil(H / stride), ceil(W / stride)); channels are ordered (d, head), while
        attention's are ordered (head, d): released weights rely on adding the two as they stand.
    """
    maps = qkv.flatten(1, 2).transpose(1, 2)  # (B, d, 3 heads, H, W)
    if fc_weight is None:
        weight = dep_weight
    elif qkv.size(2) > FUSED_HEADS:
        maps = _mix(maps, fc_weight, fc_bias)
        weight = dep_weight
    else:
        weight = fused_weight(fc_weight, dep_weight, fc_bias)
        if fc_bias is not None:
            maps = with_ones(maps)
    return grouped_convolution(maps, weight, bias, stride, dilation)


def fused_weight(fc_weight: Tensor, dep_weight: Tensor, fc_bias: Optional[Tensor] = None) -> Tensor:
    """Kernels of the one convolution that ``fc`` and ``dep_conv`` make: (heads * d, 3 * heads, k, k).

    With a bias there is one input more, a map of ones: zero-padded, it is right at the border too.
    """
    mixing = fc_weight.flatten(1)
    if fc_bias is not None:
        mixing = torch.cat([mixing, fc_bias.unsqueeze(1)], 1)
    return torch.einsum('ctyx,tm->cmyx', dep_weight, mixing)


def with_ones(maps: Tensor) -> Tensor:
    """(B, d, inputs, H, W) with one input more to each of the d groups, ones, for fc's bias.

    On a CPU the channels of a pixel come to lie together: with a group's maps each by itself, a training step of its
    convolution took five times as long, at one head and at two.
    """
    if maps.device.type != 'cpu' or exporting():
        return torch.cat([maps, torch.ones_like(maps[:, :, :1])], 2)
    pixels = maps.permute(0, 3, 4, 1, 2)
    return torch.cat([pixels, pixels.new_ones(1).expand_as(pixels[..., :1])], 4).permute(0, 3, 4, 1, 2)


def grouped_convolution(
    maps: Tensor, weight: Tensor, bias: Optional[Tensor] = None, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Convolves each of the d groups of (B, d, inputs, H, W) by its share of (heads * d, inputs, k, k)."""
    padding = dilation * (weight.size(3) // 2)
    if _channels_last(maps):
        # Flattened in place, a batch of one image gets a stride with which the weight gradient of a float64
        # convolution is wrong (torch 2.13).
        x = maps.permute(0, 3, 4, 1, 2).flatten(3).permute(0, 3, 1, 2)
    else:
        x = maps.flatten(1, 2)
    if dilation > 1 and x.dtype == torch.bfloat16 and x.device.type == 'cpu' and not exporting():
        # In channels last torch (2.13) leaves gradients of dilated kernels unset.
        x, weight = x.contiguous(), weight.contiguous()
    groups = maps.size(1)
    if maps.device.type == 'cpu' and groups % 2 == 0 and weight.size(0) // groups <= PAIRED_OUTPUTS:
        weight, groups = _paired(weight, groups), groups // 2
    return biased_convolution(x, weight, bias, stride, padding, dilation, groups)


def _paired(weight: Tensor, groups: int) -> Tensor:
    """Kernels of half as many groups, with zeros between the two inputs and outputs that each joins."""
    inputs = weight.size(1)
    first, second = weight.unflatten(0, (groups // 2, 2, -1)).unbind(1)
    first, second = F.pad(first, (0, 0, 0, 0, 0, inputs)), F.pad(second, (0, 0, 0, 0, inputs, 0))
    return torch.cat([first, second], 1).flatten(0, 1)


def _channels_last(maps: Tensor) -> bool:
    return maps.stride(2) < maps.stride(4)


def _mix(maps: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
    """The 1x1 convolution ``fc`` of each of the d groups of (B, d, 3 heads, H, W)."""
    weight = weight.flatten(1)
    if _channels_last(maps):
        return F.linear(maps.permute(0, 3, 4, 1, 2), weight, bias).permute(0, 3, 4, 1, 2)
    mixed = (weight @ maps.flatten(3)).unflatten(3, maps.shape[3:])
    return mixed if bias is None else mixed + bias[:, None, None]
