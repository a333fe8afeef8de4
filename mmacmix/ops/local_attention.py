"""Local attention: the public functions and their contract."""

from typing import List, Optional

from torch import Tensor

from mmacmix.ops.backends import choose
from mmacmix.ops.checks import check_odd, check_positive_integers
from mmacmix.ops.exporting import exporting, local_attention_by_rows
from mmacmix.ops.reference import local_attention_reference
from mmacmix.ops.registered import attend, split
from mmacmix.ops.window import Window


def local_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel_size: int = 7,
    stride: int = 1,
    dilation: int = 1,
    scale: Optional[float] = None,
    position: Optional[Tensor] = None,
    backend: str = 'auto',
) -> Tensor:
    """Softmax attention of every pixel over the window around it (ACmix paper, section 3.2).

    ``out[i] = sum_j softmax_j(scale * <q[i], k[j] - position[j]>) v[j]`` with j in the kernel_size x
    kernel_size window centred at i, on the map continued by reflection at its borders. ACmix's
    position code p enters the logits as ``k[j] + p[i] - p[j]``; the term of p[i] is the same for the
    whole window and cancels in the softmax.

    Args:
        q: Queries, (B, heads, d, H, W), at full resolution; ``q[..., ::stride, ::stride]`` is used.
        k: Keys, (B, heads, d, H, W).
        v: Values, (B, heads, d, H, W). q, k and v may have any strides; they share dtype and device.
        kernel_size: Side of the window, odd.
        stride: Step between the pixels that ask.
        dilation: Step between the pixels of a window.
        scale: Factor of the logits; d ** -0.5 by default.
        position: Position code, (d, H, W), the same for all images and heads; 0 by default.
        backend: 'reference', 'tiled', 'triton' or 'auto': see :mod:`mmacmix.ops.backends`.

    Returns:
        (B, heads, d, ceil(H / stride), ceil(W / stride)) in the dtype of q.

    Raises:
        TypeError: A tensor is not of a floating-point type.
        ValueError: Shapes, dtypes or devices differ, or an argument is out of its range.
        RuntimeError: The named backend cannot run on these tensors.

    Example:
        >>> q = k = v = torch.randn(2, 4, 16, 25, 32)
        >>> local_attention(q, k, v, stride=2).shape
        torch.Size([2, 4, 16, 13, 16])
    """
    _check_tensors(q, k, v)
    return _attend([q, k, v], q, kernel_size, stride, dilation, scale, position, backend)


def packed_local_attention(
    qkv: Tensor,
    kernel_size: int = 7,
    stride: int = 1,
    dilation: int = 1,
    scale: Optional[float] = None,
    position: Optional[Tensor] = None,
    backend: str = 'auto',
) -> Tensor:
    """:func:`local_attention` of one tensor, whose gradient then is one tensor as well: no copies.

    Args:
        qkv: Queries, keys and values, (B, 3, heads, d, H, W), any strides.

    The rest is as for :func:`local_attention`.
    """
    if not isinstance(qkv, Tensor) or qkv.dim() != 6 or qkv.size(1) != 3:
        got = tuple(qkv.shape) if isinstance(qkv, Tensor) else type(qkv).__name__
        raise ValueError(f'qkv must be a tensor of shape (B, 3, heads, d, H, W), got {got}')
    _check_tensors(qkv[:, 0])
    return _attend([qkv], qkv[:, 0], kernel_size, stride, dilation, scale, position, backend)


def _attend(
    qkv: List[Tensor],
    q: Tensor,
    kernel_size: int,
    stride: int,
    dilation: int,
    scale: Optional[float],
    position: Optional[Tensor],
    backend: str,
) -> Tensor:
    check_positive_integers(kernel_size=kernel_size, stride=stride, dilation=dilation)
    check_odd(kernel_size=kernel_size)
    if position is not None:
        _check_position(position, q)
    window = Window(kernel_size, stride, dilation, q.size(2) ** -0.5 if scale is None else float(scale))
    recorded = exporting()
    if not recorded:
        backend = choose(q, backend)
    if not recorded and backend != 'reference':
        return attend(qkv, position, window, backend)
    q, k, v = split(qkv)
    plain = local_attention_by_rows if recorded else local_attention_reference
    return plain(q, k if position is None else k - position, v, *window)


def _check_tensors(q: Tensor, k: Optional[Tensor] = None, v: Optional[Tensor] = None) -> None:
    for name, x in (('q', q), ('k', k), ('v', v)):
        if x is None and k is None:
            continue
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


def _check_position(position: Tensor, q: Tensor) -> None:
    if position.shape != q.shape[2:]:
        raise ValueError(
            f'position must have shape (d, H, W)={tuple(q.shape[2:])}, got position.shape={tuple(position.shape)}'
        )
    if position.dtype != q.dtype or position.device != q.device:
        raise ValueError(
            'position must share dtype and device with q, '
            f'got position on {position.device} in {position.dtype} and q on {q.device} in {q.dtype}'
        )
