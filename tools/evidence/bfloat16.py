"""Trainings of docs/evidence.md in bfloat16, on a CPU too."""

import contextlib
import logging
from typing import Iterator

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import autocast
from torch import nn


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Computes losses under autocast to bfloat16, which needs no scale of the loss.

    It is AmpOptimWrapper with ``dtype='bfloat16'``, for a CPU too: mmengine's own refuses to train there. On a CPU, no
    map that a 3 x 3 convolution with a stride of 2 meets may be 1 wide: with torch 2.13 the gradient of its weight can
    be noise. A CPU with AVX2 and no more has no kernels for it; the log warns of that.

    Args:
        optimizer, accumulative_counts, clip_grad: As of OptimWrapper.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        capability = torch.backends.cpu.get_cpu_capability()
        on_cpu = all(weight.device.type == 'cpu' for group in self.param_groups for weight in group['params'])
        if on_cpu and capability in ('DEFAULT', 'AVX2'):
            print_log(
                f'bfloat16 has no fast kernels on this CPU ({capability}): the training takes many times longer than '
                'with AVX-512', 'current', logging.WARNING)

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
