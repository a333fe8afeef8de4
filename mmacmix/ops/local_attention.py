"""Local attention: the public function, its contract and the choice of an implementation."""

from typing import Optional

from torch import Tensor

from mmacmix.ops.checks import check_odd, check_positive_integers
from mmacmix.ops.reference import local_attention_reference
from mmacmix.ops.tiled import local_attention_tiled

BACKENDS = {'reference': local_attention_reference, 'tiled': local_attention_tiled}


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int = 7,
    stride: int = 1,
    dilation: int = 1,
    scale: Optional[float] = None,
    backend: str = 'auto',
) -> Tensor:
    """Softmax attention of every pixel over the window around it (ACmix paper, section 3.2).

    ``out[i] = sum_j softmax_j(scale * <q[i], k[j]>) v[j]`` with j in the kernel_size x kernel_size
    window centred at i, on the map continued by reflection at its borders. ACmix's position code
    p enters the logits as ``k[j] + p[i] - p[j]``; the term of p[i] is the same for the whole
    window and cancels in the softmax, so the caller passes ``k - p`` as k.

    Args:
        q: Queries, (B, heads, d, H, W), at full resolution; ``q[..., ::stride, ::stride]`` is used.
        k: Keys, (B, heads, d, H, W), the position code already subtracted.
        v: Values, (B, heads, d, H, W). q, k and v may have any strides; they share dtype and device.
        kernel_size: Side of the window, odd.
        stride: Step between the pixels that ask.
        dilation: Step between the pixels of a window.
        scale: Factor of the logits; d ** -0.5 by default.
        backend: 'reference' (the definition, for checking), 'tiled' (bounded memory) or 'auto'
            (today always 'tiled').

    Returns:
        (B, heads, d, ceil(H / stride), ceil(W / stride)) in the dtype of q.

    Raises:
        TypeError: q, k or v is not a floating-point tensor.
        ValueError: Shapes, dtypes or devices differ, or an argument is out of its range.

    Example:
        >>> q = k = v = torch.randn(2, 4, 16, 25, 32)
        >>> local_attention(q, k, v, stride=2).shape
        torch.Size([2, 4, 16, 13, 16])
    """
    _check_tensors(q, k, v)
    check_positive_integers(kernel_size=kernel_size, stride=stride, dilation=dilation)
    check_odd(kernel_size=kernel_size)
    if backend != 'auto' and backend not in BACKENDS:
        raise ValueError(f"backend must be 'auto' or one of {sorted(BACKENDS)}, got backend={backend!r}")
    if scale is None:
        scale = q.size(2) ** -0.5
    implementation = BACKENDS['tiled' if backend == 'auto' else backend]
    return implementation(q, k, v, kernel_size, stride, dilation, float(scale))


def _check_tensors(q: Tensor, k: Tensor, v: Tensor) -> None:
    for name, x in (('q', q), ('k', k), ('v', v)):
        if not isinstance(x, Tensor) or not x.is_floating_point():
            kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f'{name} must be a floating-point tensor, got {kind}')
        if x.dim() != 5 or x.shape != q.shape:
            raise ValueError(
                'q, k and v must have one shape (B, heads, d, H, W), '
                f'got {name}.shape={tuple(x.shape)} and q.shape={tuple(q.shape)}'
            )
        if x.dtype != q.dtype or x.device != q.device:
            raise ValueError(
                'q, k and v must share dtype and device, '
                f'got {name} on {x.device} in {x.dtype} and q on {q.device} in {q.dtype}'
            )
    if min(q.shape[1:]) < 1:
        raise ValueError(f'heads, d, H and W must be at least 1, got q.shape={tuple(q.shape)}')
