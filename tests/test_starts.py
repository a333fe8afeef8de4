"""Starts from weights without ACmix: the hosts' own backbones give the outputs to expect."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.models.backbones import PyramidVisionTransformer, ResNet, SwinTransformer
from torch import nn

from mmacmix.backbones import PVTACmix, ResNetACmix, SANACmix, SwinACmix
from mmacmix.checkpoints import convert
from mmacmix.converters import convert_with_report

TOOL = Path(__file__).parents[1] / 'tools' / 'model_converters' / 'convert_checkpoint.py'
BOTH, ATTENTION = ('attention', 'convolution'), ('attention',)
SWIN = dict(embed_dims=12, depths=(2, 2, 1), num_heads=(3, 6, 12))
PVT = dict(
    embed_dims=(8, 16, 40, 64),
    depths=(2, 1, 2, 1),
    num_heads=(1, 2, 5, 8),
    sr_ratios=(8, 4, 2, 1),
    mlp_ratios=(8, 8, 4, 4),
)


def host_swin():
    return SwinTransformer(
        embed_dims=12,
        depths=(2, 2, 1),
        num_heads=(3, 6, 12),
        strides=(4, 2, 2),
        out_indices=(0, 1, 2),
        drop_path_rate=0.0,
    )


def host_pvt():
    return PyramidVisionTransformer(
        embed_dims=8,
        num_layers=[2, 1, 2, 1],
        num_heads=[1, 2, 5, 8],
        pretrain_img_size=64,
        drop_path_rate=0.0,
    )


def host_san():
    return SANACmix(10, stem_channels=32, paths=ATTENTION)


FAMILIES = {
    'swin': (host_swin, lambda **o: SwinACmix(SWIN, drop_path_rate=0.0, **o), ((96, 64), (80, 67))),
    'pvt': (host_pvt, lambda **o: PVTACmix(PVT, pretrain_img_size=64, drop_path_rate=0.0, **o), ((64, 64), (100, 135))),
    'san': (host_san, lambda **o: SANACmix(10, stem_channels=32, **o), ((64, 96), (50, 67))),
}


def random_weights(model):
    """So that no two parts of it do the same."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            deviation = value[0].numel() ** -0.5 if value.dim() > 1 else 0.1
            if '.conv_w.5.' in name:  # SAN's weights have no softmax: its maps would grow from block to block
                deviation *= 0.02
            value.copy_(torch.randn_like(value) * deviation + (value.dim() == 1 and not name.endswith('conv_w.5.bias')))
    model.double().eval()
    return model  # the hosts' eval() returns nothing


@pytest.fixture(params=FAMILIES)
def source(request):
    return request.param


@pytest.mark.parametrize('paths', [BOTH, ATTENTION], ids='-'.join)
def test_the_start_preserves_the_function(source, paths):
    make_host, make_ours, sizes = FAMILIES[source]
    host, ours = random_weights(make_host()), make_ours(paths=paths).double().eval()
    ours.init_weights()
    converted = convert_with_report(host.state_dict(), source, paths)
    kept = ours.load_state_dict(converted.state, strict=False)
    assert kept.unexpected_keys == []
    counters = [key for key in kept.missing_keys if key.endswith('num_batches_tracked')]
    assert sorted(kept.missing_keys) == sorted([*converted.fresh, *counters])
    assert bool(converted.fresh) == (paths == BOTH)
    for size in sizes:
        x = torch.randn(2, 3, *size, dtype=torch.float64)
        with torch.no_grad():
            for out, expected in zip(ours(x), host(x)):
                torch.testing.assert_close(out, expected)


def test_the_rate_of_zero_learns(source):
    """The first step moves it off zero, and from then on the path itself learns."""
    make_host, make_ours, sizes = FAMILIES[source]
    ours = make_ours().double()
    ours.load_state_dict(convert(random_weights(make_host()).state_dict(), source), strict=False)
    ours.train()
    optimizer = torch.optim.SGD(ours.parameters(), lr=1e-3)
    x = torch.randn(2, 3, *sizes[0], dtype=torch.float64)
    for step in range(2):
        optimizer.zero_grad()
        sum(out.square().mean() for out in ours(x)).backward()
        for name, parameter in ours.named_parameters():
            if name.endswith('rate2'):
                assert parameter.grad.abs().item() > 0, name
            if name.endswith(('fc.weight', 'dep_conv.weight')):
                assert parameter.grad.any() == (step > 0), name
        optimizer.step()


