"""Local attention on CUDA by Triton kernels: which calls they take, and their launches.

ACmix paper: "On the Integration of Self-Attention and Convolution", CVPR 2022, section 3.2. Softmax, log-sum-exp and
every sum are fp32. There are two schemes (see triton_forward.py and triton_backward.py):

* taps, for strict fp32 and wherever windows of neighbours share few keys (dilation > 1, stride > 2): k * k fp32 FMAs
  per query and channel, none of them wasted. Blocks of keys would leave 25 % useful pairs at 7 x 7 (8 x 8 queries
  see 14 x 14 keys), which tensor cores make up for and FMAs do not.
* tiles, for fp16, bf16 and, where torch is allowed to use it, TF32: 8 x 8 queries against the keys around them.

Nothing is padded or copied: keys are read by reflected index. Gradients are collected by their owner (a program per
tile of queries, and one per tile of keys), so they are the same in every run. No launch configuration depends on the
size of the map.
"""

from contextlib import nullcontext
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mmacmix.ops.reflection import fold_reflection
from mmacmix.ops.triton_backward import (
    grad_keys_taps,
    grad_keys_tiles,
    grad_queries_taps,
    grad_queries_tiles,
)
from mmacmix.ops.triton_forward import forward_taps, forward_tiles
from mmacmix.ops.window import Window

# Under TRITON_INTERPRET=1 kernels are Python functions, which run on the CPU.
INTERPRETED = not isinstance(forward_taps, triton.runtime.JITFunction)
MAX_HEAD_DIM = 128
USES_OUTPUT = True  # in the backward pass


class Launch(NamedTuple):
    """A kernel with all that it is compiled for."""

    kernel: Callable[..., Any]
    constants: Dict[str, Any]  # its constexpr arguments and compiler options

    @property
    def tile(self) -> Tuple[int, int]:
        return self.constants['TILE_H'], self.constants['TILE_W']


def unavailable(dtype: torch.dtype, device: torch.device, head_dim: int) -> Optional[str]:
    """Why the kernels cannot run for such tensors; None if they can."""
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f'the Triton kernels compute in float32, float16 or bfloat16, got {dtype}'
    if not 1 <= head_dim <= MAX_HEAD_DIM:
        return f'the Triton kernels take 1 to {MAX_HEAD_DIM} channels per head, got {head_dim}'
    if INTERPRETED:
        return None
    if device.type != 'cuda' or torch.version.cuda is None:
        return f'the Triton kernels run on NVIDIA GPUs, got a tensor on {device}'
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 0):
        version = '.'.join(map(str, capability))
        return f'the Triton kernels need compute capability 8.0 or higher, got {version} ({device})'
    return None


def forward(
    q: Tensor, k: Tensor, v: Tensor, position: Optional[Tensor], window: Window, out: Tensor
) -> Tensor:
    """Writes the attention of q, k - position and v, all (B, heads, d, H, W) of any strides, into ``out``.

    Args:
        position: (d, H, W), or None for 0.
        out: (B, heads, d, ceil(H / stride), ceil(W / stride)), any strides.

    Returns:
        Natural logarithm of the sum of the exponentials of the scaled logits, fp32 (B, heads, Hq, Wq).
    """
    log_sum = torch.empty((*q.shape[:2], *out.shape[-2:]), dtype=torch.float32, device=q.device)
    if q.numel() > 0:
        tensors = (q, k, v, _code(k, position), out)
        _run('forward', out.shape, tensors, (log_sum,), q, position, out, window)
    return log_sum


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    position: Optional[Tensor],
    out: Tensor,
    log_sum: Tensor,
    window: Window,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
) -> None:
    """Overwrites grad_q, grad_k and grad_v, all (B, heads, d, H, W) of any strides.

    The gradient of ``position`` is -grad_k, summed over images and heads.

    Args:
        grad: Gradient of ``out``, any strides.
        out: What :func:`forward` wrote.
        log_sum: What :func:`forward` returned.
    """
    if q.numel() == 0:
        return
    if window.stride > 1:
        grad_q.zero_()  # pixels that do not ask
    delta = torch.empty_like(log_sum)
    scratch = (log_sum, delta)
    inputs = (grad, q, k, v, _code(k, position))
    _run('grad_queries', out.shape, (*inputs, out, grad_q), scratch, q, position, out, window)
    if window.dilation == 1:
        _run('grad_keys', q.shape, (*inputs, grad_k, grad_v), scratch, q, position, out, window)
        return
    pad = window.kernel_size // 2 * window.dilation
    shape = torch.Size((*q.shape[:3], q.size(3) + 2 * pad, q.size(4) + 2 * pad))
    padded = [torch.empty(shape, dtype=torch.float32, device=q.device) for _ in range(2)]
    _run('grad_keys', shape, (*inputs, *padded), scratch, q, position, out, window)
    for result, whole in zip((grad_k, grad_v), padded):
        rows = fold_reflection(whole, 3, q.size(3), pad)
        result.copy_(fold_reflection(rows, 4, q.size(4), pad))


