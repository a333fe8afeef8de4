"""Checks of arguments that operators and layers share."""

from typing import Sequence, Tuple

PATHS = ('attention', 'convolution')


def check_positive_integers(**values: int) -> None:
    """Raises ValueError for the first argument that is not an integer of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f'{name} must be an integer of at least 1, got {name}={value!r}')


def check_odd(**values: int) -> None:
    """Raises ValueError for the first kernel size that has no centre."""
    for name, value in values.items():
        if value % 2 == 0:
            raise ValueError(f'{name} must be odd, got {name}={value}')


def check_heads(num_heads: int, **channels: int) -> None:
    """Raises ValueError where the channels cannot be shared out evenly among the heads."""
    for name, value in channels.items():
        if value % num_heads:
            raise ValueError(
                f'{name} must be divisible by num_heads, got {name}={value} and num_heads={num_heads}'
            )


def check_paths(paths: Sequence[str]) -> Tuple[str, ...]:
    """The paths of an ACmix layer, in their usual order.

    Raises:
        ValueError: ``paths`` is empty, or something else than a list of 'attention' and 'convolution'.
    """
    listed = isinstance(paths, (tuple, list)) and all(isinstance(path, str) for path in paths)
    if not listed or not paths or len(set(paths)) < len(paths) or not set(paths) <= set(PATHS):
        raise ValueError(f"paths must be a tuple of 'attention', 'convolution' or both, got paths={paths!r}")
    return tuple(path for path in PATHS if path in paths)
