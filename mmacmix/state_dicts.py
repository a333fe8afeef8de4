"""Parameters by name: how checkpoints hold them, and how messages name them."""

import re
from typing import Dict, Iterable, List, Mapping

import torch
from torch import Tensor

StateDict = Dict[str, Tensor]


def unwrap(checkpoint: Mapping) -> StateDict:
    """Takes the parameters out of a checkpoint: from under 'model' or 'state_dict', without 'module.'.

    Raises:
        ValueError: The checkpoint is no mapping of names to dense tensors of real numbers, or a tensor is larger than
            what is stored of it.
    """
    state = _state_of(checkpoint)
    if not isinstance(state, Mapping):
        raise ValueError(f'a checkpoint must map names to tensors, got {type(checkpoint).__name__}')
    check_tensors(checkpoint)
    wrong = [f'{k} ({type(v).__name__})' for k, v in state.items() if not isinstance(v, Tensor)]
    if wrong:
        raise ValueError(f'a checkpoint must map names to tensors, got {listing(wrong)}')
    # A few bytes can claim to be a tensor of any size, by strides of 0.
    hollow = [k for k, v in state.items() if v.numel() * v.element_size() > v.untyped_storage().nbytes()]
    if hollow:
        raise ValueError(f'tensors of a checkpoint must not be larger than what is stored, got {listing(hollow)}')
    return {re.sub(r'^module\.', '', key): value for key, value in state.items()}


def check_tensors(checkpoint: Mapping) -> None:
    """Looks at the names of parameters and at what their tensors hold; other values are left alone.

    Raises:
        ValueError: A name is no text, or a tensor is sparse, nested or quantised, or of complex numbers, which would
            be loaded without their imaginary part.
    """
    state = _state_of(checkpoint)
    unnamed = [f'{key!r:.40} ({type(key).__name__})' for key in state if not isinstance(key, str)]
    if unnamed:
        raise ValueError(f'names of parameters must be text, got {listing(unnamed)}')
    tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    odd = [f'{key} ({_kind(value)})' for key, value in tensors.items() if _kind(value)]
    if odd:
        raise ValueError(f'parameters must be dense tensors of real numbers, got {listing(odd)}')


def _state_of(checkpoint: object) -> object:
    state = checkpoint
    for key in ('state_dict', 'model'):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    return state


def _kind(value: Tensor) -> str:
    """What makes a tensor unfit for a parameter, if anything."""
    if value.is_nested:
        return 'nested'
    if value.layout != torch.strided:
        return str(value.layout)
    return str(value.dtype) if value.is_quantized or value.is_complex() else ''


def without_prefix(state: StateDict, prefix: str) -> StateDict:
    """The parameters whose names begin with ``prefix``, and lose it."""
    return {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}


def mixing_layers(names: Iterable[str]) -> List[str]:
    """Layers with both rates among these names of parameters, in their order: 'layer1.0.conv2' for example."""
    names = list(names)
    layers = [name[: -len('.rate1')] for name in names if name.endswith('.rate1')]
    return [layer for layer in layers if f'{layer}.rate2' in names]


def listing(keys: Iterable[object], most: int = 8) -> str:
    """Names or values for a message: the first ``most`` of them."""
    keys = [str(key) for key in keys]
    rest = f', ... ({len(keys) - most} more)' if len(keys) > most else ''
    return ', '.join(keys[:most]) + rest


def shape_of(x: Tensor) -> str:
    return 'x'.join(map(str, x.shape)) or 'scalar'
