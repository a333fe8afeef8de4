"""ACmix in place of patchwise self-attention, as in SAN-ACmix.

Paper: "On the Integration of Self-Attention and Convolution", CVPR 2022, arXiv 2111.14556; patchwise self-attention:
"Exploring Self-attention for Image Recognition" (SAN), CVPR 2020, arXiv 2004.13621. The authors have not released this
form: it is a reconstruction. Decided here: queries, keys and each quarter of the values are one map of C / 16 channels
to the convolution path, so ``fc`` mixes 6 maps; ``fc`` has no bias, as in the released ResNet form; the outputs of both
paths are added by channel number.
"""

from typing import Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmacmix.layers.attention_weights import check_pixel, derivative
from mmacmix.layers.buffers import Buffers
from mmacmix.layers.cost import Cost, Part, count_parameters
from mmacmix.layers.shift import init_shift_kernels
from mmacmix.layers.window_norm import affine, window_norm
from mmacmix.ops import convolution_path
from mmacmix.ops.aggregation import aggregation
from mmacmix.ops.checks import PATHS, check_odd, check_paths, check_positive_integers
from mmacmix.ops.conv_path import fused_weight
from mmacmix.ops.window_mlp import window_mlp

KEY_SHARE = 16  # channels per channel of queries and keys
VALUE_GROUPS = 4  # channels of values per channel of keys
SHARED = 8  # channels of values that have the same weights


