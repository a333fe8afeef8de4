"""Local attention as an operator that PyTorch knows: its gradients, its shapes and its cost.

``torch.ops.mmacmix.local_attention`` is opaque to torch.compile (no graph break), runs on fake and meta tensors and is
counted by ``torch.utils.flop_counter``. Before torch 2.4 there is no way to register it from Python, and an
autograd.Function takes its place.
"""

from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from mmacmix.ops.backends import implementation
from mmacmix.ops.window import Window

REGISTERED = hasattr(torch.library, 'custom_op')


def split(qkv: Sequence[Tensor]) -> Sequence[Tensor]:
    """q, k and v, (B, heads, d, H, W) each, of these three or of one tensor (B, 3, heads, d, H, W)."""
    return qkv if len(qkv) == 3 else qkv[0].unbind(1)


def _forward(
    qkv: List[Tensor],
    position: Optional[Tensor],
    kernel_size: int,
    stride: int,
    dilation: int,
    scale: float,
    backend: str,
) -> Tuple[Tensor, Tensor]:
    q, k, v = split(qkv)
    window = Window(kernel_size, stride, dilation, scale)
    out = _empty_output(q, window)
    return out, implementation(backend).forward(q, k, v, position, window, out)


def _forward_fake(
    qkv: List[Tensor],
    position: Optional[Tensor],
    kernel_size: int,
    stride: int,
    dilation: int,
    scale: float,
    backend: str,
) -> Tuple[Tensor, Tensor]:
    q = split(qkv)[0]
    out = _empty_output(q, Window(kernel_size, stride, dilation, scale))
    shape = (*out.shape[:2], *out.shape[3:]) if backend == 'triton' else (0,)
    return out, out.new_empty(shape, dtype=torch.promote_types(q.dtype, torch.float32))


def _backward(
    grad: Tensor,
    qkv: List[Tensor],
    position: Optional[Tensor],
    out: Optional[Tensor],
    saved: Tensor,
    kernel_size: int,
    stride: int,
    dilation: int,
    scale: float,
    backend: str,
) -> List[Tensor]:
    grads = [torch.empty_like(x) for x in qkv]
    window = Window(kernel_size, stride, dilation, scale)
    implementation(backend).backward(grad, *split(qkv), position, out, saved, window, *split(grads))
    return grads


def _backward_fake(grad: Tensor, qkv: List[Tensor], *args) -> List[Tensor]:
    return [torch.empty_like(x) for x in qkv]


def _empty_output(q: Tensor, window: Window) -> Tensor:
    """(B, heads, d, Hq, Wq), pixel by pixel in memory where q is, else channel by channel."""
    batch, heads, d, height, width = q.shape
    size = (batch, heads, d, window.outputs(height), window.outputs(width))
    if q.stride(4) < heads * d:
        return q.new_empty(size)
    return q.new_empty((batch, size[3], size[4], heads, d)).permute(0, 3, 4, 1, 2)


def _keep(ctx, qkv: List[Tensor], position: Optional[Tensor], options: tuple, out: Tensor, saved: Tensor) -> None:
    ctx.options = options
    ctx.parts = len(qkv)
    ctx.mark_non_differentiable(saved)
    # Without need the output is not kept, so that it may be changed in place.
    kept = out if implementation(options[-1]).USES_OUTPUT else None
    ctx.save_for_backward(*qkv, position, kept, saved)


def _gradients(ctx, grad: Tensor, function) -> Tuple[List[Tensor], Optional[Tensor]]:
    """Gradients of qkv and of the position code."""
    *qkv, position, out, saved = ctx.saved_tensors
    grads = function(grad, qkv, position, out, saved, *ctx.options)
    if position is None:
        return grads, None
    total = split(grads)[1].sum((0, 1), dtype=torch.promote_types(grad.dtype, torch.float32))
    return grads, total.neg_().to(position.dtype)


def _refuse(ctx, *grads):
    raise RuntimeError(
        "local_attention has a double backward with backend='reference' only, "
        f'and this one was computed with backend={ctx.backend!r}'
    )


def _flops(qkv, position, kernel_size, stride, dilation, scale, backend, *args, out_shape=None, **kwargs) -> int:
    """Two multiply-adds for each channel and pixel of a window."""
    *rest, height, width = qkv[0]
    batch, channels = rest[0], rest[-2] * rest[-1]
    window = Window(kernel_size, stride, dilation, scale)
    return 4 * kernel_size**2 * batch * channels * window.outputs(height) * window.outputs(width)


def _backward_flops(grad, qkv, position, out, saved, *options, out_shape=None, **kwargs) -> int:
    """Five products where forward has two, as for torch's own attention: logits are computed again."""
    return _flops(qkv, position, *options) * 5 // 2


if REGISTERED:
    _op = torch.library.custom_op('mmacmix::local_attention', _forward, mutates_args=())
    _op.register_fake(_forward_fake)
    _backward_op = torch.library.custom_op('mmacmix::local_attention_backward', _backward, mutates_args=())
    _backward_op.register_fake(_backward_fake)

    def _setup(ctx, inputs, output) -> None:
        qkv, position, *options = inputs
        _keep(ctx, qkv, position, tuple(options), *output)

    def _setup_backward(ctx, inputs, output) -> None:
        ctx.backend = inputs[-1]

    def _op_gradients(ctx, grad, _):
        return (*_gradients(ctx, grad, _backward_op), *(None for _ in ctx.options))

    _op.register_autograd(_op_gradients, setup_context=_setup)
    _backward_op.register_autograd(_refuse, setup_context=_setup_backward)

    from torch.utils.flop_counter import register_flop_formula

    register_flop_formula(torch.ops.mmacmix.local_attention)(_flops)
    register_flop_formula(torch.ops.mmacmix.local_attention_backward)(_backward_flops)

    def attend(qkv: List[Tensor], position: Optional[Tensor], window: Window, backend: str) -> Tensor:
        """Attention by the backend of this name: see :func:`mmacmix.ops.local_attention`."""
        return _op(qkv, position, *window, backend)[0]

else:

    class _Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, grad, position, out, saved, options, *qkv):
            ctx.backend = options[-1]
            return tuple(_backward(grad, list(qkv), position, out, saved, *options))

        backward = staticmethod(_refuse)

    class _Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, position, options, *qkv):
            out, saved = _forward(list(qkv), position, *options)
            _keep(ctx, list(qkv), position, options, out, saved)
            return out

        @staticmethod
        def backward(ctx, grad):
            def function(grad, qkv, position, out, saved, *options):
                return list(_Backward.apply(grad, position, out, saved, options, *qkv))

            grads, grad_position = _gradients(ctx, grad, function)
            return (grad_position, None, *grads)

    def attend(qkv: List[Tensor], position: Optional[Tensor], window: Window, backend: str) -> Tensor:
        """Attention by the backend of this name: see :func:`mmacmix.ops.local_attention`."""
        return _Forward.apply(position, (*window, backend), *qkv)
