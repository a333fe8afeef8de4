"""Stand-ins for what the pickle of a checkpoint holds, the memory that it may take, and words about both."""

from typing import Optional

# What any pickle may take beside what the file has.
ALLOWANCE = 2**27


class Unfit(ValueError):
    """Why a file is no checkpoint."""


class Name(str):
    """A function or class that the file refers to: module and name."""


class Made:
    """Stands for an object that would be made.

    Args:
        kind: Its class: 'numpy.ndarray', or one of 'bytes', 'curve', 'statistic', 'storage', 'tensor'.
        size: Bytes of a storage or of bytes, or of one element of a dtype.
        width: Bytes of one element of a storage.
        parts: What it holds.
    """

    def __init__(self, kind: str, size: int = 0, width: int = 1, parts: Optional[list] = None) -> None:
        self.kind, self.size, self.width, self.parts = kind, size, width, parts or []


class Budget:
    """Bytes of memory that a file may take: as many as it has, and an allowance.

    Raises:
        Unfit: More is spent.
    """

    def __init__(self, limit: int) -> None:
        self.left = limit + ALLOWANCE

    def spend(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise Unfit('it would take more memory than it has bytes')


def shown(value: object) -> str:
    """A value for a message; only the type of what could be long."""
    if isinstance(value, str):
        return ascii(str(value[:60]))
    if isinstance(value, tuple) and len(value) < 9 and all(type(n) is int for n in value):
        return str(tuple(value))[:80]
    if type(value) is Made:
        return value.kind
    return ascii(value) if type(value) in (int, float, bool, type(None)) else type(value).__name__


def refers(name: str) -> Unfit:
    if name.startswith('torch._utils._rebuild'):
        return Unfit(f'its tensors must be dense and hold plain numbers, got {shown(name)}')
    return Unfit(f'it refers to {name[:80] if name.isprintable() else ascii(name[:80])}, '
                 'and nothing but data is loaded from a file')


def is_key(value: object) -> bool:
    """Whether something may name or number another; the hash of a container can take forever, as equal ones can."""
    return type(value) in (str, bytes, float, bool, type(None)) or type(value) is int and abs(value) < 2**60
