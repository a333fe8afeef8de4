"""ACmix in place of a convolution, as in ResNet-ACmix.

Paper: "On the Integration of Self-Attention and Convolution", CVPR 2022, arXiv 2111.14556. Parameters have the
names and shapes of the released code, and its weights give its outputs. What differs, for dense prediction: any
map size, dilation, half precision and memory formats work, and memory does not grow with the window.
"""

from typing import NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from mmacmix.layers.attention_weights import check_pixel, derivative
from mmacmix.layers.buffers import Buffers
from mmacmix.layers.cost import Cost, Part, count_parameters
from mmacmix.layers.fork import Fork
from mmacmix.layers.shift import init_shift_kernels
from mmacmix.ops import convolution_path, packed_local_attention
from mmacmix.ops.biased import biased_convolution
from mmacmix.ops.checks import PATHS, check_heads, check_odd, check_paths, check_positive_integers
from mmacmix.ops.conv_path import FUSED_HEADS, fused_weight
from mmacmix.ops.exporting import exporting, repeat_last, whole
from mmacmix.ops.in_place import may_write, project
from mmacmix.ops.scratch import scratch


class ACmix(nn.Module):
    """Self-attention and convolution over the same three 1x1 projections (paper, section 4, figure 2).

    ``rate1 * attention + rate2 * convolution``: both rates are learnt and start at 0.5. One path alone has no rate.

    A map whose sides are no multiples of the stride is continued by its last row and column until they are. The
    released code does not take such maps; with zeros there, what was trained on whole multiples errs at the border.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, divisible by num_heads.
        num_heads: Attention heads; each has d = out_channels / num_heads channels.
        attn_kernel_size: Side of the attention window, odd.
        conv_kernel_size: Side of the convolution kernels, odd.
        stride: Step of the output on the input.
        dilation: Step between the pixels of a window and between the taps of the convolution.
        paths: 'attention', 'convolution' or both. A path that is left out has no parameters.

    Shape:
        (B, in_channels, H, W), any H and W >= 1, to
        (B, out_channels, ceil(H / stride), ceil(W / stride)).

    Raises:
        ValueError: An argument, or the input's shape, is not allowed.

    Example:
        >>> ACmix(64, 64, stride=2)(torch.randn(1, 64, 25, 38)).shape
        torch.Size([1, 64, 13, 19])
    """

    channels_last = False  # its maps are (B, C, H, W)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_heads: int = 4,
        attn_kernel_size: int = 7,
        conv_kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        paths: Sequence[str] = PATHS,
    ) -> None:
        super().__init__()
        self.paths = check_paths(paths)
        check_positive_integers(
            in_channels=in_channels,
            out_channels=out_channels,
            num_heads=num_heads,
            attn_kernel_size=attn_kernel_size,
            conv_kernel_size=conv_kernel_size,
            stride=stride,
            dilation=dilation,
        )
        check_odd(attn_kernel_size=attn_kernel_size, conv_kernel_size=conv_kernel_size)
        check_heads(num_heads, out_channels=out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_heads = num_heads
        self.attn_kernel_size = attn_kernel_size
        self.conv_kernel_size = conv_kernel_size
        self.stride = stride
        self.dilation = dilation

        head_dim = out_channels // num_heads
        taps = conv_kernel_size**2
        if self.paths == PATHS:
            self.rate1 = nn.Parameter(torch.empty(1))
            self.rate2 = nn.Parameter(torch.empty(1))
        self.conv1 = nn.Conv2d(in_channels, out_channels, 1)  # queries
        self.conv2 = nn.Conv2d(in_channels, out_channels, 1)  # keys
        self.conv3 = nn.Conv2d(in_channels, out_channels, 1)  # values
        if 'attention' in self.paths:
            self.conv_p = nn.Conv2d(2, head_dim, 1)  # position code, shared by the heads
        if 'convolution' in self.paths:
            self.fc = nn.Conv2d(3 * num_heads, taps, 1, bias=False)
            self.dep_conv = nn.Conv2d(
                taps * head_dim, out_channels, conv_kernel_size, groups=head_dim, bias=False
            )
        self.merged: Optional[nn.Module] = None  # by switch_to_deploy
        self.init_weights()

    def init_weights(self) -> None:
        """(Re)sets every parameter: 1x1 convolutions as torch does, shift kernels, rates of 0.5.

        mmengine calls this after the initialisation of the parent module, which may have written over
        all convolutions.
        """
        for name in ('conv1', 'conv2', 'conv3', 'conv_p', 'fc'):
            if hasattr(self, name):
                getattr(self, name).reset_parameters()
        if 'convolution' in self.paths:
            init_shift_kernels(self.dep_conv.weight)
        if self.paths == PATHS:
            nn.init.constant_(self.rate1, 0.5)
            nn.init.constant_(self.rate2, 0.5)

    def forward(self, x: Tensor, affine: Optional[Tuple[Tensor, Tensor]] = None) -> Tensor:
        """
        Args:
            x: (B, in_channels, H, W).
            affine: Factor and summand of each output channel, (out_channels,) both: a batch normalisation by
                running statistics, which then costs nothing.

        Raises:
            ValueError: x has another shape, or ``affine`` is given to a deployed layer.
        """
        if x.dim() != 4 or x.size(1) != self.in_channels:
            raise ValueError(
                f'x must have shape (B, in_channels={self.in_channels}, H, W), got x.shape={tuple(x.shape)}'
            )
        if affine is not None and self.merged is not None:
            raise ValueError('affine must be given to switch_to_deploy(), got it in a forward pass after that')
        x = self._continued(x)
        if x.device.type == 'cpu':
            # Convolutions and attention read and write all channels of a pixel at once.
            x = x.contiguous(memory_format=torch.channels_last)
        merged = self._merge(affine) if self.merged is None else self.merged
        if not may_write(x):
            return self._mix(x, biased_convolution(x, merged.project_weight, merged.project_bias), merged)
        with scratch(dict(dtype=x.dtype, device=x.device), 'projection') as buffer:
            pixels = x.permute(0, 2, 3, 1)
            maps = project(pixels, merged.project_weight.flatten(1), merged.project_bias, buffer)
            return self._mix(x, maps.permute(0, 3, 1, 2), merged)

    def _continued(self, x: Tensor) -> Tensor:
        """Maps (..., H, W) continued to whole multiples of the stride."""
        if self.stride > 1:
            for dim in (x.dim() - 2, x.dim() - 1):
                x = repeat_last(x, dim, whole(x.size(dim), self.stride))
        return x

    def _mix(self, x: Tensor, projection: Tensor, merged: '_Merged') -> Tensor:
        qkv = self._split(projection)
        if self.paths == PATHS:
            attended, convolved = Fork.apply(qkv)
            attention, convolution = self._attend(attended, x), self._convolve(convolved, merged)
            # A parameter would take half-precision maps up to its own precision.
            return torch.addcmul(convolution, attention, merged.rate.to(attention.dtype))
        if self.paths == ('convolution',):
            return self._convolve(qkv, merged)
        attention = self._attend(qkv, x)
        if merged.rate is None:
            return attention
        rate, shift = (value.to(attention.dtype) for value in (merged.rate, merged.shift.view(-1, 1, 1)))
        return torch.addcmul(shift, attention, rate)

    def _split(self, projection: Tensor) -> Tensor:
        """Queries, keys and values, (B, 3, heads, d, H, W)."""
        return projection.unflatten(1, (-1, 3, self.num_heads)).permute(0, 2, 3, 1, 4, 5)

    def _attend(self, qkv: Tensor, x: Tensor) -> Tensor:
        attention = packed_local_attention(
            qkv, self.attn_kernel_size, self.stride, self.dilation, position=self.position_code(x)
        )
        return attention.flatten(1, 2)

    def _convolve(self, qkv: Tensor, merged: '_Merged') -> Tensor:
        return convolution_path(
            qkv,
            merged.mixing,
            merged.kernels,
            stride=self.stride,
            dilation=self.dilation,
            bias=merged.shift,
        )

    def _merge(self, affine: Optional[Tuple[Tensor, Tensor]]) -> '_Merged':
        """The weights as one pass uses them: three projections as one, rates and ``affine`` inside of kernels."""
        convs = (self.conv1, self.conv2, self.conv3)
        size = (3, self.num_heads, -1)
        # The order (d, 3, heads) of channels is that of the groups of the convolution path.
        weight = torch.cat([c.weight for c in convs]).unflatten(0, size).permute(2, 0, 1, 3, 4, 5)
        bias = torch.cat([c.bias for c in convs]).view(size).permute(2, 0, 1)
        rates = [getattr(self, name, None) for name in ('rate1', 'rate2')]
        shift = None
        if affine is not None:
            exact = self.conv1.weight.dtype
            scale, shift = (value.to(exact) for value in affine)
            rates = [scale if rate is None else rate * scale for rate in rates]
        if rates[0] is not None:
            rates = [rate.view(-1, 1, 1) for rate in rates]
        return _Merged(weight.flatten(0, 2), bias.flatten(), *self._merge_kernels(rates[1]), shift, rates[0])

    def _merge_kernels(self, rate: Optional[Tensor]) -> Tuple[Optional[Tensor], Optional[Tensor]]:
        """``mixing`` and ``kernels`` of the convolution path."""
        if 'convolution' not in self.paths:
            return None, None
        kernels, mixing = self.dep_conv.weight, self.fc.weight
        if rate is not None:
            kernels = kernels * rate.unsqueeze(1)
        if self.num_heads <= FUSED_HEADS:
            kernels, mixing = fused_weight(mixing, kernels), None
        return mixing, kernels

    @torch.no_grad()
    def switch_to_deploy(self, affine: Optional[Tuple[Tensor, Tensor]] = None) -> 'ACmix':
        """Merges the weights for good, for inference: outputs stay the same, what is merged is not trained any more.

        Args:
            affine: As in :meth:`forward`, where it must not be passed again.
        """
        if self.merged is None:
            self.merged = Buffers(self._merge(affine)._asdict())
            for name in ('conv1', 'conv2', 'conv3', 'fc', 'dep_conv', 'rate1', 'rate2'):
                if hasattr(self, name):
                    delattr(self, name)
        return self

    def attention_weights(self, x: Tensor, row: int, col: int) -> Tensor:
        """Weights with which one pixel of the output attends to those of x, by head.

        Args:
            x: As for :meth:`forward`.
            row, col: The pixel of the output.

        Returns:
            (B, num_heads, H, W). The weights of a head have the sum 1; what was read beyond the border, by
            reflection or as a copy of the last row or column, counts where it lies.

        Raises:
            ValueError: There is no such pixel, the layer has no attention, or it is deployed.
        """
        check_pixel(self, x.shape, row, col)
        merged = self._merge(None)
        qkv = self._split(biased_convolution(x, merged.project_weight, merged.project_bias))

        def first_channels(qkv: Tensor) -> Tensor:
            out = self._attend(self._continued(qkv), self._continued(x))
            return out.unflatten(1, (self.num_heads, -1))[:, :, 0, row, col]

        return derivative(first_channels, qkv)[:, 2, :, 0]

    def position_code(self, x: Tensor) -> Tensor:
        """Code (d, H, W) of each pixel's place, x and y each from -1 to 1 over the map."""
        height, width = x.shape[-2:]
        exact = torch.promote_types(x.dtype, torch.float32)
        xs = _places(width, exact, x.device).expand(height, width)
        ys = _places(height, exact, x.device).unsqueeze(1)
        grid = torch.stack([xs, ys.expand(height, width)]).to(x.dtype)
        return self.conv_p(grid.unsqueeze(0)).squeeze(0)

    def output_shape(self, shape: Sequence[int]) -> Tuple[int, ...]:
        """Shape of the output for an input of this shape."""
        batch, _, height, width = shape
        return batch, self.out_channels, -(-height // self.stride), -(-width // self.stride)

    def cost(self, height: int, width: int) -> Cost:
        """What the layer costs for one map of this size."""
        height, width = (whole(n, self.stride) for n in (height, width))
        *_, rows, cols = self.output_shape((1, self.in_channels, height, width))
        pixels, outputs = height * width, self.out_channels * rows * cols
        taps, d = self.conv_kernel_size**2, self.out_channels // self.num_heads
        attention = convolution = Part()
        if 'attention' in self.paths:
            attention = Part(
                count_parameters(self, ('conv_p', 'rate1')),
                2 * self.attn_kernel_size**2 * outputs + 2 * d * pixels,
                outputs,
            )
        if 'convolution' in self.paths:
            convolution = Part(
                count_parameters(self, ('fc', 'dep_conv', 'rate2')),
                3 * self.out_channels * taps * pixels + taps**2 * outputs,
                outputs,
            )
        projected = 3 * self.out_channels * pixels
        names = ('conv1', 'conv2', 'conv3')
        return Cost(
            Part(count_parameters(self, names), self.in_channels * projected, projected), attention, convolution
        )

    def extra_repr(self) -> str:
        return (
            f'{self.in_channels}, {self.out_channels}, num_heads={self.num_heads}, '
            f'attn_kernel_size={self.attn_kernel_size}, conv_kernel_size={self.conv_kernel_size}, '
            f'stride={self.stride}, dilation={self.dilation}, paths={self.paths}'
        )


def _places(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Entries of an axis from -1 to 1, (length,)."""
    if exporting():  # linspace does not take an open size
        return torch.arange(length, dtype=dtype, device=device) * (2 / max(length - 1, 1)) - 1
    return torch.linspace(-1, 1, length, dtype=dtype, device=device)


class _Merged(NamedTuple):
    """Weights as a pass uses them; ``mixing`` is None where ``kernels`` contain it, ``rate`` where it is 1."""

    project_weight: Tensor
    project_bias: Tensor
    mixing: Optional[Tensor]
    kernels: Optional[Tensor]
    shift: Optional[Tensor]
    rate: Optional[Tensor]
