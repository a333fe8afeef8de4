"""The implementations of local attention and the rules by which one is chosen.

========== ============================ ==========================================================================
name       runs on                      for
========== ============================ ==========================================================================
reference  any device, any float type   checking, and gradients of gradients; holds kernel_size ** 2 copies of k, v
tiled      any device, any float type   everything the next one does not take; memory grows with the map
triton     NVIDIA GPU, cc 8.0 and up;   training and inference on CUDA
           fp32, fp16, bf16; d <= 128
========== ============================ ==========================================================================

'auto' takes 'triton' where it can run, else 'tiled'. It is the same for training and inference and for every size:
no crossover was found where another choice is faster (docs/performance.md). A backend that is asked for by name runs,
or raises an error that says why it cannot. Who asks, the first of: the argument ``backend``, :func:`use_backend`, the
environment variable MMACMIX_BACKEND.
"""

import importlib
import os
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Iterator, Optional

import torch
from torch import Tensor

ENVIRONMENT_VARIABLE = 'MMACMIX_BACKEND'
#: Modules with forward, backward and unavailable; 'reference' is differentiable as it stands.
MODULES = {'tiled': 'mmacmix.ops.tiled', 'triton': 'mmacmix.ops.triton_kernels'}
BACKENDS = ('reference', *MODULES)

_override = 'auto'


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Every local attention inside uses the backend ``name``, in all threads, unless its call names another.

    Args:
        name: 'reference', 'tiled', 'triton' or 'auto'.

    Raises:
        ValueError: There is no backend of this name.

    Example:
        >>> with use_backend('reference'):
        ...     out = model(images)
    """
    global _override
    _check_name('name', name)
    before, _override = _override, name
    try:
        yield
    finally:
        _override = before


def choose(q: Tensor, backend: str) -> str:
    """Name of the backend for queries such as q (B, heads, d, H, W).

    Raises:
        ValueError: ``backend``, or the environment variable, is not the name of a backend.
        RuntimeError: The named backend cannot run here; the message says why.
    """
    _check_name('backend', backend)
    if backend == 'auto':
        backend = _override
    if backend == 'auto':
        backend = os.environ.get(ENVIRONMENT_VARIABLE) or 'auto'
        _check_name(ENVIRONMENT_VARIABLE, backend)
    if backend == 'auto':
        return 'triton' if q.is_cuda and _why_not_triton(q.dtype, q.device, q.size(2)) is None else 'tiled'
    if backend == 'triton':
        reason = _why_not_triton(q.dtype, q.device, q.size(2))
        if reason:
            raise RuntimeError(f"backend='triton' cannot run: {reason}")
    return backend


def why_not(backend: str, dtype: torch.dtype, device: torch.device, head_dim: int) -> Optional[str]:
    """Why ``backend`` cannot run on tensors of this kind; None if it can."""
    return _why_not_triton(dtype, device, head_dim) if backend == 'triton' else None


def implementation(backend: str) -> ModuleType:
    return importlib.import_module(MODULES[backend])


def _why_not_triton(dtype: torch.dtype, device: torch.device, head_dim: int) -> Optional[str]:
    reason = _why_no_import()
    return reason or implementation('triton').unavailable(dtype, device, head_dim)


@lru_cache(maxsize=None)
def _why_no_import() -> Optional[str]:
    """Asked once: Python tries an import that failed again each time."""
    try:
        implementation('triton')
    except ImportError as error:
        return f'triton cannot be imported ({error}); pip install "triton>=3"'
    return None


# torch.compile takes the answer as it is instead of looking into Triton and the driver.
_why_not_triton = getattr(getattr(torch, 'compiler', None), 'assume_constant_result', lambda f: f)(_why_not_triton)


def _check_name(argument: str, name: str) -> None:
    if name != 'auto' and name not in BACKENDS:
        raise ValueError(f"{argument} must be 'auto' or one of {list(BACKENDS)}, got {argument}={name!r}")
