"""Attention in windows with a bias, some rows of windows at a time: logits never leave the cache, and none are kept."""

from functools import lru_cache
from typing import Iterator, List, NamedTuple, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from mmacmix.ops.scratch import Scratch, scratch

REGISTERED = hasattr(torch.library, 'custom_op')
CHUNK_BYTES = 2 * 2**20  # logits of the windows that are worked off together
BARRED = -100.0  # summand of barred logits, as released weights were trained


def window_attention(
    maps: Tensor, bias: Tensor, heads: int, window: int, shift: int = 0, dropout: float = 0.0
) -> Tensor:
    """Softmax attention within window x window pixels (Swin Transformer, arXiv 2103.14030, section 3.2).

    On a CPU an operator of its own, else torch's scaled_dot_product_attention.

    Args:
        maps: Projections, (B, H, W, d, at least 3 * heads), of which the first 3 * heads are the queries, keys and
            values of the heads; H and W are multiples of ``window``.
        bias: Summand of the logits by head and pair of pixels, (heads, window**2, window**2).
        heads: Number of heads.
        window: Side of the windows in pixels.
        shift: By how much the map was rolled: pixels that met in a window only by that do not see each other.
        dropout: Probability with which a pair is left out.

    Returns:
        (B, H, W, heads * d)
    """
    if REGISTERED and maps.device.type == 'cpu' and not dropout:
        return _op(maps, bias, heads, window, shift)
    return windows_written_out(maps, bias, heads, window, shift, dropout)


