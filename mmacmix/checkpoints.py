"""Weights of others made to fit our backbones, and loading that says what does not fit."""

import pickle
import re
from typing import Dict, Mapping, Optional, Tuple

import torch
from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

StateDict = Dict[str, Tensor]

_ACMIX = r'(rate[12]|conv[123]\.(weight|bias)|conv_p\.(weight|bias)|fc\.weight|dep_conv\.weight)'
_NORM = r'(weight|bias|running_mean|running_var|num_batches_tracked)'
_RESNET = re.compile(
    rf'conv1\.weight|bn1\.{_NORM}|layer\d+\.\d+\.('
    rf'conv[13]\.weight|bn[123]\.{_NORM}|conv2\.{_ACMIX}|downsample\.0\.weight|downsample\.1\.{_NORM})'
)
_SWIN = re.compile(
    r'patch_embed\.(proj|norm)\.(weight|bias)|norm\.(weight|bias)|'
    r'layers\.\d+\.downsample\.(reduction\.weight|norm\.(weight|bias))|'
    r'layers\.\d+\.blocks\.\d+\.(norm[12]\.(weight|bias)|mlp\.fc[12]\.(weight|bias)|'
    r'attn\.(rate[12]|relative_position_bias_table|qkv\.(weight|bias)|proj\.(weight|bias)|'
    r'fc\.(weight|bias)|dep_conv\.weight))'
)
_SWIN_NAMES = (
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'^layers\.', 'stages.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
)


def convert(state_dict: Mapping, source: str) -> StateDict:
    """Renames and rearranges the weights of another project for our backbones.

    Args:
        state_dict: Parameters by name, or a checkpoint that holds them under 'model' or 'state_dict'; names
            may begin with 'module.'.
        source: 'acmix': the released code of the paper, ResNet and Swin models or one ACmix module. The
            classifier is dropped. The release normalises only the last stage of Swin; the other outputs
            get a normalisation with weight 1 and bias 0.

    Returns:
        A state dict for ``ResNetACmix``, ``SwinACmix`` or ``ACmix`` of the same sizes.

    Raises:
        TypeError: An entry is not a tensor.
        ValueError: The source is unknown, or keys are not those of the source; they are named.
    """
    if source not in _CONVERTERS:
        raise ValueError(f'source must be one of {sorted(_CONVERTERS)}, got source={source!r}')
    return _CONVERTERS[source](unwrap(state_dict))


def unwrap(checkpoint: Mapping) -> StateDict:
    """Takes the parameters out of a checkpoint: from under 'model' or 'state_dict', without 'module.'.

    Raises:
        TypeError: The checkpoint is no mapping of names to tensors.
        ValueError: A tensor is larger than what is stored of it.
    """
    state = checkpoint
    for key in ('state_dict', 'model'):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping):
        raise TypeError(f'a checkpoint must map names to tensors, got {type(checkpoint).__name__}')
    wrong = [f'{k} ({type(v).__name__})' for k, v in state.items() if not isinstance(v, Tensor)]
    if wrong:
        raise TypeError(f'a checkpoint must map names to tensors, got {_listing(wrong)}')
    # A few bytes can claim to be a tensor of any size, by strides of 0.
    hollow = [k for k, v in state.items() if v.numel() * v.element_size() > v.untyped_storage().nbytes()]
    if hollow:
        raise ValueError(f'tensors of a checkpoint must not be larger than what is stored, got {_listing(hollow)}')
    return {re.sub(r'^module\.', '', key): value for key, value in state.items()}


def _convert_acmix(state: StateDict) -> StateDict:
    if any(key.startswith('layers.') for key in state):
        return _convert_swin_acmix(state)
    if 'conv_p.weight' in state:  # a module on its own, whose fc is not a classifier
        _refuse_unknown(state, re.compile(_ACMIX))
        return state
    state = {key: value for key, value in state.items() if key not in ('fc.weight', 'fc.bias')}
    _refuse_unknown(state, _RESNET)
    if not any(key.endswith('.conv2.rate1') for key in state):
        raise ValueError(
            f"source 'acmix' must have ACmix layers (layer1.0.conv2.rate1 ...), got {_listing(state)}"
        )
    return state


