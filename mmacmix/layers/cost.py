"""What a layer costs by formula, whatever the implementation, in the two stages of the paper's analysis."""

from typing import Iterable, NamedTuple

from torch import nn


class Part(NamedTuple):
    """Cost of a part of a layer for one image.

    Attributes:
        parameters: Numbers that are learnt.
        multiply_adds: Of products and sums over channels or pixels; softmax, normalisations and activations are left
            out, as is usual.
        elements: Numbers that it puts out.
    """

    parameters: int = 0
    multiply_adds: int = 0
    elements: int = 0


class Cost(NamedTuple):
    """Cost of an ACmix layer: stage I, the projections that both paths share, and the two paths of stage II."""

    projection: Part
    attention: Part
    convolution: Part


def count_parameters(owner: nn.Module, names: Iterable[str]) -> int:
    """Of the parameters and modules that ``owner`` has under these names; those it does not have count nothing."""
    total = 0
    for name in names:
        part = getattr(owner, name, None)
        if isinstance(part, nn.Module):
            total += sum(p.numel() for p in part.parameters())
        elif part is not None:
            total += part.numel()
    return total
