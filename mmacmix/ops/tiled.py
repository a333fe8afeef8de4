"""Local attention by tiles of 4 x 4 queries: memory grows with the map, not with the window.

The queries of a tile share one block of keys (10 x 10 for a 7 x 7 window), so logits and weighted sums are
small matrix products. Softmax is taken over the valid logits only, which a strided view of the product shows
as (tile, tile, k, k). Tiles are worked off in chunks of a fixed size, and the backward pass computes the
probabilities again from the saved log-sum-exp, so no window is kept between the passes.
"""

from contextlib import nullcontext
from typing import ContextManager, Iterator, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmacmix.ops.reflection import fold_reflection, reflection_index

TILE = 4
CHUNK_BYTES = 4 * 2**20  # of logits at a time, so that they are still in cache when they are used again


class _Geometry(NamedTuple):
    """How one call is cut into tiles; all lengths in pixels."""

    kernel_size: int
    stride: int
    dilation: int
    rows: int  # tiles per column of the map
    cols: int  # tiles per row of the map

    @property
    def step(self) -> int:
        """Keys from one tile to the next."""
        return TILE * self.stride

    @property
    def pad(self) -> int:
        return self.dilation * (self.kernel_size // 2)

    @property
    def block(self) -> int:
        """Side of the block of keys that a tile reads."""
        return (TILE - 1) * self.stride + 2 * self.pad + 1

    def padded(self, tiles: int) -> int:
        """Keys along an axis that so many tiles read."""
        return (tiles - 1) * self.step + self.block

    def valid_logits(self, logits: Tensor) -> Tensor:
        """View (N, TILE**2, block**2) as (N, TILE, TILE, k, k): each query's own window."""
        block, k = self.block, self.kernel_size
        query = TILE * block * block
        return logits.as_strided(
            (logits.size(0), TILE, TILE, k, k),
            (
                TILE * query,
                query + self.stride * block,
                block * block + self.stride,
                self.dilation * block,
                self.dilation,
            ),
        )

    def copy_valid(self, logits: Tensor) -> Tensor:
        """The same logits in memory of their own, (N, TILE**2, k**2)."""
        own = self.valid_logits(logits).clone(memory_format=torch.contiguous_format)
        return own.view(logits.size(0), TILE**2, self.kernel_size**2)

    def chunks(self, batch: int, heads: int) -> Iterator[Tuple[slice, slice]]:
        """Slices of images and of tile rows whose logits fill about CHUNK_BYTES."""
        row_bytes = 4 * heads * self.cols * TILE**2 * self.block**2
        rows = min(self.rows, max(1, CHUNK_BYTES // row_bytes))
        images = max(1, CHUNK_BYTES // (row_bytes * rows))
        for b in range(0, batch, images):
            for r in range(0, self.rows, rows):
                yield slice(b, min(b + images, batch)), slice(r, min(r + rows, self.rows))


def local_attention_tiled(
    q: Tensor, k: Tensor, v: Tensor, kernel_size: int, stride: int, dilation: int, scale: float
) -> Tensor:
    """Implements :func:`mmacmix.ops.local_attention`; fp16 and bf16 are computed in fp32. No double backward."""
    if stride > 1:
        q = q[..., ::stride, ::stride]
    rows, cols = (-(-n // TILE) for n in q.shape[-2:])
    return _TiledLocalAttention.apply(
        q, k, v, _Geometry(kernel_size, stride, dilation, rows, cols), scale
    )


class _TiledLocalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, geo, scale):
        with _own_precision(q):
            queries = _tile_queries(q, geo)
            keys, values = _tile_keys(k, geo), _tile_keys(v, geo)
            out = torch.empty(
                (*q.shape[:3], geo.rows * TILE, geo.cols * TILE), dtype=q.dtype, device=q.device
            )
            log_sums = []
            for images, rows in geo.chunks(q.size(0), q.size(1)):
                block_q, block_k, block_v = (_blocks(x[images, rows]) for x in (queries, keys, values))
                product, logits = _logits(block_q, block_k, geo, scale)
                log_sum = logits.logsumexp(-1, keepdim=True)
                log_sums.append(log_sum)
                probs = _scatter(product, logits.sub_(log_sum).exp_(), geo)
                _put_queries(out, torch.bmm(block_v, probs.transpose(1, 2)), images, rows, geo)
        out = out[..., : q.size(-2), : q.size(-1)]
        ctx.geo, ctx.scale = geo, scale
        ctx.save_for_backward(q, k, v, out, *log_sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, k, v, out, *log_sums = ctx.saved_tensors
        geo, scale = ctx.geo, ctx.scale
        with _own_precision(q):
            queries, grads, outs = (_tile_queries(x, geo) for x in (q, grad, out))
            keys, values = _tile_keys(k, geo), _tile_keys(v, geo)
            shape = (*q.shape[:3], geo.rows * TILE, geo.cols * TILE)
            grad_q = torch.empty(shape, dtype=_compute_dtype(q), device=q.device)
            shape = (*k.shape[:3], geo.padded(geo.rows), geo.padded(geo.cols))
            grad_k, grad_v = (grad_q.new_zeros(shape) for _ in range(2))
            for (images, rows), log_sum in zip(geo.chunks(q.size(0), q.size(1)), log_sums):
                block_q, block_g, block_o, block_k, block_v = (
                    _blocks(x[images, rows]) for x in (queries, grads, outs, keys, values)
                )
                product, logits = _logits(block_q, block_k, geo, scale)
                probs = logits.sub_(log_sum).exp_()
                product = _scatter(product, probs, geo)
                _add_keys(grad_v, torch.bmm(block_g, product), images, rows, geo)
                torch.bmm(block_g.transpose(1, 2), block_v, out=product)
                delta = (block_g * block_o).sum(1).unsqueeze(-1)
                grad_logits = geo.copy_valid(product)
                grad_logits.sub_(delta).mul_(probs).mul_(scale)
                product = _scatter(product, grad_logits, geo)
                _put_queries(grad_q, torch.bmm(block_k, product.transpose(1, 2)), images, rows, geo)
                _add_keys(grad_k, torch.bmm(block_q, product), images, rows, geo)
            grad_q = grad_q[..., : q.size(-2), : q.size(-1)]
            grad_k, grad_v = (_fold_keys(x, k.shape, geo.pad) for x in (grad_k, grad_v))
        return grad_q.to(q.dtype), grad_k.to(q.dtype), grad_v.to(q.dtype), None, None


def _own_precision(x: Tensor) -> ContextManager:
    """Keeps autocast from taking the products down to half precision."""
    if x.device.type == 'meta':  # where there is no autocast
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def _compute_dtype(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _tile_queries(x: Tensor, geo: _Geometry) -> Tensor:
    """(B, heads, d, Hq, Wq) as a view (B, rows, cols, heads, d, TILE, TILE) of the map filled up with zeros."""
    fill = (0, geo.cols * TILE - x.size(-1), 0, geo.rows * TILE - x.size(-2))
    x = F.pad(x.to(_compute_dtype(x)), fill) if any(fill) else x.to(_compute_dtype(x))
    x = x.unflatten(4, (geo.cols, TILE)).unflatten(3, (geo.rows, TILE))
    return x.permute(0, 3, 5, 1, 2, 4, 6)


def _tile_keys(x: Tensor, geo: _Geometry) -> Tensor:
    """(B, heads, d, H, W) as a view (B, rows, cols, heads, d, block, block) of the reflected map."""
    x = x.to(_compute_dtype(x))
    for dim, tiles in ((3, geo.rows), (4, geo.cols)):
        index = reflection_index(x.size(dim), geo.pad, x.device)
        size = geo.padded(tiles)
        # Beyond the border only queries that are cut off again look: any entry will do.
        index = F.pad(index, (0, max(0, size - index.numel())))[:size]
        x = x.index_select(dim, index)
    x = x.unfold(3, geo.block, geo.step).unfold(4, geo.block, geo.step)
    return x.permute(0, 3, 4, 1, 2, 5, 6)


def _blocks(tiles: Tensor) -> Tensor:
    """(B, rows, cols, heads, d, side, side) in memory of its own, (N, d, side**2)."""
    return tiles.reshape(-1, tiles.size(4), tiles.size(5) * tiles.size(6))


def _logits(block_q: Tensor, block_k: Tensor, geo: _Geometry, scale: float) -> Tuple[Tensor, Tensor]:
    """Products of all queries and keys of each tile, and a scaled copy of the valid ones, (N, TILE**2, k**2)."""
    product = torch.bmm(block_q.transpose(1, 2), block_k)
    return product, geo.copy_valid(product).mul_(scale)


def _scatter(product: Tensor, valid: Tensor, geo: _Geometry) -> Tensor:
    """Overwrites ``product`` by ``valid`` at each query's window and 0 elsewhere."""
    view = geo.valid_logits(product.zero_())
    view.copy_(valid.view(view.shape))
    return product


def _put_queries(out: Tensor, tiles: Tensor, images: slice, rows: slice, geo: _Geometry) -> None:
    """Writes (N, d, TILE**2) to its place in (B, heads, d, rows * TILE, cols * TILE)."""
    part = out[images, :, :, rows.start * TILE : rows.stop * TILE]
    part = part.unflatten(4, (geo.cols, TILE)).unflatten(3, (-1, TILE)).permute(0, 3, 5, 1, 2, 4, 6)
    part.copy_(tiles.view(part.shape))


def _add_keys(out: Tensor, tiles: Tensor, images: slice, rows: slice, geo: _Geometry) -> None:
    """Adds (N, d, block**2) to the overlapping blocks of (B, heads, d, padded rows, padded columns)."""
    part = out[images, :, :, rows.start * geo.step :]
    batch, heads, d = part.shape[:3]
    count = rows.stop - rows.start
    tiles = tiles.view(batch, count, geo.cols, heads, d, geo.block, geo.block)
    strides = part.stride()
    # Pieces of at most one step, so that the places written at a time do not overlap.
    pieces = [(i, min(i + geo.step, geo.block)) for i in range(0, geo.block, geo.step)]
    for top, bottom in pieces:
        for left, right in pieces:
            view = part.as_strided(
                (batch, count, geo.cols, heads, d, bottom - top, right - left),
                (
                    strides[0],
                    geo.step * strides[3],
                    geo.step * strides[4],
                    *strides[1:],
                ),
                part.storage_offset() + top * strides[3] + left * strides[4],
            )
            view.add_(tiles[..., top:bottom, left:right])


def _fold_keys(grad: Tensor, shape: torch.Size, pad: int) -> Tensor:
    """Gradient of the reflected map back onto the map."""
    return fold_reflection(fold_reflection(grad, 3, shape[3], pad), 4, shape[4], pad)
