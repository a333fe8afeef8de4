"""Weights of backbones without ACmix as a start for those with it.

A transformer keeps its function: with the rates (1, 0) attention is what it was, and the convolution path starts at its
shifts but counts nothing. Its rate has a gradient none the less, the product of the path's output and the gradient of
the layer's, so that the first step moves it off zero; from then on ``fc`` and ``dep_conv`` learn as well.
"""

import re
from typing import List, NamedTuple, Tuple

import torch

from mmacmix.converters.names import NORM, SWIN_NAMES, merge_order, refuse_unknown, rename
from mmacmix.ops.checks import PATHS
from mmacmix.state_dicts import StateDict, listing, without_prefix


class Converted(NamedTuple):
    """Parameters for a backbone of ours, and what they leave open.

    Attributes:
        state: Parameters by our names.
        fresh: Names of parameters that the source does not have: they start as the backbone initialises them.
        ignored: Names of the source's parameters that a backbone does not have: classifier, neck, heads.
    """

    state: StateDict
    fresh: List[str]
    ignored: List[str]


_LINEAR = r'(weight|bias)'
_SWIN_BLOCK = (
    rf'norm[12]\.{_LINEAR}|attn\.relative_position_bias_table|attn\.(qkv|proj)\.{_LINEAR}|'
    rf'ffn\.layers\.(0\.0|1)\.{_LINEAR}'
)
_SWIN = re.compile(
    rf'patch_embed\.(projection|norm)\.{_LINEAR}|norm\d+\.{_LINEAR}|stages\.\d+\.blocks\.\d+\.({_SWIN_BLOCK})|'
    rf'stages\.\d+\.downsample\.(reduction\.weight|norm\.{_LINEAR})'
)
_PVT_BLOCK = rf'norm[12]\.{_LINEAR}|attn\.(q|kv|proj|sr|norm)\.{_LINEAR}|ffn\.layers\.(0\.0|1)\.{_LINEAR}'
_PVT = re.compile(
    rf'stages\.\d+\.(patch_embed\.(projection|norm)\.{_LINEAR}|pos_embed\.weight|blocks\.\d+\.({_PVT_BLOCK}))'
)
_SAN = re.compile(
    rf'(conv_in|conv\d)\.weight|(bn_in|bn\d)\.{NORM}|layer\d\.\d+\.('
    rf'bn[12]\.{NORM}|conv\.{_LINEAR}|sam\.(conv[123]\.{_LINEAR}|'
    rf'conv_w\.([03]\.{NORM}|2\.weight|5\.{_LINEAR})))'
)
_RESNET = re.compile(
    rf'conv1\.weight|bn1\.{NORM}|layer\d\.\d+\.(conv[13]\.weight|bn[123]\.{NORM}|'
    rf'downsample\.0\.weight|downsample\.1\.{NORM})'
)


def convert_swin(state: StateDict, paths: Tuple[str, ...]) -> Converted:
    """Swin Transformer: the official layout, or that of mmdet, mmseg and mmpretrain."""
    state, ignored = _backbone(state, r'head\.|.*\.(attn_mask|relative_position_index)$')
    official = any(key.startswith('layers.') for key in state)
    stages = [int(key.split('.')[1]) for key in state if re.match(r'(layers|stages)\.\d', key)]
    out = {}
    for key, value in state.items():
        if official and '.downsample.' in key:
            value = merge_order(key, value)
        if official and key.startswith('norm.') and stages:
            key = key.replace('norm.', f'norm{max(stages)}.')
        out[rename(key.replace('.attn.w_msa.', '.attn.'), SWIN_NAMES)] = value
    refuse_unknown(out, _SWIN, 'swin')
    layers = _layers(out, 'attn.qkv.weight', 'swin')
    if official:
        for stage in range(max(stages)):  # the classifier has only the last; dense prediction normalises all outputs
            like = out.get(f'stages.{stage}.blocks.0.norm1.bias')
            if like is not None:
                out[f'norm{stage}.weight'], out[f'norm{stage}.bias'] = torch.ones_like(like), torch.zeros_like(like)
    return _start(out, ignored, layers, paths, ('fc.weight', 'fc.bias', 'dep_conv.weight'))


def convert_pvt(state: StateDict, paths: Tuple[str, ...]) -> Converted:
    """Pyramid Vision Transformer, version 1: the official layout, or that of mmdet and mmseg."""
    state, ignored = _backbone(state, r'head\.|norm\.|cls_token$')
    out = _pvt_of_host(state) if any(key.startswith('layers.') for key in state) else _pvt_of_authors(state)
    refuse_unknown(out, _PVT, 'pvt')
    layers = _layers(out, 'attn.kv.weight', 'pvt')
    return _start(out, ignored, layers, paths, ('fc.weight', 'fc.bias', 'dep_conv.weight'))


def _pvt_of_authors(state: StateDict) -> StateDict:
    out = {}
    for key, value in state.items():
        match = re.match(r'(pos_embed|patch_embed|block)(\d)', key)
        if match is None:
            out[key] = value
            continue
        stage = f'stages.{int(match[2]) - 1}'
        rest = key[match.end() :]
        if match[1] == 'pos_embed':
            if value.dim() == 3 and round(value.size(1) ** 0.5) ** 2 == value.size(1) - 1:
                value = value[:, 1:]  # the class token's
            out[f'{stage}.pos_embed.weight'] = value
        elif match[1] == 'patch_embed':
            out[f'{stage}.patch_embed{rest.replace(".proj.", ".projection.")}'] = value
        else:
            out[rename(f'{stage}.blocks{rest}', SWIN_NAMES)] = value
    return out