def windows_written_out(
    maps: Tensor, bias: Tensor, heads: int, window: int, shift: int = 0, dropout: float = 0.0
) -> Tensor:
    """The same by torch's own attention over all windows at a time."""
    rows, cols = (n // window for n in maps.shape[1:3])
    summand = bias
    if shift:
        summand = bias + shift_mask(rows, cols, window, shift, bias.dtype, bias.device).unflatten(0, (rows, cols))
    out = attend_in_windows(maps, summand, heads, window, dropout)
    return out.transpose(2, 3).reshape(*maps.shape[:3], heads * maps.size(3))


def attend_in_windows(maps: Tensor, summand: Tensor, heads: int, window: int, dropout: float = 0.0) -> Tensor:
    """Outputs by window, (B, rows, cols, window, window, heads * d), of :func:`window_attention`.

    Args:
        summand: Of the logits, (heads, window**2, window**2) or (rows, cols, heads, window**2, window**2).

    The rest is as for :func:`window_attention`.
    """
    batch, height, width, d = maps.shape[:4]
    rows, cols = height // window, width // window
    qkv = maps[..., : 3 * heads].unflatten(4, (3, heads)).unflatten(2, (cols, window)).unflatten(1, (rows, window))
    qkv = qkv.permute(6, 0, 1, 3, 7, 2, 4, 5).reshape(3, batch, rows * cols * heads, window**2, d)
    summand = summand.expand(rows, cols, heads, window**2, window**2)
    summand = summand.reshape(1, rows * cols * heads, window**2, window**2).to(qkv.dtype)
    out = F.scaled_dot_product_attention(*qkv, attn_mask=summand, dropout_p=dropout)
    return out.view(batch, rows, cols, heads, window, window, d).permute(0, 1, 2, 4, 5, 3, 6).flatten(5)


def open_shift_mask(ys: Tensor, xs: Tensor, window: int, shift: Union[int, Tensor], dtype: torch.dtype) -> Tensor:
    """:func:`shift_mask`, (rows, cols, 1, window**2, window**2), for sizes and a shift that are not known yet.

    Args:
        ys, xs: The places 0, 1, ... along both axes.
        shift: A number, or a tensor of one.
    """
    # Of the pixels of a window, which are behind the seams: they see only their like.
    y, x = ((place >= place.numel() - shift).to(dtype).unflatten(0, (-1, window)) for place in (ys, xs))
    side = (2 * y[:, None, :, None] + x[None, :, None, :]).flatten(2)  # (rows, cols, window**2)
    return ((side.unsqueeze(3) != side.unsqueeze(2)).to(dtype) * BARRED).unsqueeze(2)


def shift_mask(rows: int, cols: int, window: int, shift: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """0 where a pair may attend, BARRED where not: (rows * cols, 1, window**2, window**2)."""
    ys, xs = (torch.arange(n * window, device=device) for n in (rows, cols))
    return open_shift_mask(ys, xs, window, shift, dtype).flatten(0, 1)


@lru_cache(maxsize=16)
def _border_masks(window: int, shift: int, dtype: torch.dtype) -> Tuple[Tensor, Tensor, Tensor]:
    """Masks of windows in the last row, in the last column and in the corner, (window**2, window**2) each."""
    with torch.inference_mode(False):
        mask = shift_mask(2, 2, window, shift, dtype, torch.device('cpu'))  # whatever the default device is
        return mask[2, 0], mask[1, 0], mask[3, 0]


class _Chunk(NamedTuple):
    """Rows of windows of one image that are worked off together."""

    image: int
    first: int  # row of windows
    rows: int
    cols: int
    heads: int
    window: int

    @property
    def count(self) -> int:
        return self.rows * self.cols * self.heads

    def matrices(self, buffer: Scratch, name: str, *size: int) -> Tensor:
        """Memory for (size, windows * heads, ...), the last two of ``size`` being those of the matrix."""
        *outer, rows, cols = size
        shape = torch.Size((*outer, self.count, rows, cols))
        return buffer(name, shape.numel()).view(shape)

    def pixels(self, maps: Tensor) -> Tensor:
        """View of (B, H, W, ...) as (rows, window, cols, window, ...)."""
        part = maps[self.image].narrow(0, self.first * self.window, self.rows * self.window)
        return part.unflatten(1, (self.cols, self.window)).unflatten(0, (self.rows, self.window))

    def split(self, matrices: Tensor) -> Tensor:
        """View of (..., windows * heads, window**2, d) as (..., rows, cols, heads, window, window, d)."""
        return matrices.unflatten(-2, (self.window, self.window)).unflatten(-4, (self.rows, self.cols, self.heads))

    def queries_keys_values(self, maps: Tensor) -> Tensor:
        """View of the projections as (3, rows, cols, heads, window, window, d)."""
        part = self.pixels(maps[..., : 3 * self.heads]).unflatten(5, (3, self.heads))
        return part.permute(5, 0, 2, 6, 1, 3, 4)

    def outputs(self, out: Tensor) -> Tensor:
        """View of the outputs, (B, H, W, heads * d), as (rows, cols, heads, window, window, d)."""
        return self.pixels(out).unflatten(4, (self.heads, -1)).permute(0, 2, 4, 1, 3, 5)


def _chunks(maps: Tensor, heads: int, window: int) -> Iterator[_Chunk]:
    batch, height, width = maps.shape[:3]
    rows, cols = height // window, width // window
    some = max(1, CHUNK_BYTES // (4 * cols * heads * window**4))
    for image in range(batch):
        for first in range(0, rows, some):
            yield _Chunk(image, first, min(some, rows - first), cols, heads, window)


def _probabilities(chunk: _Chunk, q: Tensor, k: Tensor, bias: Tensor, shift: int, last: int, buffer: Scratch) -> Tensor:
    """(windows * heads, window**2, window**2) for q and k of the chunk; ``last`` is the last row of windows."""
    logits = chunk.matrices(buffer, 'logits', *bias.shape[1:])
    summand = logits.view(chunk.rows, chunk.cols, *bias.shape)
    summand.copy_(bias)
    if shift:
        down, right, both = _border_masks(chunk.window, shift, bias.dtype)
        summand[:, -1] += right
        if chunk.first + chunk.rows == last:
            summand[-1, :-1] += down
            summand[-1, -1] += both - right
    logits.baddbmm_(q, k.transpose(1, 2), alpha=q.size(2) ** -0.5)
    return torch._softmax(logits, -1, False, out=chunk.matrices(buffer, 'probs', *bias.shape[1:]))


def _options(maps: Tensor) -> dict:
    return dict(dtype=torch.promote_types(maps.dtype, torch.float32), device=maps.device)


def _forward(maps: Tensor, bias: Tensor, heads: int, window: int, shift: int) -> Tensor:
    out = _forward_fake(maps, bias, heads, window, shift)
    options, d = _options(maps), maps.size(3)
    bias = bias.to(options['dtype'])
    with scratch(options) as buffer:
        for chunk in _chunks(maps, heads, window):
            qkv = chunk.matrices(buffer, 'qkv', 3, window**2, d)
            chunk.split(qkv).copy_(chunk.queries_keys_values(maps))
            probs = _probabilities(chunk, qkv[0], qkv[1], bias, shift, maps.size(1) // window, buffer)
            chunk.outputs(out).copy_(chunk.split(torch.bmm(probs, qkv[2], out=qkv[0])))
    return out


def _forward_fake(maps: Tensor, bias: Tensor, heads: int, window: int, shift: int) -> Tensor:
    return maps.new_empty((*maps.shape[:3], heads * maps.size(3)))


def _backward(grad: Tensor, maps: Tensor, bias: Tensor, heads: int, window: int, shift: int) -> List[Tensor]:
    options, d = _options(maps), maps.size(3)
    scale = d**-0.5
    grad_maps, grad_bias = torch.empty_like(maps), torch.zeros(bias.shape, **options)
    exact = bias.to(options['dtype'])
    with scratch(options) as buffer:
        for chunk in _chunks(maps, heads, window):
            qkv = chunk.matrices(buffer, 'qkv', 3, window**2, d)
            chunk.split(qkv).copy_(chunk.queries_keys_values(maps))
            grads = chunk.matrices(buffer, 'grads', window**2, d)
            chunk.split(grads).copy_(chunk.outputs(grad))
            probs = _probabilities(chunk, qkv[0], qkv[1], exact, shift, maps.size(1) // window, buffer)
            results = chunk.matrices(buffer, 'results', 3, window**2, d)
            torch.bmm(probs.transpose(1, 2), grads, out=results[2])
            slopes = chunk.matrices(buffer, 'logits', *bias.shape[1:])
            torch.bmm(grads, qkv[2].transpose(1, 2), out=slopes)
            torch._softmax_backward_data(slopes, probs, -1, probs.dtype, grad_input=slopes)
            grad_bias += slopes.view(-1, *bias.shape).sum(0)
            torch.bmm(slopes, qkv[1], out=results[0])
            torch.bmm(slopes.transpose(1, 2), qkv[0], out=results[1])
            results[:2].mul_(scale)
            chunk.queries_keys_values(grad_maps).copy_(chunk.split(results))
            chunk.pixels(grad_maps)[..., 3 * heads :].zero_()
    return [grad_maps, grad_bias.to(bias.dtype)]


def _backward_fake(grad: Tensor, maps: Tensor, bias: Tensor, heads: int, window: int, shift: int) -> List[Tensor]:
    return [torch.empty_like(maps), torch.empty_like(bias)]


def _flops(maps, bias, heads, window, shift, *args, out_shape=None, **kwargs) -> int:
    batch, height, width, d = maps[:4]
    return 4 * batch * height * width * heads * d * window**2


def _backward_flops(grad, maps, *args, out_shape=None, **kwargs) -> int:
    return _flops(maps, *args) * 5 // 2


if REGISTERED:
    _op = torch.library.custom_op('mmacmix::window_attention', _forward, mutates_args=())
    _op.register_fake(_forward_fake)
    _backward_op = torch.library.custom_op('mmacmix::window_attention_backward', _backward, mutates_args=())
    _backward_op.register_fake(_backward_fake)

    def _setup(ctx, inputs, output) -> None:
        maps, bias, *ctx.options = inputs
        ctx.save_for_backward(maps, bias)

    def _gradients(ctx, grad):
        return (*_backward_op(grad, *ctx.saved_tensors, *ctx.options), None, None, None)

    def _refuse(ctx, *grads):
        raise RuntimeError('window_attention has no double backward on a CPU: use windows_written_out for it')

    _op.register_autograd(_gradients, setup_context=_setup)
    _backward_op.register_autograd(_refuse, setup_context=lambda ctx, inputs, output: None)

    from torch.utils.flop_counter import register_flop_formula

    register_flop_formula(torch.ops.mmacmix.window_attention)(_flops)
    register_flop_formula(torch.ops.mmacmix.window_attention_backward)(_backward_flops)
