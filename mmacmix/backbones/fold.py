"""Batch normalisation by running statistics as a part of the convolution in front of it."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmacmix.ops.biased import biased_convolution
from mmacmix.ops.in_place import add_projection, may_write


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


def has_hooks(*modules: nn.Module) -> bool:
    """Whether a forward hook of one of the modules could see, or change, a map."""
    return any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def conv_norm(conv: nn.Conv2d, norm: nn.Module, x: Tensor) -> Tensor:
    """norm(conv(x)) for a convolution without bias, in one step where that is exact."""
    folded = _folded(conv, norm)
    if folded is None:
        return norm(conv(x))
    return biased_convolution(x, *folded, conv.stride, conv.padding, conv.dilation, conv.groups)


def conv_norm_add(conv: nn.Conv2d, norm: nn.Module, x: Tensor, identity: Tensor, overwrite: bool) -> Tensor:
    """norm(conv(x)) + identity for a 1x1 convolution.

    Args:
        overwrite: Whether the result may be written over ``identity``; done where that is faster.
    """
    folded = _folded(conv, norm)
    formats = (y.is_contiguous(memory_format=torch.channels_last) for y in (x, identity))
    if overwrite and folded is not None and may_write(x) and x.dtype == identity.dtype and all(formats):
        return add_projection(identity, x, *folded)
    return conv_norm(conv, norm, x).add_(identity)


def _folded(conv: nn.Conv2d, norm: nn.Module) -> Optional[Tuple[Tensor, Tensor]]:
    """Weight and bias of the convolution with ``norm`` in it, or None where it is not exact to merge them."""
    if isinstance(norm, nn.Identity) and conv.bias is not None:  # merged already
        return conv.weight, conv.bias
    affine = affine_of(norm)
    # A convolution that does something else as well has to be called, and so does what hooks look at.
    if affine is None or type(conv).forward is not nn.Conv2d.forward or has_hooks(conv, norm):
        return None
    weight = (conv.weight * affine[0].view(-1, 1, 1, 1)).to(conv.weight.dtype)
    return weight, affine[1].to(conv.weight.dtype)


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
