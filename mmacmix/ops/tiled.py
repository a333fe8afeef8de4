"""Local attention by tiles of 4 x 4 queries: memory grows with the map, not with the window.

The queries of a tile share one block of keys (10 x 10 for a 7 x 7 window), so logits and weighted sums are
small matrix products. Softmax is taken over the valid logits only, which a strided view of the product shows
as (tile, tile, k, k). Tiles are worked off in chunks of a fixed size, and the backward pass computes the
probabilities again from the saved log-sum-exp, so no window is kept between the passes. A dilated
window makes the block of keys larger, and the work with it: about (4 + 6 dilation)**2 keys per tile for a 7 x 7 window.
"""

from contextlib import nullcontext
from typing import ContextManager, Iterator, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmacmix.ops.reflection import fold_reflection, reflection_index

TILE = 4
CHUNK_BYTES = 12 * 2**20  # of keys, values and logits at a time: still in cache when they are used again


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

    def chunks(self, batch: int, heads: int, d: int) -> Iterator[Tuple[slice, slice, slice]]:
        """Slices of images, tile rows and tile columns whose intermediate results fill about CHUNK_BYTES."""
        tiles = max(1, CHUNK_BYTES // (4 * heads * self.block**2 * (2 * d + TILE**2)))
        cols = min(self.cols, tiles)
        rows = min(self.rows, max(1, tiles // cols))
        images = max(1, tiles // (rows * cols))
        for b in range(0, batch, images):
            for r in range(0, self.rows, rows):
                for c in range(0, self.cols, cols):
                    yield (
                        slice(b, min(b + images, batch)),
                        slice(r, min(r + rows, self.rows)),
                        slice(c, min(c + cols, self.cols)),
                    )


def local_attention_tiled(
    q: Tensor, k: Tensor, v: Tensor, kernel_size: int, stride: int, dilation: int, scale: float
) -> Tensor:
    """Implements :func:`mmacmix.ops.local_attention`; fp16 and bf16 are computed in fp32."""
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
            for place in geo.chunks(*q.shape[:3]):
                block_q, block_k, block_v = (_blocks(x[place]) for x in (queries, keys, values))
                product, logits = _logits(block_q, block_k, geo, scale)
                log_sum = logits.logsumexp(-1, keepdim=True)
                log_sums.append(log_sum)
                probs = _scatter(product, logits.sub_(log_sum).exp_(), geo)
                _put_queries(out, torch.bmm(block_v, probs.transpose(1, 2)), place)
        out = _crop(out, q)
        ctx.geo, ctx.scale = geo, scale
        ctx.save_for_backward(q, k, v, out, *log_sums)
        return out

    @staticmethod
    def backward(ctx, grad):
        q, k, v, out, *log_sums = ctx.saved_tensors
        grads = _TiledGradient.apply(grad, q, k, v, out.detach(), ctx.geo, ctx.scale, *log_sums)
        return (*grads, None, None)


class _TiledGradient(torch.autograd.Function):
    """The backward pass as a function of its own, so that deriving it again is an error and not a wrong result."""

    @staticmethod
    def forward(ctx, grad, q, k, v, out, geo, scale, *log_sums):
        with _own_precision(q):
            queries, grads, outs = (_tile_queries(x, geo) for x in (q, grad, out))
            keys, values = _tile_keys(k, geo), _tile_keys(v, geo)
            shape = (*q.shape[:3], geo.rows * TILE, geo.cols * TILE)
            grad_q = torch.empty(shape, dtype=_compute_dtype(q), device=q.device)
            shape = (*k.shape[:3], geo.padded(geo.rows), geo.padded(geo.cols))
            grad_k, grad_v = (grad_q.new_zeros(shape) for _ in range(2))
            for place, log_sum in zip(geo.chunks(*q.shape[:3]), log_sums):
                block_q, block_g, block_o, block_k, block_v = (
                    _blocks(x[place]) for x in (queries, grads, outs, keys, values)
                )
                product, logits = _logits(block_q, block_k, geo, scale)
                probs = logits.sub_(log_sum).exp_()
                product = _scatter(product, probs, geo)
                _add_keys(grad_v, torch.bmm(block_g, product), place, geo)
                torch.bmm(block_g.transpose(1, 2), block_v, out=product)
                delta = (block_g * block_o).sum(1).unsqueeze(-1)
                grad_logits = geo.copy_valid(product)
                grad_logits.sub_(delta).mul_(probs).mul_(scale)
                product = _scatter(product, grad_logits, geo)
                _put_queries(grad_q, torch.bmm(block_k, product.transpose(1, 2)), place)
                _add_keys(grad_k, torch.bmm(block_q, product), place, geo)
            grad_q = _crop(grad_q, q)
            grad_k, grad_v = (_fold_keys(x, k.shape, geo.pad) for x in (grad_k, grad_v))
        return grad_q.to(q.dtype), grad_k.to(q.dtype), grad_v.to(q.dtype)

    @staticmethod
    def backward(ctx, *grads):
        raise RuntimeError(
            "local_attention has no double backward with backend='tiled': use backend='reference' for it"
        )


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


def _crop(out: Tensor, q: Tensor) -> Tensor:
    """The part of whole tiles that the map covers, in memory of its own."""
    if out.shape[-2:] == q.shape[-2:]:
        return out
    return out[..., : q.size(-2), : q.size(-1)].contiguous()


def _put_queries(out: Tensor, tiles: Tensor, place: Tuple[slice, slice, slice]) -> None:
    """Writes (N, d, TILE**2) to its place in (B, heads, d, rows * TILE, cols * TILE)."""
    size = (out.size(3) // TILE, out.size(4) // TILE)
    out = out.unflatten(4, (size[1], TILE)).unflatten(3, (size[0], TILE))
    part = out.permute(0, 3, 5, 1, 2, 4, 6)[place]
    part.copy_(tiles.view(part.shape))


def _add_keys(out: Tensor, tiles: Tensor, place: Tuple[slice, slice, slice], geo: _Geometry) -> None:
    """Adds (N, d, block**2) to the overlapping blocks of (B, heads, d, padded rows, padded columns)."""
    images, rows, cols = place
    part = out[images, :, :, rows.start * geo.step :, cols.start * geo.step :]
    batch, heads, d = part.shape[:3]
    shape = (batch, rows.stop - rows.start, cols.stop - cols.start, heads, d)
    tiles = tiles.view(*shape, geo.block, geo.block)
    by_image, by_head, by_channel, by_row, by_col = part.stride()
    strides = (by_image, geo.step * by_row, geo.step * by_col, by_head, by_channel, by_row, by_col)
    # Pieces of at most one step, so that the places written at a time do not overlap.
    pieces = [(i, min(i + geo.step, geo.block)) for i in range(0, geo.block, geo.step)]
    for top, bottom in pieces:
        for left, right in pieces:
            offset = part.storage_offset() + top * by_row + left * by_col
            view = part.as_strided((*shape, bottom - top, right - left), strides, offset)
            view.add_(tiles[..., top:bottom, left:right])


def _fold_keys(grad: Tensor, shape: torch.Size, pad: int) -> Tensor:
    """Gradient of the reflected map back onto the map."""
    return fold_reflection(fold_reflection(grad, 3, shape[3], pad), 4, shape[4], pad)
