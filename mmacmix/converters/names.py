"""What converters share: names, and the order of merged pixels."""

import re
from typing import Iterable, Tuple

from torch import Tensor

from mmacmix.state_dicts import StateDict, listing, shape_of

NORM = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
SWIN_NAMES = (
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'^layers\.', 'stages.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
)


def rename(key: str, names: Iterable[Tuple[str, str]]) -> str:
    """Applies (regular expression, replacement) one after the other."""
    for pattern, name in names:
        key = re.sub(pattern, name, key)
    return key


def refuse_unknown(state: StateDict, known: 're.Pattern', source: str) -> None:
    """Raises ValueError for names that the source does not have."""
    unknown = [key for key in state if not known.fullmatch(key)]
    if unknown:
        raise ValueError(f'keys unknown to source {source!r}: {listing(unknown)}')


def merge_order(key: str, value: Tensor) -> Tensor:
    """From the release's order of four merged pixels, (x, y, channel), to unfold's, (channel, y, x)."""
    if not value.dim() or value.size(-1) % 4:
        raise ValueError(f'{key} must have a last axis that 4 divides, got shape {shape_of(value)}')
    pixels = value.unflatten(-1, (2, 2, -1))  # (..., x, y, C)
    return pixels.transpose(-3, -1).flatten(-3)