def test_swin_layouts_agree():
    """The official layout has the same weights under other names, and merged pixels in another order."""
    state = random_weights(host_swin()).state_dict()
    official = {}
    for key, value in state.items():
        if key.startswith(('norm0', 'norm1')) or key.endswith('relative_position_index'):
            continue
        if '.downsample.' in key:  # (channel, y, x) to (x, y, channel)
            value = value.unflatten(-1, (-1, 2, 2)).transpose(-3, -1).flatten(-3)
        for pattern, name in (
            (r'patch_embed\.projection', 'patch_embed.proj'),
            (r'^stages\.', 'layers.'),
            (r'\.w_msa\.', '.'),
            (r'\.ffn\.layers\.0\.0\.', '.mlp.fc1.'),
            (r'\.ffn\.layers\.1\.', '.mlp.fc2.'),
            (r'^norm2\.', 'norm.'),
        ):
            key = re.sub(pattern, name, key)
        official[key] = value
    official.update({'head.weight': torch.ones(10, 48), 'layers.0.blocks.1.attn_mask': torch.ones(4, 49, 49)})
    converted = convert_with_report({'model': official}, 'swin')
    expected = convert(state, 'swin')
    assert converted.state.keys() == expected.keys()
    for key, value in converted.state.items():
        if not key.startswith(('norm0', 'norm1')):
            assert torch.equal(value, expected[key]), key
    assert torch.equal(converted.state['norm0.weight'], torch.ones(12, dtype=torch.float64))
    assert sorted(converted.ignored) == ['head.weight', 'layers.0.blocks.1.attn_mask']


def test_pvt_layouts_agree():
    state = random_weights(host_pvt()).state_dict()
    official = {}
    for key, value in state.items():
        stage = int(key.split('.')[1]) + 1
        rest = key.split('.', 2)[2]
        if rest.startswith('0.'):
            official[f'patch_embed{stage}.{rest[2:].replace("projection", "proj")}'] = value
        elif rest == '1.0.pos_embed':
            last = stage == 4
            value = torch.cat([torch.full_like(value[:, :1], 7), value], 1) if last else value  # the class token's
            official[f'pos_embed{stage}'] = value
        else:
            _, block, name = rest.split('.', 2)
            name = f'block{stage}.{int(block) - 1}.{name}'
            if '.attn.attn.in_proj_' in name:
                kind = name.rsplit('_', 1)[1]
                prefix = name[: name.index('.attn.attn.')]
                part = len(value) // 3
                official[f'{prefix}.attn.q.{kind}'], official[f'{prefix}.attn.kv.{kind}'] = value[:part], value[part:]
                continue
            name = name.replace('.attn.attn.out_proj.', '.attn.proj.').replace('.ffn.layers.0.', '.mlp.fc1.')
            name = name.replace('.ffn.layers.3.', '.mlp.fc2.')
            official[name] = value.flatten(1) if '.mlp.' in name and value.dim() > 1 else value
    dropped = {'head.weight': torch.ones(10, 64), 'norm.weight': torch.ones(64), 'cls_token': torch.ones(1, 1, 64)}
    official.update(dropped)
    converted, expected = convert_with_report(official, 'pvt'), convert(state, 'pvt')
    assert converted.state.keys() == expected.keys()
    for key, value in converted.state.items():
        assert torch.equal(value, expected[key]), key
    assert sorted(converted.ignored) == ['cls_token', 'head.weight', 'norm.weight']


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
@pytest.mark.parametrize('paths', [BOTH, ATTENTION, ('convolution',)], ids='-'.join)
def test_resnet(prefix, paths):
    """Stem, 1x1 convolutions, normalisations and downsampling; every ACmix layer starts fresh."""
    host = random_weights(ResNet(50, base_channels=8, stem_channels=8)).state_dict()
    state = {f'{prefix}{key}': value for key, value in host.items()}
    state['backbone.fc.weight' if prefix else 'fc.weight'] = torch.ones(10, 256)
    if prefix:
        state['neck.conv.weight'] = torch.ones(1)
    converted = convert_with_report(state, 'resnet', paths)
    ours = ResNetACmix(50, base_channels=8, stem_channels=8, paths=paths).double()
    missing = ours.load_state_dict(converted.state, strict=False).missing_keys
    assert sorted(missing) == sorted(converted.fresh)
    assert all('.conv2.' in name for name in missing)
    assert torch.equal(ours.layer2[0].downsample[0].weight, host['layer2.0.downsample.0.weight'])
    ignored = {name.replace('backbone.', '') for name in converted.ignored}
    assert {'layer1.0.conv2.weight', 'fc.weight'} <= ignored and (not prefix or 'neck.conv.weight' in ignored)


def test_whole_models_and_parallel_names(source):
    make_host, _, _ = FAMILIES[source]
    state = make_host().state_dict()
    expected = convert(state, source)
    wrapped = {f'module.backbone.{key}': value for key, value in state.items()}
    wrapped['module.neck.weight'] = torch.ones(1)
    converted = convert_with_report({'state_dict': wrapped, 'meta': {}}, source)
    assert converted.state.keys() == expected.keys() and 'neck.weight' in converted.ignored


