"""ACmix in place of spatial-reduction attention, as in PVT-ACmix.

Paper: "On the Integration of Self-Attention and Convolution", CVPR 2022, arXiv 2111.14556; spatial reduction:
Pyramid Vision Transformer, ICCV 2021, arXiv 2102.12122. The authors have not released this form: it is a
reconstruction. Decided here: keys and values come from the reduced map, as in PVT, and are brought back to the queries'
grid (nearest) for the convolution path, because projections at full resolution would exceed the published
multiply-adds; as in the released Swin form ``fc`` has a bias and the convolution path does not go through ``proj``.
"""

from typing import NamedTuple, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmacmix.layers.attention_weights import check_pixel, derivative
from mmacmix.layers.buffers import Buffers
from mmacmix.layers.cost import Cost, Part, count_parameters
from mmacmix.layers.shift import init_shift_kernels
from mmacmix.layers.strided_conv import StridedConv2d
from mmacmix.ops import convolution_path
from mmacmix.ops.checks import PATHS, check_heads, check_odd, check_paths, check_positive_integers
from mmacmix.ops.conv_path import FUSED_HEADS, fused_weight, grouped_convolution, with_ones
from mmacmix.ops.exporting import exporting, fill_up


class SpatialReductionACmix(nn.Module):
    """Attention to a reduced map, and convolution, over the same linear projections.

    ``rate1 * proj(attention) + rate2 * convolution``. One path alone has no rate.

    Args:
        dim: Channels, divisible by num_heads.
        num_heads: Attention heads; each has d = dim / num_heads channels.
        sr_ratio: By how much the sides of the map shrink before keys and values are projected.
        qkv_bias: Whether the projections have a bias.
        attn_drop_rate: Dropout of the attention probabilities.
        proj_drop_rate: Dropout of the projected attention output.
        conv_kernel_size: Side of the convolution kernels, odd.
        norm_eps: Summand of the variance in the normalisation of the reduced map.
        paths: 'attention', 'convolution' or both. A path that is left out has no parameters; ``proj`` belongs to
            attention.

    Shape:
        (B, H, W, dim), any H and W >= 1, to the same shape. What is left of the map beyond whole squares of
        sr_ratio pixels is not seen by keys and values, as in PVT; a side shorter than sr_ratio is filled up with zeros.

    Raises:
        ValueError: An argument, or the input's shape, is not allowed.
    """

    channels_last = True  # its maps are (B, H, W, C)

    def __init__(
        self,
        dim: int,
        num_heads: int,
        sr_ratio: int = 1,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        conv_kernel_size: int = 3,
        norm_eps: float = 1e-6,
        paths: Sequence[str] = PATHS,
    ) -> None:
        super().__init__()
        self.paths = check_paths(paths)
        check_positive_integers(
            dim=dim, num_heads=num_heads, sr_ratio=sr_ratio, conv_kernel_size=conv_kernel_size
        )
        check_odd(conv_kernel_size=conv_kernel_size)
        check_heads(num_heads, dim=dim)
        self.dim = dim
        self.num_heads = num_heads
        self.sr_ratio = sr_ratio
        self.conv_kernel_size = conv_kernel_size

        head_dim = dim // num_heads
        taps = conv_kernel_size**2
        if self.paths == PATHS:
            self.rate1 = nn.Parameter(torch.empty(1))
            self.rate2 = nn.Parameter(torch.empty(1))
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        if sr_ratio > 1:
            self.sr = StridedConv2d(dim, dim, sr_ratio, sr_ratio)
            self.norm = nn.LayerNorm(dim, eps=norm_eps)
        if 'attention' in self.paths:
            self.attn_drop = nn.Dropout(attn_drop_rate)
            self.proj = nn.Linear(dim, dim)
            self.proj_drop = nn.Dropout(proj_drop_rate)
        if 'convolution' in self.paths:
            self.fc = nn.Conv2d(3 * num_heads, taps, 1)
            self.dep_conv = nn.Conv2d(taps * head_dim, dim, conv_kernel_size, groups=head_dim, bias=False)
        self.merged: Optional[nn.Module] = None  # by switch_to_deploy
        self.init_weights()

    def init_weights(self) -> None:
        """(Re)sets every parameter: linear layers normal with deviation 0.02, the reduction normal by its fan-out, as
        in PVT; shift kernels; rates of 0.5.

        mmengine calls this after the initialisation of the parent module.
        """
        for linear in (self.q, self.kv, getattr(self, 'proj', None)):
            if linear is not None:
                nn.init.trunc_normal_(linear.weight, std=0.02)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)
        if self.sr_ratio > 1:
            nn.init.normal_(self.sr.weight, std=(2.0 / (self.sr_ratio**2 * self.dim)) ** 0.5)
            nn.init.zeros_(self.sr.bias)
            self.norm.reset_parameters()
        if 'convolution' in self.paths:
            self.fc.reset_parameters()
            init_shift_kernels(self.dep_conv.weight)
        if self.paths == PATHS:
            nn.init.constant_(self.rate1, 0.5)
            nn.init.constant_(self.rate2, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.size(3) != self.dim:
            raise ValueError(f'x must have shape (B, H, W, dim={self.dim}), got x.shape={tuple(x.shape)}')
        merged = self._merge() if self.merged is None else self.merged
        # Channels are (heads, d); those of keys and values (2, heads, d).
        q, kv = self.q(x), self.kv(self._reduce(x))
        if self.paths == ('attention',):
            return self._attend(q, kv, merged)
        if self.paths == ('convolution',):
            return self._convolve(q, kv, merged)
        return self._convolve(q, kv, merged) + self._attend(q, kv, merged)

    def _reduce(self, x: Tensor) -> Tensor:
        if self.sr_ratio == 1:
            return x
        x = x.permute(0, 3, 1, 2)
        for dim in (2, 3):
            if x.size(dim) < self.sr_ratio:
                x = fill_up(x, dim, self.sr_ratio)
        return self.norm(self.sr(x).permute(0, 2, 3, 1))

    def _attend(self, q: Tensor, kv: Tensor, merged: '_Merged') -> Tensor:
        out = self._heads(q, kv, self.attn_drop.p if self.training else 0.0)
        return self.proj_drop(F.linear(out, merged.out_weight, merged.out_bias))

    def _heads(self, q: Tensor, kv: Tensor, dropout: float = 0.0) -> Tensor:
        """Outputs of the heads, (B, H, W, dim), of q (B, H, W, dim) and kv (B, h, w, 2 * dim)."""
        queries = q.flatten(1, 2).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, pixels, d)
        keys, values = kv.flatten(1, 2).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(queries, keys, values, dropout_p=dropout)
        return out.transpose(1, 2).reshape(q.shape)

    def _convolve(self, q: Tensor, kv: Tensor, merged: '_Merged') -> Tensor:
        size = q.shape[1:3]
        kv = kv.permute(0, 3, 1, 2)
        if self.sr_ratio > 1:
            kv = _enlarge(kv, size)
        maps = torch.cat([q.permute(0, 3, 1, 2), kv], 1)
        if exporting():
            maps = maps.contiguous()  # comparing strides of channels last would tie the record to some widths
        maps = maps.unflatten(1, (3, self.num_heads, -1))
        if merged.mixing is None:
            out = grouped_convolution(with_ones(maps.flatten(1, 2).transpose(1, 2)), merged.kernels)
        else:
            out = convolution_path(maps, merged.mixing, merged.kernels, merged.mixing_bias)
        return out.permute(0, 2, 3, 1)

    def _merge(self) -> '_Merged':
        """The weights as one pass uses them, rates inside: a factor of weights costs less than one of a map."""
        kernels = mixing = mixing_bias = out_weight = out_bias = None
        if 'convolution' in self.paths:
            kernels, mixing, mixing_bias = self.dep_conv.weight, self.fc.weight, self.fc.bias
            if self.paths == PATHS:
                kernels = self.rate2.view(-1, 1, 1, 1) * kernels
            if self.num_heads <= FUSED_HEADS:
                kernels, mixing, mixing_bias = fused_weight(mixing, kernels, mixing_bias), None, None
        if 'attention' in self.paths:
            out_weight, out_bias = self.proj.weight, self.proj.bias
            if self.paths == PATHS:
                # Dropout, which comes between, is linear.
                out_weight, out_bias = out_weight * self.rate1, out_bias * self.rate1
        return _Merged(mixing, mixing_bias, kernels, out_weight, out_bias)

    @torch.no_grad()
    def switch_to_deploy(self) -> 'SpatialReductionACmix':
        """Merges the weights for good, for inference: outputs stay the same, what is merged is not trained any more."""
        if self.merged is None:
            self.merged = Buffers(self._merge()._asdict())
            for name in ('proj', 'fc', 'dep_conv', 'rate1', 'rate2'):
                if hasattr(self, name):
                    delattr(self, name)
        return self

    def attention_weights(self, x: Tensor, row: int, col: int) -> Tensor:
        """Weights with which one pixel of the output attends to those of x, by head.

        Args:
            x: As for :meth:`forward`.
            row, col: The pixel of the output.

        Returns:
            (B, num_heads, H, W): the weight of a reduced pixel is spread evenly over the sr_ratio x sr_ratio pixels
            that it was made of, and pixels beyond whole squares have none. The weights of a head have the sum 1,
            but for what falls to the zeros that fill up a map smaller than a square.

        Raises:
            ValueError: There is no such pixel, the layer has no attention, or it is deployed.
        """
        check_pixel(self, x.shape, row, col)
        q, kv = self.q(x), self.kv(self._reduce(x))

        def first_channels(kv: Tensor) -> Tensor:
            return self._heads(q, kv).unflatten(3, (self.num_heads, -1))[:, row, col, :, 0]

        weights = derivative(first_channels, kv).unflatten(3, (2, self.num_heads, -1))[:, :, :, 1, :, 0]
        weights = weights.permute(0, 3, 1, 2) / self.sr_ratio**2
        weights = weights.repeat_interleave(self.sr_ratio, 2).repeat_interleave(self.sr_ratio, 3)
        return F.pad(weights, (0, x.size(2) - weights.size(3), 0, x.size(1) - weights.size(2)))

    def output_shape(self, shape: Sequence[int]) -> Tuple[int, ...]:
        """Shape of the output for an input of this shape."""
        return tuple(shape)

    def cost(self, height: int, width: int) -> Cost:
        """What the layer costs for one map of this size."""
        pixels, taps = height * width, self.conv_kernel_size**2
        reduced = max(height // self.sr_ratio, 1) * max(width // self.sr_ratio, 1)
        outputs = self.dim * pixels
        attention = convolution = Part()
        if 'attention' in self.paths:
            attention = Part(
                count_parameters(self, ('proj', 'rate1')), 2 * reduced * outputs + self.dim * outputs, outputs
            )
        if 'convolution' in self.paths:
            convolution = Part(
                count_parameters(self, ('fc', 'dep_conv', 'rate2')), 3 * taps * outputs + taps**2 * outputs, outputs
            )
        shrunk = self.sr_ratio > 1
        projection = Part(
            count_parameters(self, ('q', 'kv', 'sr', 'norm')),
            self.dim * outputs + (2 + self.sr_ratio**2 * shrunk) * self.dim**2 * reduced,
            outputs + (2 + shrunk) * self.dim * reduced,
        )
        return Cost(projection, attention, convolution)

    def extra_repr(self) -> str:
        return (
            f'{self.dim}, {self.num_heads}, sr_ratio={self.sr_ratio}, '
            f'conv_kernel_size={self.conv_kernel_size}, paths={self.paths}'
        )


def _enlarge(x: Tensor, size: Sequence[int]) -> Tensor:
    """(B, C, h, w) brought to (B, C, H, W) by repeating the nearest pixels."""
    if not exporting():
        return F.interpolate(x, size=tuple(size), mode='nearest')
    # By index: runtimes round the places in other ways than torch, which does it in float32.
    for dim, length in zip((2, 3), size):
        places = torch.arange(length, dtype=torch.float32, device=x.device) * (x.size(dim) / length)
        x = x.index_select(dim, places.long().clamp(max=x.size(dim) - 1))
    return x


class _Merged(NamedTuple):
    """Weights as a pass uses them: None for what ``kernels`` contain already, and for a path that is left out."""

    mixing: Optional[Tensor]
    mixing_bias: Optional[Tensor]
    kernels: Optional[Tensor]
    out_weight: Optional[Tensor]
    out_bias: Optional[Tensor]
