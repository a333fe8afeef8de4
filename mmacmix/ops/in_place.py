"""1x1 convolutions that write into memory that is there already: inference on a CPU without fresh pages.

Outputs of 32 MiB and more get fresh memory from the system each time, and mapping it costs as much as a 1x1 convolution
of few channels does.
"""

import torch
from torch import Tensor, nn

from mmacmix.ops.scratch import Scratch


def may_write(x: Tensor) -> bool:
    """Whether maps made of x may be kept in memory that is used again: plain CPU tensors, no gradients, no autocast and
    nobody who records the operators."""
    return (
        x.device.type == 'cpu'
        and type(x) in (Tensor, nn.Parameter)
        and not torch.is_grad_enabled()
        and not autocast()
        and not torch.jit.is_tracing()
        and not compiling()
    )


def project(x: Tensor, weight: Tensor, bias: Tensor, buffer: Scratch) -> Tensor:
    """Linear projection of (..., C) by (outputs, C), contiguous, in memory of ``buffer``."""
    pixels = x.reshape(-1, x.size(-1))
    out = buffer('projection', len(pixels) * len(weight)).view(len(pixels), len(weight))
    torch.addmm(bias, pixels, weight.t(), out=out)
    return out.view(*x.shape[:-1], len(weight))


def add_projection(target: Tensor, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Adds the 1x1 convolution of x by (outputs, C, 1, 1) to ``target``, in place; both (B, C, H, W), channels_last."""
    _pixels(target).addmm_(_pixels(x), weight.flatten(1).t()).add_(bias)
    return target


def _pixels(x: Tensor) -> Tensor:
    """(B, C, H, W), channels_last, as (pixels, C): a view."""
    return x.permute(0, 2, 3, 1).view(-1, x.size(1))


def autocast() -> bool:
    """Whether autocast is on for CPUs."""
    try:
        return torch.is_autocast_enabled('cpu')
    except TypeError:  # before torch 2.4
        return torch.is_autocast_cpu_enabled()


def compiling() -> bool:
    """Whether torch.compile is recording."""
    return hasattr(torch, 'compiler') and torch.compiler.is_compiling()
