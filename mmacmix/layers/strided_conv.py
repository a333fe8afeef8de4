"""Convolutions with a stride."""

from typing import Optional

from torch import Tensor, nn

from mmacmix.ops.strided import convolution


class StridedConv2d(nn.Conv2d):
    """``nn.Conv2d`` that is right where its output has one column; see :func:`mmacmix.ops.strided.convolution`."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Optional[Tensor]) -> Tensor:
        return convolution(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)
