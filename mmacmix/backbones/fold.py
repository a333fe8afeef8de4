"""Batch normalisation by running statistics as a part of the convolution in front of it."""

from typing import Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def affine_of(norm: nn.Module) -> Optional[Tuple[Tensor, Tensor]]:
    """Factor and summand of each channel, (channels,) both, that ``norm`` amounts to as it is now.

    Differentiable with respect to its parameters. None if it is no batch normalisation, or normalises by the
    batch.
    """
    if not isinstance(norm, _BatchNorm) or norm.training or norm.running_var is None:
        return None
    exact = torch.promote_types(norm.running_var.dtype, torch.float32)
    scale = torch.rsqrt(norm.running_var.to(exact) + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias
    return scale, shift


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)) for a convolution without bias, in one step where that is exact."""
    affine = affine_of(norm)
    if affine is None:
        return norm(conv(x))
    weight = (conv.weight * affine[0].view(-1, 1, 1, 1)).to(conv.weight.dtype)
    shift = affine[1].to(conv.weight.dtype)
    return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


@torch.no_grad()
def merge(conv: nn.Conv2d, norm: nn.Module) -> Tuple[nn.Conv2d, nn.Module]:
    """Both as one convolution and an identity; as they are where that is not exact."""
    affine = affine_of(norm)
    if affine is None:
        return conv, norm
    merged = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        conv.stride,
        conv.padding,
        conv.dilation,
        conv.groups,
    ).to(conv.weight)
    merged.weight.copy_(conv.weight * affine[0].view(-1, 1, 1, 1))
    merged.bias.copy_(affine[1])
    return merged.requires_grad_(False), nn.Identity()
