"""Weights of the paper's released code: ResNet and Swin models, or one ACmix module."""

import re

import torch

from mmacmix.converters.names import NORM, SWIN_NAMES, merge_order, refuse_unknown, rename
from mmacmix.state_dicts import StateDict, listing

_ACMIX = r'(rate[12]|conv[123]\.(weight|bias)|conv_p\.(weight|bias)|fc\.weight|dep_conv\.weight)'
_RESNET = re.compile(
    rf'conv1\.weight|bn1\.{NORM}|layer\d+\.\d+\.('
    rf'conv[13]\.weight|bn[123]\.{NORM}|conv2\.{_ACMIX}|downsample\.0\.weight|downsample\.1\.{NORM})'
)
_SWIN = re.compile(
    r'patch_embed\.(proj|norm)\.(weight|bias)|norm\.(weight|bias)|'
    r'layers\.\d+\.downsample\.(reduction\.weight|norm\.(weight|bias))|'
    r'layers\.\d+\.blocks\.\d+\.(norm[12]\.(weight|bias)|mlp\.fc[12]\.(weight|bias)|'
    r'attn\.(rate[12]|relative_position_bias_table|qkv\.(weight|bias)|proj\.(weight|bias)|'
    r'fc\.(weight|bias)|dep_conv\.weight))'
)


def convert_acmix(state: StateDict) -> StateDict:
    """Renames and rearranges; the classifier is dropped.

    The release normalises only the last stage of Swin; the other outputs get a normalisation with weight 1 and bias 0.
    """
    if any(key.startswith('layers.') for key in state):
        return _convert_swin_acmix(state)
    if 'conv_p.weight' in state:  # a module on its own, whose fc is not a classifier
        refuse_unknown(state, re.compile(_ACMIX), 'acmix')
        return state
    state = {key: value for key, value in state.items() if key not in ('fc.weight', 'fc.bias')}
    refuse_unknown(state, _RESNET, 'acmix')
    if not any(key.endswith('.conv2.rate1') for key in state):
        raise ValueError(
            f"source 'acmix' must have ACmix layers (layer1.0.conv2.rate1 ...), got {listing(state)}"
        )
    return state


def _convert_swin_acmix(state: StateDict) -> StateDict:
    made_again = r'head\.(weight|bias)|.*\.(attn_mask|relative_position_index)'
    state = {key: value for key, value in state.items() if not re.fullmatch(made_again, key)}
    refuse_unknown(state, _SWIN, 'acmix')
    if not any(key.endswith('.attn.rate1') for key in state):
        raise ValueError(
            f"source 'acmix' must have ACmix layers (layers.0.blocks.0.attn.rate1 ...), got {listing(state)}"
        )
    last = max(int(key.split('.')[1]) for key in state if key.startswith('layers.'))
    out = {}
    for key, value in state.items():
        if re.match(r'norm\.', key):
            key = key.replace('norm.', f'norm{last}.')
        elif '.downsample.' in key:
            value = merge_order(key, value)
        out[rename(key, SWIN_NAMES)] = value
    for stage in range(last):
        bias = state.get(f'layers.{stage}.blocks.0.norm1.bias')
        if bias is None:
            raise ValueError(f"source 'acmix' must have layers.{stage}.blocks.0.norm1.bias, got {listing(state)}")
        out[f'norm{stage}.weight'] = torch.ones_like(bias)
        out[f'norm{stage}.bias'] = torch.zeros_like(bias)
    return out