@pytest.mark.parametrize(
    'state, source, message',
    [
        (lambda: host_swin().state_dict(), 'pvt', r"keys unknown to source 'pvt': "),
        (lambda: host_pvt().state_dict(), 'swin', r"keys unknown to source 'swin': "),
        (lambda: ResNet(18).state_dict(), 'resnet', "keys unknown to source 'resnet': |must have bottlenecks"),
        (lambda: ResNet(50, base_channels=8, stem_channels=8).state_dict(), 'san', "keys unknown to source 'san': "),
        (lambda: SwinACmix(SWIN).state_dict(), 'swin', "keys unknown to source 'swin': |must be without ACmix"),
        (lambda: {}, 'swin', "source 'swin' must have attention layers"),
        (lambda: {}, 'pvt', "source 'pvt' must have attention layers"),
        (lambda: {}, 'san', "source 'san' must have attention layers"),
        (lambda: {}, 'resnet', "source 'resnet' must have bottlenecks"),
        (lambda: {}, 'vgg', r"source must be one of \['acmix', 'pvt', 'resnet', 'san', 'swin'\], got source='vgg'"),
    ],
)
def test_wrong_sources(state, source, message):
    with pytest.raises(ValueError, match=message):
        convert(state(), source)


def test_wrong_paths():
    with pytest.raises(ValueError, match="paths must have 'attention', which the weights are for"):
        convert(host_swin().state_dict(), 'swin', ('convolution',))
    with pytest.raises(ValueError, match="paths must be a tuple of 'attention', 'convolution' or both"):
        convert(host_swin().state_dict(), 'swin', ('conv',))
    with pytest.raises(ValueError, match="for source 'acmix'"):
        convert({}, 'acmix', ATTENTION)


def run(*args):
    return subprocess.run([sys.executable, str(TOOL), *map(str, args)], capture_output=True, text=True)


def test_tool_and_pretrained(tmp_path):
    """The converted file says what starts fresh; a backbone loads it, and still refuses one that lacks more."""
    host = random_weights(host_swin())
    host.float()
    torch.save({'model': host.state_dict()}, tmp_path / 'swin.pth')
    target = tmp_path / 'start.pth'
    result = run(tmp_path / 'swin.pth', target, '--source', 'swin')
    assert result.returncode == 0, result.stderr
    for line in ('loaded: ', 'fresh: 15', '5 x stages.*.blocks.*.attn.dep_conv.weight', 'ignored: 5'):
        assert line in result.stdout, result.stdout
    ours = SwinACmix(SWIN, drop_path_rate=0.0, init_cfg=dict(type='Pretrained', checkpoint=str(target))).eval()
    ours.init_weights()
    x = torch.randn(1, 3, 64, 64)
    for out, expected in zip(ours(x), host(x)):
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
    assert ours.stages[0].blocks[0].attn.rate2.item() == 0
    loaded = torch.load(target, weights_only=True)
    del loaded['state_dict']['stages.0.blocks.0.attn.qkv.weight']
    torch.save(loaded, target)
    with pytest.raises(ValueError, match='1 missing: stages.0.blocks.0.attn.qkv.weight'):
        ours.init_weights()
    result = run(tmp_path / 'swin.pth', target, '--source', 'swin', '--paths', 'attention')
    assert result.returncode == 0 and 'fresh: 0' in result.stdout
    alone = SwinACmix(SWIN, paths=ATTENTION, init_cfg=dict(type='Pretrained', checkpoint=str(target)))
    alone.init_weights()


def test_attention_alone_is_the_plain_backbone_of_full_size():
    """Swin-T and PVT-T with the hosts' defaults.

    MMDetection's Swin shifts the windows of a map that is no larger than one window, the official code and ours do not:
    hence an image whose last map is larger.
    """
    for host, ours, source in (
        (SwinTransformer(drop_path_rate=0.0), SwinACmix('tiny', drop_path_rate=0.0, paths=ATTENTION), 'swin'),
        (
            PyramidVisionTransformer(num_layers=[2, 2, 2, 2], drop_path_rate=0.0),
            PVTACmix('tiny', drop_path_rate=0.0, paths=ATTENTION),
            'pvt',
        ),
    ):
        for module in host.modules():
            if isinstance(module, nn.LayerNorm):
                nn.init.normal_(module.weight, 1, 0.1)
        host.eval()
        ours.eval()
        ours.load_state_dict(convert(host.state_dict(), source, ATTENTION))
        x = torch.randn(1, 3, 256, 288)
        with torch.no_grad():
            for out, expected in zip(ours(x), host(x)):
                torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-4)
