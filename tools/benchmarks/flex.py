"""The same windows through compiled FlexAttention (torch 2.5 and later, CUDA).

Queries and reflection-padded keys are ordered in tiles of 8 x 16 pixels, one block of FlexAttention each, which
leaves few blocks to visit. The list of blocks is made once per size, outside the measured time; padding and
ordering are inside, since a caller pays them.
"""

from typing import Callable, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = (8, 16)
BLOCK = TILE[0] * TILE[1]


def flex_attention(
    height: int, width: int, kernel_size: int, stride: int, dilation: int, device: str, compiled: bool = True
) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Local attention for maps of one size.

    Returns:
        Function of q, k, v (B, heads, d, H, W) and position (d, H, W).
    """
    from torch.nn.attention.flex_attention import flex_attention as attend

    mask = block_mask(height, width, kernel_size, stride, dilation, device)
    pad = kernel_size // 2 * dilation
    out_size = (-(-height // stride), -(-width // stride))

    def run(q: Tensor, k: Tensor, v: Tensor, position: Tensor) -> Tensor:
        k, v = (F.pad(x.flatten(0, 1), (pad,) * 4, mode='reflect').unflatten(0, x.shape[:2]) for x in (k - position, v))
        out = attend(to_tiles(q[..., ::stride, ::stride]), to_tiles(k), to_tiles(v), block_mask=mask)
        return from_tiles(out, *out_size)

    return torch.compile(run, dynamic=False, fullgraph=True) if compiled else run


def tiles_of(height: int, width: int) -> Tuple[int, int]:
    """Tiles down and across a map."""
    return -(-height // TILE[0]), -(-width // TILE[1])


def to_tiles(x: Tensor) -> Tensor:
    """(B, heads, d, H, W) to (B, heads, pixels in the order of tiles, d), zeros where tiles overhang."""
    down, across = tiles_of(*x.shape[-2:])
    x = F.pad(x, (0, across * TILE[1] - x.size(-1), 0, down * TILE[0] - x.size(-2)))
    x = x.unflatten(-1, (across, TILE[1])).unflatten(-3, (down, TILE[0]))  # (B, heads, d, down, 8, across, 16)
    return x.permute(0, 1, 3, 5, 4, 6, 2).flatten(2, 5)


def from_tiles(x: Tensor, height: int, width: int) -> Tensor:
    """Inverse of :func:`to_tiles`."""
    down, across = tiles_of(height, width)
    x = x.unflatten(2, (down, across, *TILE)).permute(0, 1, 6, 2, 4, 3, 5)
    return x.flatten(5).flatten(3, 4)[..., :height, :width]


def window_mask(height: int, width: int, kernel_size: int, stride: int, dilation: int) -> Callable:
    """Whether a query sees a key of the padded map, for indices in the order of tiles."""
    span = (kernel_size - 1) * dilation + 1
    across_q = tiles_of(-(-height // stride), -(-width // stride))[1]
    across_k = tiles_of(height + span - 1, width + span - 1)[1]

    def coordinates(index: Tensor, across: int) -> Tuple[Tensor, Tensor]:
        tile, inner = index // BLOCK, index % BLOCK
        return tile // across * TILE[0] + inner // TILE[1], tile % across * TILE[1] + inner % TILE[1]

    def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        (qy, qx), (ky, kx) = coordinates(query, across_q), coordinates(key, across_k)
        dy, dx = ky - qy * stride, kx - qx * stride
        inside = (dy >= 0) & (dy < span) & (dx >= 0) & (dx < span)
        return inside & (dy % dilation == 0) & (dx % dilation == 0)

    return sees


def block_mask(height: int, width: int, kernel_size: int, stride: int, dilation: int, device: str):
    """FlexAttention's mask, its blocks found by arithmetic: a dense one of 200 x 334 pixels has 4.7e9 entries."""
    from torch.nn.attention.flex_attention import BlockMask

    span = (kernel_size - 1) * dilation + 1
    grid_q = tiles_of(-(-height // stride), -(-width // stride))
    grid_k = tiles_of(height + span - 1, width + span - 1)

    def reached(axis: int) -> Tensor:
        """(query tiles, key tiles) of one axis: whether a window of the one reaches into the other."""
        side = TILE[axis]
        first_q = torch.arange(grid_q[axis], device=device).unsqueeze(1) * side * stride
        last_q = first_q + (side - 1) * stride + span - 1
        first_k = torch.arange(grid_k[axis], device=device) * side
        return (first_k <= last_q) & (first_k + side > first_q)

    down, across = reached(0), reached(1)
    visited = (down[:, None, :, None] & across[None, :, None, :]).flatten(2).flatten(0, 1)  # (query, key) tiles
    counts = visited.sum(1, dtype=torch.int32)
    order = visited.to(torch.int8).argsort(dim=1, descending=True, stable=True).to(torch.int32)
    return BlockMask.from_kv_blocks(
        counts[None, None],
        order[None, None].contiguous(),
        BLOCK_SIZE=BLOCK,
        mask_mod=window_mask(height, width, kernel_size, stride, dilation),
    )
