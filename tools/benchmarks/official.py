"""The released code's order of operations, written out from its description: the side to compare with.

q, k, v and the position code become windows by three unfolds of a reflection-padded map, k * k copies of each; the
logits are an elementwise product summed over the channels of a head, the output an elementwise product summed over
the window. Nothing here is meant to be fast.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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
    """An ACmix layer in the released order of operations, both paths.

    Arguments and parameters are those of ``mmacmix.layers.ACmix``, whose state_dict it loads.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_heads: int = 4,
        attn_kernel_size: int = 7,
        conv_kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.attn_kernel_size = attn_kernel_size
        self.stride = stride
        self.dilation = dilation
        head_dim, taps = out_channels // num_heads, conv_kernel_size**2
        self.rate1 = nn.Parameter(torch.full((1,), 0.5))
        self.rate2 = nn.Parameter(torch.full((1,), 0.5))
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1)
        self.conv2 = nn.Conv2d(in_channels, out_channels, 1)
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)
        self.conv_p = nn.Conv2d(2, head_dim, 1)
        self.fc = nn.Conv2d(3 * num_heads, taps, 1, bias=False)
        self.dep_conv = nn.Conv2d(
            taps * head_dim,
            out_channels,
            conv_kernel_size,
            stride,
            conv_kernel_size // 2 * dilation,
            dilation,
            groups=head_dim,
            bias=False,
        )

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
        maps = self.fc(torch.cat([q, k, v], 1).flatten(3))  # (B, 3 heads, d, H * W) to (B, taps, d, H * W)
        maps = maps.permute(0, 2, 1, 3).reshape(x.size(0), -1, height, width)
        return self.rate1 * attention.flatten(1, 2) + self.rate2 * self.dep_conv(maps)


def official_resnet_acmix_50(**options) -> nn.Module:
    """ResNet-ACmix-50 as it was released: mmdet's ResNet-50 whose 3x3 convolutions are OfficialACmix.

    Args:
        options: Further arguments of mmdet's ResNet.

    Returns:
        Backbone that loads the state_dict of ``mmacmix.backbones.ResNetACmix(50)``.
    """
    from mmdet.models.backbones import ResNet
    from mmdet.models.backbones.resnet import Bottleneck

    model = ResNet(50, norm_eval=False, **options)
    for block in model.modules():
        if isinstance(block, Bottleneck):
            conv = block.conv2
            block.conv2 = OfficialACmix(
                conv.in_channels, conv.out_channels, stride=conv.stride[0], dilation=conv.dilation[0]
            )
    return model
