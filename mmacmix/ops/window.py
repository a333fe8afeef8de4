"""The geometry of one call of local attention."""

from typing import NamedTuple


class Window(NamedTuple):
    """Which pixels a query sees, and the factor of its logits."""

    kernel_size: int
    stride: int
    dilation: int
    scale: float
