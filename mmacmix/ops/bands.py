"""Parts of a batch of maps that are worked off together."""

from typing import Iterator, Tuple

from torch import Tensor

BAND_BYTES = 2**20  # of a CPU's cache


def bands(maps: Tensor, channels: int) -> Iterator[Tuple[slice, slice]]:
    """Images and rows of (B, C, H, W) that are worked off together: on a CPU what stays in cache, else everything.

    An empty batch has none.

    Args:
        channels: Channels that the work on a pixel takes, in the type of ``maps``.
    """
    batch, _, height, width = maps.shape
    if maps.device.type != 'cpu':
        if batch:
            yield slice(0, batch), slice(0, height)
        return
    rows = max(1, BAND_BYTES // (channels * width * maps.element_size()))
    images = max(1, rows // height)
    for image in range(0, batch, images):
        for row in range(0, height, rows):
            yield slice(image, min(image + images, batch)), slice(row, min(row + rows, height))