def _code(k: Tensor, position: Optional[Tensor]) -> Tensor:
    """The position code, or, where kernels are to read none, a tensor to stand in its place."""
    return k[0, 0] if position is None else position


def allows_tf32() -> bool:
    """Whether torch may multiply fp32 matrices as TF32. From 2.9 on there are two settings; the older one raises
    an error when read after the newer one was set."""
    matmul = torch.backends.cuda.matmul
    if hasattr(matmul, 'fp32_precision'):
        return matmul.fp32_precision == 'tf32'
    return matmul.allow_tf32


def choose_launch(
    part: str, dtype: torch.dtype, head_dim: int, has_position: bool, window: Window, tf32: bool, wide: bool = False
) -> Launch:
    """Scheme, tile and warps for ``part``: 'forward', 'grad_queries' or 'grad_keys'."""
    by_tiles = (dtype != torch.float32 or tf32) and window.dilation == 1 and window.stride <= 2
    block_d = triton.next_power_of_2(head_dim)
    if by_tiles:
        block_d = max(block_d, 16)  # the least that tl.dot multiplies
        kernels = dict(forward=forward_tiles, grad_queries=grad_queries_tiles, grad_keys=grad_keys_tiles)
        options = _tile_options(dtype, block_d)
    else:
        kernels = dict(forward=forward_taps, grad_queries=grad_queries_taps, grad_keys=grad_keys_taps)
        options = _tap_options(block_d)
    constants = dict(
        OFFSET=tl.int64 if wide else tl.int32,
        D=head_dim,
        BLOCK_D=block_d,
        HAS_POSITION=has_position,
        KERNEL=window.kernel_size,
        STRIDE=window.stride,
        DILATION=window.dilation,
        enable_fp_fusion=True,
        **options,
    )
    return Launch(kernels[part], constants)


def _tap_options(block_d: int) -> Dict[str, int]:
    """A thread per pixel while its channels fit into registers, beyond that 16 channels of a pixel per thread."""
    if block_d <= 32:
        return dict(TILE_H=8, TILE_W=16, num_warps=4)
    return dict(TILE_H=4, TILE_W=8, num_warps=block_d // 16)


def _tile_options(dtype: torch.dtype, block_d: int) -> Dict[str, int]:
    """Chosen by the registers and the shared memory that the compiler reports: 99 KiB is what consumer cards have."""
    if block_d <= 64:
        return dict(TILE_H=8, TILE_W=8, BLOCK=32, num_warps=4, num_stages=2)
    if dtype == torch.float32:
        return dict(TILE_H=8, TILE_W=8, BLOCK=16, num_warps=8, num_stages=1)
    return dict(TILE_H=8, TILE_W=8, BLOCK=32, num_warps=8, num_stages=2)


def _span(x: Tensor) -> int:
    """Distance from the first to the last element of one head of one image."""
    return sum((size - 1) * abs(stride) for size, stride in zip(x.shape[-3:], x.stride()[-3:]))


def _run(
    part: str,
    covered: torch.Size,
    tensors: Tuple[Tensor, ...],
    scratch: Tuple[Tensor, ...],
    q: Tensor,
    position: Optional[Tensor],
    out: Tensor,
    window: Window,
) -> None:
    """Launches ``part`` with a program per tile of the map ``covered``."""
    wide = max(map(_span, (q, out, *tensors))) >= 2**31
    launch = choose_launch(part, q.dtype, q.size(2), position is not None, window, allows_tf32(), wide)
    tiles = [triton.cdiv(n, side) for n, side in zip(covered[-2:], launch.tile)]
    pad = window.kernel_size // 2 * window.dilation
    folds = [triton.cdiv(pad, max(n - 1, 1)) for n in q.shape[-2:]]
    arguments = [x for tensor in tensors for x in (tensor, *tensor.stride())]
    grid = (q.size(0) * q.size(1) * tiles[0] * tiles[1],)
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device(q.device) if q.is_cuda else nullcontext():
        try:
            launch.kernel[grid](
                *arguments, *scratch, window.scale, q.size(1), *q.shape[-2:], *out.shape[-2:], *tiles, *folds,
                **launch.constants,
            )  # fmt: skip
        except Exception as error:  # no C compiler for Triton's launcher, a driver that is too old, ...
            raise RuntimeError(
                f'the Triton kernel of local attention cannot run here ({type(error).__name__}: {error}); with '
                'MMACMIX_BACKEND=tiled in the environment attention runs without Triton'
            ) from error
