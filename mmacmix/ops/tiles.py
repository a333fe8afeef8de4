"""Maps, tiles and chunks of tiled local attention: where everything lies in memory.

Maps are (images * heads, height, width, d), filled up to whole tiles. A band is the keys that a row of tiles reads,
column after column: there the keys of one tile, (block * block, d), lie in one piece, and the next tile is ``step``
columns further on. So a band is a batch of overlapping matrices, 2.5 copies of the keys instead of 6.25.
"""

from typing import Iterator, List, NamedTuple, Tuple

import torch
from torch import Tensor

from mmacmix.ops.scratch import Scratch
from mmacmix.ops.window import Window

TILE = 4


class Axis(NamedTuple):
    """One axis of a phase: queries of equal residue, whose windows read only every ``key_step``-th key.

    With dilation 1 there is one phase. A dilated window never sees the keys between its taps, so that its queries
    fall into dilation / gcd(stride, dilation) phases per axis, each of them an undilated problem.
    """

    first_query: int
    query_step: int
    tiles: int
    first_key: int  # on the map with its border
    key_step: int
    stride: int  # from one query of the phase to the next, in keys of the phase
    kernel_size: int

    @property
    def step(self) -> int:
        """Keys from one tile to the next."""
        return TILE * self.stride

    @property
    def block(self) -> int:
        """Side of the block of keys that a tile reads."""
        return (TILE - 1) * self.stride + self.kernel_size

    @property
    def shared(self) -> int:
        """Steps of a block that later tiles begin in."""
        return max(0, -(-(self.block - self.step) // self.step))

    @property
    def queries_end(self) -> int:
        return self.first_query + self.query_step * (self.tiles * TILE - 1) + 1

    @property
    def keys_end(self) -> int:
        return self.first_key + self.key_step * ((self.tiles - 1) * self.step + self.block - 1) + 1


def axes(length: int, window: Window) -> List[Axis]:
    """The phases of an axis of ``length`` pixels."""
    stride, dilation = window.stride, window.dilation
    phases = window.phases
    queries = -(-length // stride)
    return [
        Axis(
            first,
            phases,
            -(-len(range(first, queries, phases)) // TILE),
            first * stride,
            dilation,
            stride * phases // dilation,
            window.kernel_size,
        )
        for first in range(min(phases, queries))
    ]


class Chunk(NamedTuple):
    """Tiles that are worked off together: of some maps, rows and columns of tiles in one phase."""

    y: Axis
    x: Axis
    maps: slice
    rows: slice
    cols: slice

    @property
    def shape(self) -> Tuple[int, int, int]:
        """Maps, rows and columns of tiles."""
        return tuple(s.stop - s.start for s in (self.maps, self.rows, self.cols))

    @property
    def tiles(self) -> int:
        """Tiles with those at the end of a band that read on into the next one; their results are dropped."""
        maps, rows, cols = self.shape
        return maps * rows * (cols + self.x.shared)

    def matrices(self, buffer: Scratch, name: str, *size: int) -> Tensor:
        """Memory for a matrix per tile, (tiles, *size)."""
        return buffer(name, self.tiles * size[0] * size[1]).view(self.tiles, *size)

    def query_tiles(self, source: Tensor, buffer: Scratch, name: str) -> Tensor:
        """Copies a map of queries to (tiles, TILE**2, d)."""
        tiles = self.matrices(buffer, name, TILE**2, source.size(3))
        self._tiles(tiles).copy_(self._queries(source))
        return tiles

    def put_queries(self, result: Tensor, tiles: Tensor) -> None:
        """Copies (tiles, TILE**2, d) to their places in a map of queries."""
        self._queries(result).copy_(self._tiles(tiles))

    def _tiles(self, tiles: Tensor) -> Tensor:
        maps, rows, cols = self.shape
        return tiles.view(maps, rows, -1, TILE, TILE, tiles.size(2))[:, :, :cols]

    def _queries(self, source: Tensor) -> Tensor:
        """View of a map as (maps, rows, cols, TILE, TILE, d)."""
        by_map, by_row, by_col, _ = source.stride()
        by_row, by_col = by_row * self.y.query_step, by_col * self.x.query_step
        first = (self.maps.start, self.y.first_query, self.x.first_query)
        offset = sum(i * s for i, s in zip(first, source.stride()))
        offset += TILE * (self.rows.start * by_row + self.cols.start * by_col)
        return source.as_strided(
            (*self.shape, TILE, TILE, source.size(3)),
            (by_map, TILE * by_row, TILE * by_col, by_row, by_col, 1),
            source.storage_offset() + offset,
        )

    def _keys(self, source: Tensor, rows: Tuple[int, int]) -> Tensor:
        """View of a map as (maps, rows of tiles, columns of keys, rows of keys, d): the given part of each band."""
        by_map, by_row, by_col, _ = source.stride()
        by_row, by_col = by_row * self.y.key_step, by_col * self.x.key_step
        first = (self.maps.start, self.y.first_key, self.x.first_key)
        offset = sum(i * s for i, s in zip(first, source.stride()))
        offset += (self.rows.start * self.y.step + rows[0]) * by_row + self.cols.start * self.x.step * by_col
        maps, tile_rows, cols = self.shape
        return source.as_strided(
            (maps, tile_rows, (cols - 1) * self.x.step + self.x.block, rows[1] - rows[0], source.size(3)),
            (by_map, self.y.step * by_row, by_col, by_row, 1),
            source.storage_offset() + offset,
        )

    def _bands(self, flat: Tensor, d: int) -> Tensor:
        maps, rows, cols = self.shape
        size = (maps, rows, (cols + self.x.shared) * self.x.step, self.y.block, d)
        return flat[: torch.Size(size).numel()].view(size)

    def key_tiles(self, source: Tensor, buffer: Scratch, name: str) -> Tensor:
        """Copies a map of keys or values to bands, seen as (tiles, block**2, d)."""
        block, d = self.y.block, source.size(3)
        step = self.x.step * block * d
        # The last tiles look beyond the end of the last band.
        flat = buffer(name, (self.tiles - 1) * step + max(step, block * block * d))
        keys = self._keys(source, (0, block))
        self._bands(flat, d)[:, :, : keys.size(2)].copy_(keys)
        return flat.as_strided((self.tiles, block * block, d), (step, d, 1))

    def add_keys(self, result: Tensor, tiles: Tensor, buffer: Scratch) -> None:
        """Adds (tiles, block**2, d) to their overlapping places in a map of keys."""
        maps, rows, cols = self.shape
        step, block, d = self.x.step, self.y.block, tiles.size(2)
        tiles = tiles.view(maps, rows, -1, block, block, d)[:, :, :cols]
        bands = self._bands(buffer('bands', self.tiles * step * block * d), d)
        by_step = bands.unflatten(2, (-1, step))
        # In pieces of a step, so that the places written at a time do not overlap.
        for i, start in enumerate(range(0, block, step)):
            piece = tiles[:, :, :, start : start + step]
            target = by_step[:, :, i : i + cols, : piece.size(3)]
            if i == 0:
                target.copy_(piece)
                by_step[:, :, :, piece.size(3) :].zero_()
                by_step[:, :, cols:].zero_()
            else:
                target.add_(piece)
        for start in range(0, block, step):
            target = self._keys(result, (start, min(start + step, block)))
            target.add_(bands[:, :, : target.size(2), start : start + step])


def chunks(y: Axis, x: Axis, maps: int, tiles: int) -> Iterator[Chunk]:
    """Cuts the tiles of a phase into chunks of about ``tiles``."""
    cols = min(x.tiles, max(1, tiles - x.shared))
    band = cols + x.shared
    rows = min(y.tiles, max(1, tiles // band))
    some = min(maps, max(1, tiles // (rows * band))) if rows == y.tiles and cols == x.tiles else 1
    for m in range(0, maps, some):
        for r in range(0, y.tiles, rows):
            for c in range(0, x.tiles, cols):
                yield Chunk(
                    y,
                    x,
                    slice(m, min(m + some, maps)),
                    slice(r, min(r + rows, y.tiles)),
                    slice(c, min(c + cols, x.tiles)),
                )
