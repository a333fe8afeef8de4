"""Trainings of docs/evidence.md in bfloat16, on a CPU too."""

import contextlib
from typing import Iterator

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import autocast
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Computes losses under autocast to bfloat16, which needs no scale of the loss.

    It is AmpOptimWrapper with ``dtype='bfloat16'``, for a CPU too: mmengine's own refuses to train there. On a CPU, no
    map that a 3 x 3 convolution with a stride of 2 meets may be 1 wide: with torch 2.13 the gradient of its weight can
    be noise.

    Args:
        optimizer, accumulative_counts, clip_grad: As of OptimWrapper.
    """

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
