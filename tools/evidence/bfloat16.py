"""Trainings of docs/evidence.md in bfloat16, on a CPU too."""

import contextlib
from typing import Any, Callable, ContextManager, Iterator, Optional, Sequence

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import autocast
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

ATEN = torch.ops.aten
PRODUCTS = tuple(getattr(ATEN, name).default for name in (
    'addmm', 'baddbmm', 'bmm', 'convolution', 'convolution_backward', 'mm'))


class Float32Kernels(TorchDispatchMode):
    """Computes convolutions and matrix products of bfloat16 by the kernels of float32, and rounds what they give.

    That is what processors with instructions for bfloat16 do: they multiply numbers of bfloat16, add up in float32, and
    round at the end. Without such instructions torch's own kernels take ten times longer than these; where they round
    parts of sums too, as in gradients of convolutions, these are nearer to the truth.
    """

    def __torch_dispatch__(
            self, operator: Callable, types: Sequence[type], args: tuple = (), kwargs: Optional[dict] = None) -> Any:
        kwargs = kwargs or {}
        dtypes = {x.dtype for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)}
        if operator not in PRODUCTS or dtypes != {torch.bfloat16}:
            return operator(*args, **kwargs)
        args, kwargs = tree_map(lambda x: x.float() if isinstance(x, torch.Tensor) else x, (args, kwargs))
        return tree_map(lambda x: x.bfloat16() if isinstance(x, torch.Tensor) else x, operator(*args, **kwargs))


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Computes losses under autocast to bfloat16, which needs no scale of the loss.

    It is AmpOptimWrapper with ``dtype='bfloat16'``, for a CPU too: mmengine's own refuses to train there. On a CPU, no
    map that a 3 x 3 convolution with a stride of 2 meets may be 1 wide: with torch 2.13 the gradient of its weight can
    be noise. A CPU without AVX-512 computes by :class:`Float32Kernels`.

    Args:
        optimizer, accumulative_counts, clip_grad: As of OptimWrapper.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        on_cpu = all(weight.device.type == 'cpu' for group in self.param_groups for weight in group['params'])
        slow = on_cpu and torch.backends.cpu.get_cpu_capability() in ('DEFAULT', 'AVX2')
        self.kernels: Callable[[], ContextManager] = Float32Kernels if slow else contextlib.nullcontext

    @contextlib.contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), autocast(dtype=torch.bfloat16), self.kernels():
            yield

    def backward(self, loss: torch.Tensor, **kwargs) -> None:
        with self.kernels():
            super().backward(loss, **kwargs)
