"""The start of the convolution path: kernels that shift (ACmix paper, section 3.3)."""

import torch
from torch import Tensor


@torch.no_grad()
def init_shift_kernels(weight: Tensor) -> None:
    """Fills (out, k * k, k, k) in place: input i of every group is shifted by tap (i // k, i % k).

    With these kernels the path of ``fc`` and ``dep_conv`` is exactly a k x k convolution; training may
    then change them.

    Example:
        >>> weight = torch.empty(1, 9, 3, 3)
        >>> init_shift_kernels(weight)
        >>> weight[0, 5].tolist()
        [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    taps = weight.size(1)
    weight.copy_(torch.eye(taps).view(taps, *weight.shape[2:]))