def _convert_swin_acmix(state: StateDict) -> StateDict:
    made_again = r'head\.(weight|bias)|.*\.(attn_mask|relative_position_index)'
    state = {key: value for key, value in state.items() if not re.fullmatch(made_again, key)}
    _refuse_unknown(state, _SWIN)
    if not any(key.endswith('.attn.rate1') for key in state):
        raise ValueError(
            f"source 'acmix' must have ACmix layers (layers.0.blocks.0.attn.rate1 ...), got {_listing(state)}"
        )
    last = max(int(key.split('.')[1]) for key in state if key.startswith('layers.'))
    out = {}
    for key, value in state.items():
        if re.match(r'norm\.', key):
            key = key.replace('norm.', f'norm{last}.')
        elif '.downsample.' in key:
            if not value.dim() or value.size(-1) % 4:
                raise ValueError(f"{key} must have a last axis that 4 divides, got shape {_shape(value)}")
            value = _merge_order(value)
        for pattern, name in _SWIN_NAMES:
            key = re.sub(pattern, name, key)
        out[key] = value
    for stage in range(last):
        bias = state.get(f'layers.{stage}.blocks.0.norm1.bias')
        if bias is None:
            raise ValueError(f"source 'acmix' must have layers.{stage}.blocks.0.norm1.bias, got {_listing(state)}")
        out[f'norm{stage}.weight'] = torch.ones_like(bias)
        out[f'norm{stage}.bias'] = torch.zeros_like(bias)
    return out


def _merge_order(value: Tensor) -> Tensor:
    """From the release's order of four merged pixels, (x, y, channel), to unfold's, (channel, y, x)."""
    pixels = value.unflatten(-1, (2, 2, -1))  # (..., x, y, C)
    return pixels.transpose(-3, -1).flatten(-3)


_CONVERTERS = {'acmix': _convert_acmix}


def load_pretrained(
    module: nn.Module,
    checkpoint: str,
    prefix: Optional[str] = None,
    map_location: Optional[str] = None,
    optional_keys: Optional[str] = None,
) -> None:
    """Loads weights into a module, all of them or none.

    Args:
        module: The module; its names are what the checkpoint must hold.
        checkpoint: Path or URL, as mmengine's loader takes it.
        prefix: Only parameters whose names begin so, and a dot, are taken, and lose it: 'backbone' or
            'backbone.' for the checkpoint of a detector.
        map_location: As for ``torch.load``; 'cpu' by default.
        optional_keys: Regular expression of names that either side may have alone.

    Raises:
        ValueError: The file cannot be read, or the weights do not fit; the message lists what is missing, left
            over or of another shape.
    """
    try:
        loaded = CheckpointLoader.load_checkpoint(checkpoint, map_location or 'cpu', logger='current')
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f'cannot read {checkpoint} as a checkpoint: it is damaged, or no checkpoint') from error
    state = unwrap(loaded)
    if prefix is not None:
        prefix = prefix if prefix.endswith('.') else f'{prefix}.'
        state = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
        if not state:
            raise ValueError(f'no parameter in {checkpoint} has a name that begins with prefix={prefix!r}')
    problem = mismatch(module.state_dict(), state, optional_keys)
    if problem:
        hint = ''
        if prefix is None and any(key.startswith('backbone.') for key in state):
            hint = "\nIs this the checkpoint of a whole detector or segmenter? Then add prefix='backbone.'."
        raise ValueError(f'{checkpoint} does not fit {type(module).__name__}: {problem}{hint}')
    kept = module.load_state_dict(state, strict=False)
    print_log(
        f'loaded {len(state) - len(kept.unexpected_keys)} parameters of {type(module).__name__} from {checkpoint}'
        + (f'; fresh: {_listing(kept.missing_keys)}' if kept.missing_keys else ''),
        logger='current',
    )


def mismatch(own: StateDict, state: StateDict, optional_keys: Optional[str] = None) -> str:
    """Describes how parameters by name differ from what a module has; '' where they fit."""

    def needed(key: str) -> bool:
        # mmengine's and torch's own loaders do not ask for this counter either.
        return not key.endswith('num_batches_tracked') and not (
            optional_keys and re.match(optional_keys, key)
        )

    missing = [key for key in own if key not in state and needed(key)]
    left_over = [key for key in state if key not in own and needed(key)]
    shapes = [
        f'{key} {_shape(state[key])}, here {_shape(own[key])}'
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    parts: Tuple = (('missing', missing), ('left over', left_over), ('of another shape', shapes))
    return '; '.join(f'{len(keys)} {what}: {_listing(keys)}' for what, keys in parts if keys)


def _refuse_unknown(state: StateDict, known: 're.Pattern') -> None:
    unknown = [key for key in state if not known.fullmatch(key)]
    if unknown:
        raise ValueError(f"keys unknown to source 'acmix': {_listing(unknown)}")


def _listing(keys, most: int = 8) -> str:
    keys = list(keys)
    rest = f', ... ({len(keys) - most} more)' if len(keys) > most else ''
    return ', '.join(keys[:most]) + rest


def _shape(x: Tensor) -> str:
    return 'x'.join(map(str, x.shape)) or 'scalar'