def _pvt_of_host(state: StateDict) -> StateDict:
    """Stages are lists there: patches, then the position code and the blocks, then nothing."""
    positions = any(re.fullmatch(r'layers\.\d+\.1\.0\.pos_embed', key) for key in state)
    out = {}
    for key, value in state.items():
        match = re.match(r'layers\.(\d+)\.(?:(0)|1\.(\d+))\.(.*)', key)
        if match is None:
            out[key] = value
            continue
        stage, patches, block, rest = f'stages.{match[1]}', match[2], match[3], match[4]
        if patches:
            out[f'{stage}.patch_embed.{rest}'] = value
        elif rest == 'pos_embed':
            out[f'{stage}.pos_embed.weight'] = value
        else:
            name = f'{stage}.blocks.{int(block) - positions}'
            joint = re.fullmatch(r'attn\.attn\.in_proj_(weight|bias)', rest)
            if joint:  # queries, then keys and values
                channels = len(value) // 3
                out[f'{name}.attn.q.{joint[1]}'], out[f'{name}.attn.kv.{joint[1]}'] = value[:channels], value[channels:]
                continue
            rest = rename(rest, ((r'^attn\.attn\.out_proj\.', 'attn.proj.'), (r'^ffn\.layers\.3\.', 'ffn.layers.1.')))
            rest = re.sub(r'^ffn\.layers\.0\.(?=weight|bias)', 'ffn.layers.0.0.', rest)
            if rest.startswith('ffn.') and value.dim() == 4:  # a 1x1 convolution there
                value = value.flatten(1)
            out[f'{name}.{rest}'] = value
    return out


def convert_san(state: StateDict, paths: Tuple[str, ...]) -> Converted:
    """Patchwise SAN: the official layout."""
    state, ignored = _backbone(state, r'fc\.')
    refuse_unknown(state, _SAN, 'san')
    layers = _layers(state, 'sam.conv1.weight', 'san')
    return _start(dict(state), ignored, layers, paths, ('fc.weight', 'dep_conv.weight'))


def convert_resnet(state: StateDict, paths: Tuple[str, ...]) -> Converted:
    """ResNet with bottlenecks: the layout of torchvision, mmdet, mmseg and mmpretrain. ACmix starts fresh."""
    state, ignored = _backbone(state, r'fc\.|head\.')
    replaced = [key for key in state if re.fullmatch(r'layer\d\.\d+\.conv2\.weight', key)]
    out = {key: value for key, value in state.items() if key not in replaced}
    refuse_unknown(out, _RESNET, 'resnet')
    if not replaced or not any(key.endswith('.conv3.weight') for key in out):
        raise ValueError(f"source 'resnet' must have bottlenecks (layer1.0.conv1 to conv3 ...), got {listing(state)}")
    names = [f'conv{i}.{part}' for i in (1, 2, 3) for part in ('weight', 'bias')]
    if 'attention' in paths:
        names += ['conv_p.weight', 'conv_p.bias']
    if 'convolution' in paths:
        names += ['fc.weight', 'dep_conv.weight']
    if paths == PATHS:
        names += ['rate1', 'rate2']
    fresh = [f'{key[: -len("weight")]}{name}' for key in replaced for name in names]
    return Converted(out, fresh, ignored + replaced)


def _backbone(state: StateDict, ignored: str) -> Tuple[StateDict, List[str]]:
    """The parameters of the backbone of a model, and the names of what is left out."""
    inner = without_prefix(state, 'backbone.')
    dropped = [key for key in state if not key.startswith('backbone.')] if inner else []
    state = inner or state
    dropped += [key for key in state if re.match(ignored, key)]
    return {key: value for key, value in state.items() if not re.match(ignored, key)}, dropped


def _layers(state: StateDict, name: str, source: str) -> List[str]:
    """Prefixes of the layers that become ACmix."""
    kind = name.split('.')[0]
    layers = [key[: key.index(f'.{kind}.') + 1] for key in state if key.endswith(f'.{name}')]
    if not layers:
        raise ValueError(f'source {source!r} must have attention layers (... .{name}), got {listing(state)}')
    if any(key.endswith('.rate1') for key in state):
        raise ValueError(f'source {source!r} must be without ACmix, got weights with rates')
    return [f'{layer}{kind}.' for layer in layers]


def _start(
    state: StateDict, ignored: List[str], layers: List[str], paths: Tuple[str, ...], fresh: Tuple[str, ...]
) -> Converted:
    """Adds the rates with which a plain network keeps its function."""
    if 'attention' not in paths:
        raise ValueError(f"paths must have 'attention', which the weights are for, got paths={paths!r}")
    if paths != PATHS:
        return Converted(state, [], ignored)
    for layer in layers:
        state[f'{layer}rate1'], state[f'{layer}rate2'] = torch.ones(1), torch.zeros(1)
    return Converted(state, [f'{layer}{name}' for layer in layers for name in fresh], ignored)
