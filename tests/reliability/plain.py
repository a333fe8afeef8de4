"""The backbones by their definitions: every window is written out, no weights are merged, every norm runs by itself.

The parameters are those of the layers; what is around them (stems, pooling, feed-forward networks) stays as it is.
"""

from contextlib import contextmanager
from typing import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmacmix.backbones import resnet_acmix, san_acmix, swin_acmix
from mmacmix.layers import ACmix, PatchwiseACmix, SpatialReductionACmix, WindowACmix
from mmacmix.ops import local_attention
from mmacmix.ops.aggregation import aggregation_reference
from mmacmix.ops.reflection import pad_reflection
from mmacmix.ops.strided import convolution


@contextmanager
def definitions() -> Iterator[None]:
    """Inside, every backbone computes by its definition."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ACmix, 'forward', acmix)
        patch.setattr(WindowACmix, 'forward', window_acmix)
        patch.setattr(SpatialReductionACmix, 'forward', reduced_acmix)
        patch.setattr(PatchwiseACmix, 'forward', patchwise_acmix)
        patch.setattr(swin_acmix.SwinBlock, '_feed_in_strips', swin_acmix.SwinBlock._feed)
        patch.setattr(resnet_acmix, 'affine_of', lambda norm: None)
        for backbone in (resnet_acmix, san_acmix):
            patch.setattr(backbone, 'conv_norm', lambda conv, norm, x: norm(conv(x)))
        patch.setattr(resnet_acmix, 'conv_norm_add', lambda conv, norm, x, identity, _: norm(conv(x)) + identity)
        yield


def acmix(layer: ACmix, x: Tensor) -> Tensor:
    # With a stride, the last row and column are repeated until sides are its multiples.
    rows, cols = (torch.arange(-(-n // layer.stride) * layer.stride).clamp(max=n - 1) for n in x.shape[2:])
    x = x[:, :, rows][:, :, :, cols]
    q, k, v = (conv(x).unflatten(1, (layer.num_heads, -1)) for conv in (layer.conv1, layer.conv2, layer.conv3))
    outs = {}
    if 'attention' in layer.paths:
        xs, ys = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in (x.size(3), x.size(2)))
        grid = torch.stack([xs.expand(len(ys), -1), ys[:, None].expand(-1, len(xs))]).to(x.dtype)
        code = layer.conv_p(grid[None])[0]
        window = (layer.attn_kernel_size, layer.stride, layer.dilation)
        outs['attention'] = local_attention(q, k - code, v, *window, backend='reference').flatten(1, 2)
    if 'convolution' in layer.paths:
        outs['convolution'] = _convolution(layer, torch.cat([q, k, v], 1), layer.stride, layer.dilation)
    return _mix(layer, outs)


def window_acmix(layer: WindowACmix, x: Tensor) -> Tensor:
    height, width, dim = x.shape[1:]
    window, heads = layer.window_size, layer.num_heads
    shift = layer.shift_size if min(height, width) > window else 0
    x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
    rows, cols = x.shape[1] // window, x.shape[2] // window
    qkv = layer.qkv(torch.roll(x, (-shift, -shift), (1, 2)))
    outs = {}

    def cut(y: Tensor) -> Tensor:
        """(B, H, W, ...) to (B, rows, cols, window * window, ...)"""
        return y.unflatten(2, (cols, window)).unflatten(1, (rows, window)).transpose(2, 3).flatten(3, 4)

    if 'attention' in layer.paths:
        q, k, v = cut(qkv.unflatten(3, (3, heads, -1))).transpose(3, 5).unbind(4)  # (B, rows, cols, heads, pixels, d)
        # Pixels that came round see only their like.
        came_y, came_x = (torch.arange(n * window) >= n * window - shift for n in (rows, cols))
        side = cut((2 * came_y[:, None] + came_x[None, :].int())[None])[0]
        barred = side[..., :, None] != side[..., None, :]
        place = torch.arange(window)
        near = place[:, None] - place + window - 1
        index = near[:, None, :, None] * (2 * window - 1) + near[None, :, None, :]
        bias = layer.relative_position_bias_table[index.flatten(2).flatten(0, 1)].permute(2, 0, 1)
        logits = q @ k.transpose(-1, -2) * q.size(-1) ** -0.5 + bias - 100 * barred.unsqueeze(2)
        out = (logits.softmax(-1) @ v).transpose(3, 4).flatten(4).unflatten(3, (window, window))
        out = out.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        outs['attention'] = layer.proj(out)
    if 'convolution' in layer.paths:
        maps = qkv.permute(0, 3, 1, 2).unflatten(1, (3 * heads, -1))
        outs['convolution'] = _convolution(layer, maps).permute(0, 2, 3, 1)
    return torch.roll(_mix(layer, outs), (shift, shift), (1, 2))[:, :height, :width]


def reduced_acmix(layer: SpatialReductionACmix, x: Tensor) -> Tensor:
    height, width = x.shape[1:3]
    heads, ratio, reduced = layer.num_heads, layer.sr_ratio, x
    if ratio > 1:
        reduced = F.pad(x, (0, 0, 0, max(ratio - width, 0), 0, max(ratio - height, 0))).permute(0, 3, 1, 2)
        reduced = layer.norm(layer.sr(reduced).permute(0, 2, 3, 1))
    rows, cols = reduced.shape[1:3]
    q = layer.q(x).unflatten(3, (heads, -1)).permute(0, 3, 1, 2, 4)  # (B, heads, H, W, d)
    k, v = layer.kv(reduced).unflatten(3, (2, heads, -1)).permute(3, 0, 4, 1, 2, 5)
    outs = {}
    if 'attention' in layer.paths:
        logits = q.flatten(2, 3) @ k.flatten(2, 3).transpose(2, 3) * q.size(4) ** -0.5
        out = (logits.softmax(-1) @ v.flatten(2, 3)).transpose(1, 2).flatten(2)
        outs['attention'] = layer.proj(out.unflatten(1, (height, width)))
    if 'convolution' in layer.paths:
        # Each pixel has the key and value of the pixel of the reduced map that lies over it.
        y, z = (torch.arange(n) * m // n for n, m in ((height, rows), (width, cols)))
        maps = torch.cat([q, *(m[:, :, y][:, :, :, z] for m in (k, v))], 1).permute(0, 1, 4, 2, 3)
        outs['convolution'] = _convolution(layer, maps).permute(0, 2, 3, 1)
    return _mix(layer, outs)


def patchwise_acmix(layer: PatchwiseACmix, x: Tensor) -> Tensor:
    q, k, v = layer.conv1(x), layer.conv2(x), layer.conv3(x)
    size, outs = layer.attn_kernel_size, {}
    if 'attention' in layer.paths:
        windows = pad_reflection(k, size // 2).unfold(2, size, 1).unfold(3, size, 1)
        windows = windows.permute(0, 1, 4, 5, 2, 3).flatten(1, 3)
        weights = layer.conv_w(torch.cat([q, windows], 1)).unflatten(1, (-1, size**2))
        outs['attention'] = aggregation_reference(v, weights, size)
    if 'convolution' in layer.paths:
        outs['convolution'] = _convolution(layer, torch.cat([q, k, v], 1).unflatten(1, (6, -1)))
    return _mix(layer, outs)


def _convolution(layer: nn.Module, maps: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    """The convolution path of maps (B, groups of channels, d, H, W): ``fc``, then ``dep_conv``."""
    d = maps.size(2)
    mixed = F.conv2d(maps.transpose(1, 2).flatten(0, 1), layer.fc.weight, layer.fc.bias)
    mixed = mixed.unflatten(0, (-1, d)).flatten(1, 2)
    padding = layer.conv_kernel_size // 2 * dilation
    weight = layer.dep_conv.weight
    # torch errs in dilated kernels in channels last, and in strided ones that give one column.
    if dilation > 1 and mixed.dtype == torch.bfloat16:
        mixed, weight = mixed.contiguous(), weight.contiguous()
    return convolution(mixed, weight, None, stride, padding, dilation, d)


def _mix(layer: nn.Module, outs: dict) -> Tensor:
    if len(outs) == 1:
        return next(iter(outs.values()))
    return layer.rate1 * outs['attention'] + layer.rate2 * outs['convolution']
