"""Local attention by tiles of 4 x 4 queries: memory grows with the map, not with the window. Pure PyTorch.

The queries of a tile share one block of keys (10 x 10 for a 7 x 7 window), so logits, weighted sums and gradients are
batched matrix products, of which 49 % are wanted and the rest is masked in the softmax. Tiles are worked off in
chunks that stay in cache, some heads at a time. The backward pass computes the probabilities again, so nothing but
the inputs is kept for it.
"""

from typing import Iterator, Optional, Tuple

import torch
from torch import Tensor

from mmacmix.ops.maps import Maps
from mmacmix.ops.scratch import Scratch, scratch
from mmacmix.ops.tiles import TILE, Axis, Chunk, chunks
from mmacmix.ops.window import Window

CHUNK_BYTES = 2 * 2**20  # logits of the tiles that are worked off together
MAPS_BYTES = 8 * 2**20  # keys of the heads whose maps are held at a time
USES_OUTPUT = False  # in the backward pass


def forward(q: Tensor, k: Tensor, v: Tensor, position: Optional[Tensor], window: Window, out: Tensor) -> Tensor:
    """Writes the attention of q, k - position and v, all (B, heads, d, H, W) of any strides, into ``out``.

    fp16 and bf16 are computed in fp32.

    Args:
        position: (d, H, W), or None for 0.
        out: (B, heads, d, ceil(H / stride), ceil(W / stride)), any strides.

    Returns:
        An empty tensor: nothing else is to be kept for the backward pass.
    """
    maps = _maps(q, window)
    with scratch(maps.options) as buffer:
        for part in _parts(q, maps):
            queries, keys, values = maps.load(q[part], k[part], v[part], position, window, buffer)
            for y, x in maps.phases:
                mask = _mask(y, queries)
                for chunk in _chunks(y, x, queries):
                    tiles_q = chunk.query_tiles(queries, buffer, 'queries')
                    tiles_k = chunk.key_tiles(keys, buffer, 'keys')
                    probs = _probabilities(chunk, tiles_q, tiles_k, mask, buffer)
                    tiles_v = chunk.key_tiles(values, buffer, 'keys')
                    # Each query is read before its result is written in its place.
                    chunk.put_queries(queries, torch.bmm(probs, tiles_v, out=tiles_q))
            maps.store_queries(queries, out[part])
    return torch.empty(0, **maps.options)


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    position: Optional[Tensor],
    out: Tensor,
    saved: Tensor,
    window: Window,
    grad_q: Tensor,
    grad_k: Tensor,
    grad_v: Tensor,
) -> None:
    """Overwrites grad_q, grad_k and grad_v, all (B, heads, d, H, W) of any strides.

    The gradient of ``position`` is -grad_k, summed over images and heads.

    Args:
        grad: Gradient of ``out``, any strides.
        out, saved: Unused.
    """
    maps = _maps(q, window)
    with scratch(maps.options) as buffer:
        for part in _parts(q, maps):
            queries, keys, values = maps.load(q[part], k[part], v[part], position, window, buffer)
            grads = maps.load_queries(grad[part], buffer)
            sums_k, sums_v = (maps.keys(buffer, name, len(keys)).zero_() for name in ('sums_k', 'sums_v'))
            for y, x in maps.phases:
                mask = _mask(y, queries)
                for chunk in _chunks(y, x, queries):
                    tiles_q = chunk.query_tiles(queries, buffer, 'queries')
                    tiles_g = chunk.query_tiles(grads, buffer, 'grads')
                    tiles_k = chunk.key_tiles(keys, buffer, 'keys')
                    tiles_v = chunk.key_tiles(values, buffer, 'values')
                    probs = _probabilities(chunk, tiles_q, tiles_k, mask, buffer)
                    sums = chunk.matrices(buffer, 'sums', y.block**2, maps.d)
                    torch.bmm(probs.transpose(1, 2), tiles_g, out=sums)
                    chunk.add_keys(sums_v, sums, buffer)
                    slopes = chunk.matrices(buffer, 'logits', *probs.shape[1:])
                    torch.bmm(tiles_g, tiles_v.transpose(1, 2), out=slopes)
                    torch._softmax_backward_data(slopes, probs, -1, probs.dtype, grad_input=slopes)
                    torch.bmm(slopes.transpose(1, 2), tiles_q, out=sums)
                    chunk.add_keys(sums_k, sums, buffer)
                    chunk.put_queries(queries, torch.bmm(slopes, tiles_k, out=tiles_q))
            maps.store_gradients((queries, sums_k, sums_v), (grad_q[part], grad_k[part], grad_v[part]), window)


def _maps(q: Tensor, window: Window) -> Maps:
    return Maps(q.shape, window, torch.promote_types(q.dtype, torch.float32), q.device)


def _parts(q: Tensor, maps: Maps) -> Iterator[Tuple[slice, slice]]:
    """Images and heads that are worked off together. Heads that share cache lines are not separated."""
    at_a_time = max(1, MAPS_BYTES // maps.bytes)
    some_heads = q.size(1) if q.stride(1) < q.stride(4) else min(q.size(1), at_a_time)
    images = max(1, at_a_time // q.size(1))
    for b in range(0, q.size(0), images):
        for h in range(0, q.size(1), some_heads):
            yield slice(b, b + images), slice(h, h + some_heads)


def _chunks(y: Axis, x: Axis, queries: Tensor):
    logits = queries.element_size() * TILE**2 * y.block**2
    return chunks(y, x, len(queries), max(1, CHUNK_BYTES // logits))


def _mask(axis: Axis, like: Tensor) -> Tensor:
    """0 where a key of the block is in a query's window, -inf elsewhere: (TILE**2, block**2), keys by columns."""
    query = torch.arange(TILE, device=like.device) * axis.stride
    place = torch.arange(axis.block, device=like.device) - query[:, None]
    near = (place >= 0) & (place < axis.kernel_size)  # (TILE, block)
    both = near[:, None, None, :] & near[None, :, :, None]  # query row, query column, key column, key row
    mask = torch.zeros(both.shape, dtype=like.dtype, device=like.device).masked_fill_(~both, float('-inf'))
    return mask.view(TILE**2, axis.block**2)


def _probabilities(chunk: Chunk, tiles_q: Tensor, tiles_k: Tensor, mask: Tensor, buffer: Scratch) -> Tensor:
    """(tiles, TILE**2, block**2), 0 outside of the windows."""
    logits = chunk.matrices(buffer, 'logits', *mask.shape)
    torch.baddbmm(mask, tiles_q, tiles_k.transpose(1, 2), out=logits)
    probs = chunk.matrices(buffer, 'probs', *mask.shape)
    return torch._softmax(logits, -1, False, out=probs)
