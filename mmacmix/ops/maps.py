"""Copies of a call's tensors as contiguous maps with a reflected border, and back."""

from typing import Iterator, List, Optional, Tuple

import torch
from torch import Tensor

from mmacmix.ops.reflection import fold_reflection, reflection_index
from mmacmix.ops.scratch import Scratch
from mmacmix.ops.tiles import Axis, axes
from mmacmix.ops.window import Window

STRIP = 8  # rows that are copied at a time


class Maps:
    """Sizes of the maps of one call.

    Args:
        shape: (B, heads, d, H, W) of the keys.
        dtype: Precision of the computation.
        device: Where it is done.
    """

    def __init__(self, shape: torch.Size, window: Window, dtype: torch.dtype, device: torch.device) -> None:
        self.height, self.width = shape[3:]
        self.d = shape[2]
        self.pad = window.pad
        self.options = dict(dtype=dtype, device=device)
        ys, xs = (axes(n, window) for n in shape[3:])
        self.phases: List[Tuple[Axis, Axis]] = [(y, x) for y in ys for x in xs]
        self.queries_size = tuple(max(a.queries_end for a in part) for part in (ys, xs))
        self.keys_size = tuple(
            max(n + 2 * self.pad, max(a.keys_end for a in part)) for n, part in zip(shape[3:], (ys, xs))
        )

    @property
    def bytes(self) -> int:
        """Of one map of keys."""
        return self.keys_size[0] * self.keys_size[1] * self.d * torch.finfo(self.options['dtype']).bits // 8

    def keys(self, buffer: Scratch, name: str, maps: int) -> Tensor:
        """Memory for maps of keys, (maps, *keys_size, d), with whatever was there before."""
        return _take(buffer, name, (maps, *self.keys_size, self.d))

    def load(
        self, q: Tensor, k: Tensor, v: Tensor, position: Optional[Tensor], window: Window, buffer: Scratch
    ) -> Tuple[Tensor, Tensor, Tensor]:
        """Maps of scale * q, k - position and v, all (B, heads, d, H, W).

        Queries are (maps, *queries_size, d) with zeros behind the end. Keys and values are (maps, *keys_size, d),
        continued by reflection as far as windows reach, and zeros behind that.
        """
        keys, values = (self.keys(buffer, name, k.size(0) * k.size(1)) for name in ('map_k', 'map_v'))
        q = _pixels(q)[:, :, :: window.stride, :: window.stride]
        k, v = _pixels(k), _pixels(v)
        queries = self._clear_queries(q, buffer, 'map_q')
        inner_q = self._queries(queries, q)
        inner_k, inner_v = (self._inner(x, k) for x in (keys, values))
        factor = torch.full((1,), window.scale, **self.options)
        code = None if position is None else position.permute(1, 2, 0).to(keys.dtype)
        for rows in self._strips(self.height):
            rows_q = slice(-(-rows.start // window.stride), -(-rows.stop // window.stride))
            torch.mul(q[:, :, rows_q], factor, out=inner_q[:, :, rows_q])
            if code is None:
                inner_k[:, :, rows].copy_(k[:, :, rows])
            else:
                torch.sub(k[:, :, rows], code[rows], out=inner_k[:, :, rows])
            inner_v[:, :, rows].copy_(v[:, :, rows])
        self._reflect(keys)
        self._reflect(values)
        return queries, keys, values

    def load_queries(self, x: Tensor, buffer: Scratch) -> Tensor:
        """Map of x, (B, heads, d, Hq, Wq)."""
        x = _pixels(x)
        result = self._clear_queries(x, buffer, 'map_g')
        inner = self._queries(result, x)
        for rows in self._strips(x.size(2)):
            inner[:, :, rows].copy_(x[:, :, rows])
        return result

    def _strips(self, rows: int) -> Iterator[slice]:
        """Few rows at a time, because neighbouring channels may share cache lines with those of other heads."""
        for start in range(0, rows, STRIP):
            yield slice(start, min(start + STRIP, rows))

    def _inner(self, maps: Tensor, x: Tensor) -> Tensor:
        pad = self.pad
        inner = maps[:, pad : pad + self.height, pad : pad + self.width]
        return inner.unflatten(0, x.shape[:2])

    def _queries(self, maps: Tensor, x: Tensor) -> Tensor:
        return maps[:, : x.size(2), : x.size(3)].unflatten(0, x.shape[:2])

    def _clear_queries(self, x: Tensor, buffer: Scratch, name: str) -> Tensor:
        result = _take(buffer, name, (x.size(0) * x.size(1), *self.queries_size, self.d))
        result[:, x.size(2) :].zero_()
        result[:, : x.size(2), x.size(3) :].zero_()
        return result

    def _reflect(self, maps: Tensor) -> None:
        for dim, length in ((2, self.width), (1, self.height)):
            end = length + 2 * self.pad
            maps.narrow(dim, end, maps.size(dim) - end).zero_()
            if self.pad > 0:
                index = reflection_index(length, self.pad, maps.device) + self.pad
                for start in (0, self.pad + length):
                    part = maps.index_select(dim, index[start : start + self.pad])
                    maps.narrow(dim, start, self.pad).copy_(part)

    def zero_keys(self, maps: int) -> Tensor:
        return torch.zeros((maps, *self.keys_size, self.d), **self.options)

    def store_queries(self, result: Tensor, out: Tensor) -> None:
        """Writes a map of queries to (B, heads, d, Hq, Wq)."""
        out = _pixels(out)
        result = self._queries(result, out)
        for rows in self._strips(out.size(2)):
            out[:, :, rows].copy_(result[:, :, rows])

    def store_gradients(
        self, sums: Tuple[Tensor, Tensor, Tensor], grads: Tuple[Tensor, Tensor, Tensor], window: Window
    ) -> None:
        """Writes sums of the maps of :meth:`load` to gradients (B, heads, d, H, W); overwrites ``sums``."""
        grads = [_pixels(x) for x in grads]
        whole_q = grads[0]
        grads[0] = whole_q[:, :, :: window.stride, :: window.stride]
        sums_q, *sums_kv = sums
        parts = [self._queries(sums_q.mul_(window.scale), grads[0])]
        for x in sums_kv:
            x = fold_reflection(x, 1, self.height, self.pad)
            x = fold_reflection(x, 2, self.width, self.pad)
            parts.append(x.unflatten(0, grads[1].shape[:2]))
        for rows in self._strips(self.height):
            rows_q = slice(-(-rows.start // window.stride), -(-rows.stop // window.stride))
            if window.stride > 1:  # pixels that do not ask
                whole_q[:, :, rows].zero_()
            for grad, part, some in zip(grads, parts, (rows_q, rows, rows)):
                grad[:, :, some].copy_(part[:, :, some])


def _pixels(x: Tensor) -> Tensor:
    """(B, heads, d, H, W) as (B, heads, H, W, d)."""
    return x.permute(0, 1, 3, 4, 2)


def _take(buffer: Scratch, name: str, size: Tuple[int, ...]) -> Tensor:
    return buffer(name, torch.Size(size).numel()).view(size)
