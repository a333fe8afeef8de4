"""Memory that operators work in."""

import threading
from contextlib import contextmanager
from typing import Any, Dict, Iterator

import torch
from torch import Tensor

KEPT_BYTES = 256 * 2**20  # that a thread keeps for its next call

_kept = threading.local()


class Scratch:
    """Memory by name, taken once and used for every chunk.

    Args:
        options: dtype and device.
    """

    def __init__(self, options: Dict[str, Any]) -> None:
        self.options = options
        self.buffers: Dict[str, Tensor] = {}

    def __call__(self, name: str, size: int) -> Tensor:
        """So many elements: what was there before, or zeros."""
        buffer = self.buffers.get(name)
        if buffer is None or buffer.numel() < size:
            self.buffers.pop(name, None)
            with torch.inference_mode(False):  # a buffer may be used again outside
                buffer = self.buffers[name] = torch.zeros(size, **self.options)
        return buffer[:size]

    @property
    def bytes(self) -> int:
        return sum(x.numel() * x.element_size() for x in self.buffers.values())


@contextmanager
def scratch(options: Dict[str, Any], user: str = 'operator') -> Iterator[Scratch]:
    """Memory for one call. On CPU a thread keeps it: fresh pages of the system cost as much as the work in them.

    Args:
        options: dtype and device.
        user: Whose memory: users that are nested in one another need names of their own.
    """
    buffers = _kept.__dict__
    buffer = buffers.pop(user, None)
    if buffer is None or buffer.options != options:
        buffer = Scratch(options)
    yield buffer
    others = sum(kept.bytes for kept in buffers.values())
    if options['device'].type == 'cpu' and others + buffer.bytes <= KEPT_BYTES:
        buffers[user] = buffer
