"""The released code's order of operations, written out from its description: the side to compare with.

q, k, v and the position code become windows by three unfolds of a reflection-padded map, k * k copies of each; the
logits are an elementwise product summed over the channels of a head, the output an elementwise product summed over
the window. Nothing here is meant to be fast.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmacmix.layers import ACmix


def official_attention(
    q: Tensor, k: Tensor, v: Tensor, position: Tensor, kernel_size: int = 7, stride: int = 1, dilation: int = 1
) -> Tensor:
    """Local attention of ACmix by three unfolds; agrees with ``mmacmix.ops.local_attention``.

    Args:
        q, k, v: (B, heads, d, H, W); H and W must be larger than the window's reach.
        position: Position code p, (d, H, W); logits are ``d ** -0.5 * <q[i], k[j] + p[i] - p[j]>``.
        kernel_size, stride, dilation: As for ``mmacmix.ops.local_attention``.

    Returns:
        (B, heads, d, ceil(H / stride), ceil(W / stride)).
    """
    batch, heads, d = q.shape[:3]
    pad = kernel_size // 2 * dilation
    queries = (q * d**-0.5).flatten(0, 1)[..., ::stride, ::stride]
    out_size = queries.shape[-2:]

    def windows(x: Tensor) -> Tensor:
        x = F.unfold(F.pad(x, (pad,) * 4, mode='reflect'), kernel_size, dilation=dilation, stride=stride)
        return x.view(x.size(0), d, kernel_size**2, *out_size)

    own = position[None, :, None, ::stride, ::stride]  # (1, d, 1, Hq, Wq)
    keys = windows(k.flatten(0, 1)) + own - windows(position.unsqueeze(0))
    weights = (queries.unsqueeze(2) * keys).sum(1).softmax(1)  # (B * heads, k * k, Hq, Wq)
    out = (weights.unsqueeze(1) * windows(v.flatten(0, 1))).sum(2)
    return out.view(batch, heads, d, *out_size)


class OfficialACmix(nn.Module):
    """An ACmix layer in the released order of operations, both paths, on the parameters of another.

    Args:
        layer: Its parameters are used, not copied, under the released names.
    """

    def __init__(self, layer: ACmix) -> None:
        super().__init__()
        for name in ('in_channels', 'out_channels', 'num_heads', 'attn_kernel_size', 'conv_kernel_size'):
            setattr(self, name, getattr(layer, name))
        self.stride, self.dilation = layer.stride, layer.dilation
        for name, child in layer.named_children():
            self.add_module(name, child)
        self.rate1, self.rate2 = layer.rate1, layer.rate2

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        q, k, v = (conv(x).unflatten(1, (self.num_heads, -1)) for conv in (self.conv1, self.conv2, self.conv3))
        grid = torch.stack(
            [
                torch.linspace(-1, 1, width, dtype=q.dtype, device=x.device).expand(height, width),
                torch.linspace(-1, 1, height, dtype=q.dtype, device=x.device).unsqueeze(1).expand(height, width),
            ]
        )
        position = self.conv_p(grid.unsqueeze(0)).squeeze(0)
        attention = official_attention(q, k, v, position, self.attn_kernel_size, self.stride, self.dilation)
        maps = torch.cat([q, k, v], 1).flatten(3)  # (B, 3 heads, d, H * W)
        maps = F.conv2d(maps, self.fc.weight)  # (B, taps, d, H * W)
        maps = maps.permute(0, 2, 1, 3).reshape(x.size(0), -1, height, width)
        convolution = F.conv2d(
            maps,
            self.dep_conv.weight,
            stride=self.stride,
            padding=self.conv_kernel_size // 2 * self.dilation,
            dilation=self.dilation,
            groups=self.out_channels // self.num_heads,
        )
        return self.rate1 * attention.flatten(1, 2) + self.rate2 * convolution


def use_official_operations(model: nn.Module) -> nn.Module:
    """Replaces every ACmix layer of a model by its OfficialACmix, in place.

    Raises:
        ValueError: The model has no ACmix layer.
    """
    found = [(name, module) for name, module in model.named_modules() if isinstance(module, ACmix)]
    if not found:
        raise ValueError(f'model must have layers of type ACmix, got {type(model).__name__} without one')
    for name, module in found:
        parent, _, child = name.rpartition('.')
        setattr(model.get_submodule(parent), child, OfficialACmix(module))
    return model
