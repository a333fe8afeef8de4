"""ACmix in place of (shifted) window attention, as in Swin-ACmix.

Paper: "On the Integration of Self-Attention and Convolution", CVPR 2022, arXiv 2111.14556; windows, shift and
relative position bias: Swin Transformer, ICCV 2021, arXiv 2103.14030. Parameters have the names and shapes of the
released code, and its weights give its outputs. What differs: maps of any size are filled up with zeros to
whole windows, as dense prediction needs.
"""

from typing import NamedTuple, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmacmix.layers.attention_weights import check_pixel, derivative
from mmacmix.layers.buffers import Buffers
from mmacmix.layers.cost import Cost, Part, count_parameters
from mmacmix.layers.fork import Fork
from mmacmix.layers.shift import init_shift_kernels
from mmacmix.ops import convolution_path
from mmacmix.ops.checks import PATHS, check_heads, check_odd, check_paths, check_positive_integers
from mmacmix.ops.conv_path import FUSED_HEADS, fused_weight, grouped_convolution
from mmacmix.ops.exporting import exporting, read_or_zero, whole
from mmacmix.ops.in_place import may_write, project
from mmacmix.ops.scratch import scratch
from mmacmix.ops.window_attention import attend_in_windows, open_shift_mask, window_attention


class WindowACmix(nn.Module):
    """Window attention and convolution over the same linear projection.

    ``rate1 * proj(attention) + rate2 * convolution``. Attention sees one window; the convolution path runs over
    the whole map as it is after the cyclic shift, so its taps cross the seam. One path alone has no rate.

    Args:
        dim: Channels, divisible by num_heads.
        num_heads: Attention heads; each has d = dim / num_heads channels.
        window_size: Side of the windows.
        shift_size: Cyclic shift of the map before it is cut into windows, in [0, window_size). A map with
            a side no longer than a window is not shifted.
        qkv_bias: Whether the projection has a bias.
        attn_drop_rate: Dropout of the attention probabilities.
        proj_drop_rate: Dropout of the projected attention output.
        conv_kernel_size: Side of the convolution kernels, odd.
        paths: 'attention', 'convolution' or both. A path that is left out has no parameters; ``proj`` belongs to
            attention.

    Shape:
        (B, H, W, dim), any H and W >= 1, to the same shape.

    Raises:
        ValueError: An argument, or the input's shape, is not allowed.
    """

    channels_last = True  # its maps are (B, H, W, C)

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int = 7,
        shift_size: int = 0,
        qkv_bias: bool = True,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        conv_kernel_size: int = 3,
        paths: Sequence[str] = PATHS,
    ) -> None:
        super().__init__()
        self.paths = check_paths(paths)
        check_positive_integers(
            dim=dim,
            num_heads=num_heads,
            window_size=window_size,
            conv_kernel_size=conv_kernel_size,
        )
        check_odd(conv_kernel_size=conv_kernel_size)
        check_heads(num_heads, dim=dim)
        if not isinstance(shift_size, int) or not 0 <= shift_size < window_size:
            raise ValueError(
                f'shift_size must be an integer in [0, window_size={window_size}), got shift_size={shift_size}'
            )
        self.dim = dim
        self.num_heads = num_heads
        self.window_size = window_size
        self.shift_size = shift_size
        self.conv_kernel_size = conv_kernel_size

        head_dim = dim // num_heads
        taps = conv_kernel_size**2
        if self.paths == PATHS:
            self.rate1 = nn.Parameter(torch.empty(1))
            self.rate2 = nn.Parameter(torch.empty(1))
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        if 'attention' in self.paths:
            self.relative_position_bias_table = nn.Parameter(
                torch.empty((2 * window_size - 1) ** 2, num_heads)
            )
            self.register_buffer(
                'relative_position_index', _relative_position_index(window_size), persistent=False
            )
            self.attn_drop = nn.Dropout(attn_drop_rate)
            self.proj = nn.Linear(dim, dim)
            self.proj_drop = nn.Dropout(proj_drop_rate)
        if 'convolution' in self.paths:
            self.fc = nn.Conv2d(3 * num_heads, taps, 1)
            self.dep_conv = nn.Conv2d(taps * head_dim, dim, conv_kernel_size, groups=head_dim, bias=False)
        self.merged: Optional[nn.Module] = None  # by switch_to_deploy
        self.init_weights()

    def init_weights(self) -> None:
        """(Re)sets every parameter: linear layers and bias table normal with deviation 0.02, as in Swin;
        shift kernels; rates of 0.5.

        mmengine calls this after the initialisation of the parent module.
        """
        for linear in (self.qkv, getattr(self, 'proj', None)):
            if linear is not None:
                nn.init.trunc_normal_(linear.weight, std=0.02)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)
        if 'attention' in self.paths:
            nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
            # No checkpoint has it, and memory that was given to a model built without any holds nothing.
            self.relative_position_index.copy_(_relative_position_index(self.window_size))
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
        if exporting():
            return self._forward_recorded(x, merged)
        height, width = x.shape[1:3]
        x, shift = self._arrange(x)
        if may_write(x):
            with scratch(dict(dtype=x.dtype, device=x.device), 'projection') as buffer:
                maps = project(x, merged.project_weight, merged.project_bias, buffer)
                out = self._mix(maps, shift, merged)
        else:
            out = self._mix(F.linear(x, merged.project_weight, merged.project_bias), shift, merged)
        if shift:
            out = out.roll((shift, shift), (1, 2))
        return out[:, :height, :width]

    def _forward_recorded(self, x: Tensor, merged: '_Merged') -> Tensor:
        """:meth:`forward` for sizes that stay open: filled up, rolled, put back and cut by index."""
        window, sizes = self.window_size, x.shape[1:3]
        places = [torch.arange(whole(n, window), device=x.device) for n in sizes]
        # shift_size, or 0 where a side is no longer than a window, and no branch.
        larger = [(torch.arange(n, device=x.device) >= window).any() for n in sizes]
        shift = (larger[0] & larger[1]).long() * self.shift_size
        for dim, place in zip((1, 2), places):
            rolled = place + shift
            x = read_or_zero(x, dim, torch.where(rolled < place.numel(), rolled, rolled - place.numel()))
        maps = F.linear(x, merged.project_weight, merged.project_bias).unflatten(3, (self.dim // self.num_heads, -1))
        back = [torch.arange(n, device=x.device) - shift for n in sizes]
        back = [torch.where(rolled < 0, rolled + place.numel(), rolled) for rolled, place in zip(back, places)]
        out = None
        if 'attention' in self.paths:
            summand = merged.position_bias
            if self.shift_size:
                summand = summand + open_shift_mask(*places, window, shift, summand.dtype)
            attention = attend_in_windows(maps, summand, self.num_heads, window)
            out = F.linear(_put_together(attention, *back), merged.out_weight, merged.out_bias)
        if 'convolution' in self.paths:
            convolution = self._convolve(maps, merged)
            for dim in (1, 2):
                convolution = convolution.index_select(dim, back[dim - 1])
            out = convolution if out is None else out + convolution
        return out

    def _arrange(self, x: Tensor) -> Tuple[Tensor, int]:
        """x filled up to whole windows and rolled, and by how much it was rolled."""
        height, width = x.shape[1:3]
        window = self.window_size
        shift = self.shift_size if min(height, width) > window else 0
        x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
        return (x.roll((-shift, -shift), (1, 2)) if shift else x), shift

    def _mix(self, maps: Tensor, shift: int, merged: '_Merged') -> Tensor:
        maps = maps.unflatten(3, (self.dim // self.num_heads, -1))
        if self.paths == PATHS:
            attended, convolved = Fork.apply(maps)
            attention, convolution = self._attend(attended, shift, merged), self._convolve(convolved, merged)
            # Backward hooks of a module forbid that its output is overwritten.
            return attention + convolution if torch.is_grad_enabled() else attention.add_(convolution)
        if self.paths == ('attention',):
            return self._attend(maps, shift, merged)
        return self._convolve(maps, merged)

    def _attend(self, maps: Tensor, shift: int, merged: '_Merged') -> Tensor:
        """(B, H, W, d, inputs of a group) to (B, H, W, dim)"""
        dropout = self.attn_drop.p if self.training else 0.0
        attention = window_attention(
            maps, merged.position_bias, self.num_heads, self.window_size, shift, dropout
        )
        return self.proj_drop(F.linear(attention, merged.out_weight, merged.out_bias))

    def _convolve(self, maps: Tensor, merged: '_Merged') -> Tensor:
        """(B, H, W, d, inputs of a group) to (B, H, W, dim)"""
        maps = maps.permute(0, 3, 4, 1, 2)  # (B, d, inputs, H, W)
        if merged.mixing is None:
            out = grouped_convolution(maps, merged.kernels)
        else:
            qkv = maps.transpose(1, 2).unflatten(1, (3, self.num_heads))
            out = convolution_path(qkv, merged.mixing, merged.kernels, merged.mixing_bias)
        return out.permute(0, 2, 3, 1)

    def _merge(self) -> '_Merged':
        """The weights as one pass uses them, rates inside: a factor of weights costs less than one of a map.

        The projection is ordered (d, 3 * heads), as the groups of the convolution path need it. Where that is
        fused, one more channel of each group is 1 everywhere: the input of fc's bias.
        """
        weight, bias = self.qkv.weight, self.qkv.bias
        if bias is None:
            bias = weight.new_zeros(len(weight))
        weight = weight.view(3 * self.num_heads, -1, self.dim).transpose(0, 1)
        bias = bias.view(3 * self.num_heads, -1).t()
        kernels = mixing = mixing_bias = out_weight = out_bias = position_bias = None
        if 'convolution' in self.paths:
            kernels, mixing, mixing_bias = self.dep_conv.weight, self.fc.weight, self.fc.bias
            if self.paths == PATHS:
                kernels = self.rate2.view(-1, 1, 1, 1) * kernels
            if self.num_heads <= FUSED_HEADS:
                weight, bias = F.pad(weight, (0, 0, 0, 1)), F.pad(bias, (0, 1), value=1.0)
                kernels, mixing, mixing_bias = fused_weight(mixing, kernels, mixing_bias), None, None
        if 'attention' in self.paths:
            out_weight, out_bias = self.proj.weight, self.proj.bias
            if self.paths == PATHS:
                # Dropout, which comes between, is linear.
                out_weight, out_bias = out_weight * self.rate1, out_bias * self.rate1
            position_bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        return _Merged(
            weight.flatten(0, 1),
            bias.flatten(),
            mixing,
            mixing_bias,
            kernels,
            out_weight,
            out_bias,
            position_bias,
        )

    @torch.no_grad()
    def switch_to_deploy(self) -> 'WindowACmix':
        """Merges the weights for good, for inference: outputs stay the same, what is merged is not trained any more."""
        if self.merged is None:
            self.merged = Buffers(self._merge()._asdict())
            names = ('qkv', 'proj', 'fc', 'dep_conv', 'rate1', 'rate2')
            for name in (*names, 'relative_position_bias_table', 'relative_position_index'):
                if hasattr(self, name):
                    delattr(self, name)
        return self

    def attention_weights(self, x: Tensor, row: int, col: int) -> Tensor:
        """Weights with which one pixel of the output attends to those of x, by head.

        Args:
            x: As for :meth:`forward`.
            row, col: The pixel of the output.

        Returns:
            (B, num_heads, H, W). The weights of a head have the sum 1, but for what falls to the zeros that fill
            up the last windows.

        Raises:
            ValueError: There is no such pixel, the layer has no attention, or it is deployed.
        """
        check_pixel(self, x.shape, row, col)
        height, width = x.shape[1:3]
        x, shift = self._arrange(x)
        merged = self._merge()
        maps = F.linear(x, merged.project_weight, merged.project_bias).unflatten(3, (self.dim // self.num_heads, -1))

        def first_channels(maps: Tensor) -> Tensor:
            out = window_attention(maps, merged.position_bias, self.num_heads, self.window_size, shift)
            row_there, col_there = (row - shift) % out.size(1), (col - shift) % out.size(2)
            return out.unflatten(3, (self.num_heads, -1))[:, row_there, col_there, :, 0]

        weights = derivative(first_channels, maps)[:, :, :, 0, 2 * self.num_heads : 3 * self.num_heads]
        return weights.roll((shift, shift), (1, 2))[:, :height, :width].permute(0, 3, 1, 2)

    def output_shape(self, shape: Sequence[int]) -> Tuple[int, ...]:
        """Shape of the output for an input of this shape."""
        return tuple(shape)

    def cost(self, height: int, width: int) -> Cost:
        """What the layer costs for one map of this size, which is filled up to whole windows."""
        pixels = (height + -height % self.window_size) * (width + -width % self.window_size)
        outputs, taps = self.dim * pixels, self.conv_kernel_size**2
        attention = convolution = Part()
        if 'attention' in self.paths:
            attention = Part(
                count_parameters(self, ('relative_position_bias_table', 'proj', 'rate1')),
                2 * self.window_size**2 * outputs + self.dim * outputs,
                outputs,
            )
        if 'convolution' in self.paths:
            convolution = Part(
                count_parameters(self, ('fc', 'dep_conv', 'rate2')), 3 * taps * outputs + taps**2 * outputs, outputs
            )
        projection = Part(count_parameters(self, ('qkv',)), 3 * self.dim * outputs, 3 * outputs)
        return Cost(projection, attention, convolution)

    def extra_repr(self) -> str:
        return (
            f'{self.dim}, {self.num_heads}, window_size={self.window_size}, shift_size={self.shift_size}, '
            f'conv_kernel_size={self.conv_kernel_size}, paths={self.paths}'
        )


def _relative_position_index(window: int) -> Tensor:
    """Row of the bias table for each pair of pixels of a window, (window**2, window**2)."""
    place = torch.arange(window)
    y, x = (part.flatten() for part in torch.meshgrid(place, place, indexing='ij'))
    dy = y[:, None] - y[None, :] + window - 1
    dx = x[:, None] - x[None, :] + window - 1
    return dy * (2 * window - 1) + dx


def _put_together(windows: Tensor, ys: Tensor, xs: Tensor) -> Tensor:
    """Pixels (B, rows of ys, columns of xs, C) of (B, rows, cols, window, window, C)."""
    rows, cols, window = windows.shape[1:4]
    ys = torch.div(ys, window, rounding_mode='floor') * (cols * window**2) + ys.remainder(window) * window
    xs = torch.div(xs, window, rounding_mode='floor') * window**2 + xs.remainder(window)
    index = (ys.unsqueeze(1) + xs).flatten()
    return windows.flatten(1, 4).index_select(1, index).unflatten(1, (ys.numel(), xs.numel()))


class _Merged(NamedTuple):
    """Weights as a pass uses them: None for what ``kernels`` contain already, and for a path that is left out."""

    project_weight: Tensor
    project_bias: Tensor
    mixing: Optional[Tensor]
    mixing_bias: Optional[Tensor]
    kernels: Optional[Tensor]
    out_weight: Optional[Tensor]
    out_bias: Optional[Tensor]
    position_bias: Optional[Tensor]
