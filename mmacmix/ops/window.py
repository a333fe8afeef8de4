"""The geometry of one call of local attention."""

from math import gcd
from typing import NamedTuple


class Window(NamedTuple):
    """Which pixels a query sees, and the factor of its logits."""

    kernel_size: int
    stride: int
    dilation: int
    scale: float

    @property
    def pad(self) -> int:
        """Width of the border that windows reach into, in pixels."""
        return self.kernel_size // 2 * self.dilation

    @property
    def phases(self) -> int:
        """Classes of queries per axis whose windows share no pixel."""
        return self.dilation // gcd(self.stride, self.dilation)

    def outputs(self, length: int) -> int:
        """Queries along an axis of ``length`` pixels."""
        return -(-length // self.stride)
