"""Merged weights of a deployed layer."""

from typing import Dict, Optional

from torch import Tensor, nn


class Buffers(nn.Module):
    """Holds tensors under their names."""

    def __init__(self, tensors: Dict[str, Optional[Tensor]]) -> None:
        super().__init__()
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor if tensor is None else tensor.detach().clone())