class PatchwiseACmix(nn.Module):
    """Patchwise self-attention and convolution over the same three 1x1 projections.

    ``rate1 * attention + rate2 * convolution``. One path alone has no rate. The weights of attention come from a
    perceptron over the query and the keys of its window, and there is no softmax.

    Args:
        channels: Channels of the input, divisible by 32; the output has a quarter of them.
        attn_kernel_size: Side of the attention window, odd.
        conv_kernel_size: Side of the convolution kernels, odd.
        paths: 'attention', 'convolution' or both. A path that is left out has no parameters.

    Shape:
        (B, channels, H, W), any H and W >= 1, to (B, channels / 4, H, W).

    Raises:
        ValueError: An argument, or the input's shape, is not allowed.
    """

    channels_last = False  # its maps are (B, C, H, W)

    def __init__(
        self,
        channels: int,
        attn_kernel_size: int = 7,
        conv_kernel_size: int = 3,
        paths: Sequence[str] = PATHS,
    ) -> None:
        super().__init__()
        self.paths = check_paths(paths)
        check_positive_integers(
            channels=channels, attn_kernel_size=attn_kernel_size, conv_kernel_size=conv_kernel_size
        )
        check_odd(attn_kernel_size=attn_kernel_size, conv_kernel_size=conv_kernel_size)
        if channels % (KEY_SHARE * SHARED // VALUE_GROUPS):
            raise ValueError(f'channels must be divisible by 32, got channels={channels}')
        self.channels = channels
        self.attn_kernel_size = attn_kernel_size
        self.conv_kernel_size = conv_kernel_size

        keys = channels // KEY_SHARE
        values = VALUE_GROUPS * keys
        window = attn_kernel_size**2
        taps = conv_kernel_size**2
        if self.paths == PATHS:
            self.rate1 = nn.Parameter(torch.empty(1))
            self.rate2 = nn.Parameter(torch.empty(1))
        self.conv1 = nn.Conv2d(channels, keys, 1)  # queries
        self.conv2 = nn.Conv2d(channels, keys, 1)  # keys
        self.conv3 = nn.Conv2d(channels, values, 1)
        if 'attention' in self.paths:
            # The first three act on the query and the keys of its window; they are not called as they stand.
            self.conv_w = nn.Sequential(
                nn.BatchNorm2d(keys * (window + 1)),
                nn.ReLU(inplace=True),
                nn.Conv2d(keys * (window + 1), values // SHARED, 1, bias=False),
                nn.BatchNorm2d(values // SHARED),
                nn.ReLU(inplace=True),
                nn.Conv2d(values // SHARED, window * values // SHARED, 1),
            )
        if 'convolution' in self.paths:
            self.fc = nn.Conv2d(2 + VALUE_GROUPS, taps, 1, bias=False)
            self.dep_conv = nn.Conv2d(taps * keys, values, conv_kernel_size, groups=keys, bias=False)
        self.merged: Optional[nn.Module] = None  # by switch_to_deploy
        self.init_weights()

    def init_weights(self) -> None:
        """(Re)sets every parameter: convolutions and normalisations as torch does, shift kernels, rates of 0.5.

        mmengine calls this after the initialisation of the parent module.
        """
        for module in (self.conv1, self.conv2, self.conv3, *getattr(self, 'conv_w', ())):
            if not isinstance(module, nn.ReLU):
                module.reset_parameters()
        if 'convolution' in self.paths:
            self.fc.reset_parameters()
            init_shift_kernels(self.dep_conv.weight)
        if self.paths == PATHS:
            nn.init.constant_(self.rate1, 0.5)
            nn.init.constant_(self.rate2, 0.5)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.size(1) != self.channels:
            raise ValueError(
                f'x must have shape (B, channels={self.channels}, H, W), got x.shape={tuple(x.shape)}'
            )
        if self.merged is not None:
            return self._forward_merged(x)
        projection = F.conv2d(x, *self._projection())
        if self.paths == ('convolution',):
            return self._convolve(projection, self._kernels())
        attention = self._attend(projection)
        if self.paths == ('attention',):
            return attention
        return torch.addcmul(
            self._convolve(projection, self._kernels()), attention, self.rate1.to(attention.dtype)
        )

    def _forward_merged(self, x: Tensor) -> Tensor:
        merged = self.merged
        projection = F.conv2d(x, merged.weight, merged.bias)
        out = None
        if 'attention' in self.paths:
            q, k, v = self._split(projection)
            hidden = self._perceptron(q, k, merged.scale, merged.shift, merged.hidden_weight, merged.hidden_bias)
            out = self._aggregate(v, F.conv2d(F.relu(hidden), merged.window_weight, merged.window_bias))
        if 'convolution' in self.paths:
            convolution = self._convolve(projection, merged.kernels)
            out = convolution if out is None else out + convolution
        return out

    def _projection(self) -> Tuple[Tensor, Tensor]:
        """Weight and bias of queries, keys and values together."""
        convs = (self.conv1, self.conv2, self.conv3)
        return torch.cat([c.weight for c in convs]), torch.cat([c.bias for c in convs])

    def _split(self, projection: Tensor) -> Tuple[Tensor, ...]:
        keys = self.channels // KEY_SHARE
        return projection.split([keys, keys, VALUE_GROUPS * keys], 1)

    def _attend(self, projection: Tensor) -> Tensor:
        q, k, v = self._split(projection)
        norm, _, first, *rest = self.conv_w
        scale, shift = window_norm(norm, q, k, self.attn_kernel_size)
        hidden = self._perceptron(q, k, scale, shift, first.weight, first.bias)
        for layer in rest:
            hidden = layer(hidden)
        return self._aggregate(v, hidden)

    def _perceptron(
        self, q: Tensor, k: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Optional[Tensor] = None
    ) -> Tensor:
        """First layer of the perceptron over the normalised query and keys, (B, C / 32, H, W)."""
        keys = self.channels // KEY_SHARE
        q = F.relu(torch.addcmul(shift[:keys, None, None].to(q), q, scale[:keys, None, None].to(q)))
        hidden = F.conv2d(q, weight[:, :keys], bias)
        window = (self.attn_kernel_size, self.attn_kernel_size)
        windows = (y.unflatten(-1, (keys, *window)) for y in (scale[keys:], shift[keys:], weight[:, keys:, 0, 0]))
        return hidden + window_mlp(k, *windows).to(hidden.dtype)

    def _aggregate(self, v: Tensor, hidden: Tensor) -> Tensor:
        weights = hidden.unflatten(1, (-1, self.attn_kernel_size**2))
        return aggregation(v.to(weights.dtype), weights, self.attn_kernel_size)

    def _kernels(self) -> Tensor:
        """Kernels of the convolution path, its rate and ``fc`` in them."""
        kernels = self.dep_conv.weight
        if self.paths == PATHS:
            kernels = self.rate2.view(-1, 1, 1, 1) * kernels
        # 6 maps of C / 16 channels: the fused form takes 216 multiply-adds for each, fc and dep_conv 378.
        return fused_weight(self.fc.weight, kernels)

    def _convolve(self, projection: Tensor, kernels: Tensor) -> Tensor:
        maps = projection.unflatten(1, (2 + VALUE_GROUPS, 1, self.channels // KEY_SHARE))
        return convolution_path(maps, None, kernels)

    @torch.no_grad()
    def switch_to_deploy(self) -> 'PatchwiseACmix':
        """Merges the weights for good, for inference: outputs are those of evaluation, and what is merged is not
        trained any more.

        Raises:
            ValueError: The normalisations of the attention windows keep no running statistics.
        """
        if self.merged is not None:
            return self
        self.eval()
        tensors = dict(zip(('weight', 'bias'), self._projection()))
        if 'attention' in self.paths:
            norm, _, first, second, _, last = self.conv_w
            if norm.running_mean is None or second.running_mean is None:
                raise ValueError('switch_to_deploy must find running statistics in conv_w, got norms without them')
            tensors['scale'], tensors['shift'] = affine(norm, norm.running_mean, norm.running_var)
            scale, tensors['hidden_bias'] = affine(second, second.running_mean, second.running_var)
            tensors['hidden_weight'] = first.weight * scale.view(-1, 1, 1, 1)
            rate = self.rate1 if self.paths == PATHS else 1
            tensors['window_weight'], tensors['window_bias'] = last.weight * rate, last.bias * rate
        if 'convolution' in self.paths:
            tensors['kernels'] = self._kernels()
        self.merged = Buffers(tensors)
        for name in ('conv1', 'conv2', 'conv3', 'conv_w', 'fc', 'dep_conv', 'rate1', 'rate2'):
            if hasattr(self, name):
                delattr(self, name)
        return self

    def attention_weights(self, x: Tensor, row: int, col: int) -> Tensor:
        """Weights with which one pixel of the output attends to those of x, by head.

        Args:
            x: As for :meth:`forward`.
            row, col: The pixel of the output.

        Returns:
            (B, channels / 32, H, W): one map for each of the groups of channels that share weights. There is no
            softmax: weights have either sign and any sum.

        Raises:
            ValueError: There is no such pixel, the layer has no attention, or it is deployed.
        """
        check_pixel(self, x.shape, row, col)
        groups = self.channels // KEY_SHARE * VALUE_GROUPS // SHARED

        def first_channels(projection: Tensor) -> Tensor:
            # Channels c and c + groups have the same weights.
            return self._attend(projection)[:, :groups, row, col]

        slopes = derivative(first_channels, F.conv2d(x, *self._projection()))
        return self._split(slopes)[2][:, :groups]

    def output_shape(self, shape: Sequence[int]) -> Tuple[int, ...]:
        """Shape of the output for an input of this shape."""
        batch, channels, height, width = shape
        return batch, channels // KEY_SHARE * VALUE_GROUPS, height, width

    def cost(self, height: int, width: int) -> Cost:
        """What the layer costs for one map of this size."""
        pixels, window, taps = height * width, self.attn_kernel_size**2, self.conv_kernel_size**2
        keys = self.channels // KEY_SHARE
        values = VALUE_GROUPS * keys
        shared = values // SHARED
        outputs = values * pixels
        attention = convolution = Part()
        if 'attention' in self.paths:
            perceptron = (window + 1) * keys * shared + shared * window * shared
            attention = Part(
                count_parameters(self, ('conv_w', 'rate1')),
                perceptron * pixels + window * outputs,
                (1 + window) * shared * pixels + outputs,
            )
        if 'convolution' in self.paths:
            convolution = Part(
                count_parameters(self, ('fc', 'dep_conv', 'rate2')),
                (2 + VALUE_GROUPS) * taps * keys * pixels + taps**2 * outputs,
                outputs,
            )
        projected = (2 * keys + values) * pixels
        names = ('conv1', 'conv2', 'conv3')
        return Cost(Part(count_parameters(self, names), self.channels * projected, projected), attention, convolution)

    def extra_repr(self) -> str:
        return (
            f'{self.channels}, attn_kernel_size={self.attn_kernel_size}, '
            f'conv_kernel_size={self.conv_kernel_size}, paths={self.paths}'
        )
