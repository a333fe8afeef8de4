"""What holds for every backbone; what is special to one stands in its own file."""

import copy
import subprocess
import sys

import pytest
import torch
from mmengine.model import BaseModule

from mmacmix.backbones import ResNetACmix, SwinACmix
from mmacmix.registry import MODELS

SMALL = {
    'resnet': dict(type='mmacmix.ResNetACmix', depth=26, base_channels=8, stem_channels=8),
    'swin': dict(
        type='mmacmix.SwinACmix',
        arch=dict(embed_dims=8, depths=(2, 2, 2, 1), num_heads=(1, 2, 2, 4)),
        drop_path_rate=0.0,
    ),
    'pvt': dict(
        type='mmacmix.PVTACmix',
        arch=dict(
            embed_dims=(8, 16, 40, 64),
            depths=(2, 1, 2, 1),
            num_heads=(1, 2, 5, 8),
            sr_ratios=(8, 4, 2, 1),
            mlp_ratios=(8, 8, 4, 4),
        ),
        drop_path_rate=0.0,
    ),
    'san': dict(type='mmacmix.SANACmix', depth=10, stem_channels=32),
}
CHANNELS = {
    'resnet': (32, 64, 128, 256),
    'swin': (8, 16, 32, 64),
    'pvt': (8, 16, 40, 64),
    'san': (128, 256, 512, 1024),
}


@pytest.fixture(params=SMALL)
def family(request):
    return request.param


def build(family, **kwargs):
    return MODELS.build({**SMALL[family], **kwargs})


@pytest.mark.parametrize('size', [(64, 96), (1, 1), (33, 65), (100, 67), (31, 200)])
def test_any_size(family, size):
    outs = build(family).eval()(torch.randn(1, 3, *size))
    assert isinstance(outs, tuple) and len(outs) == 4
    for i, (out, channels) in enumerate(zip(outs, CHANNELS[family])):
        stride = 4 * 2**i
        # PVT rounds down.
        rounded = (max(n // stride, 1) if family == 'pvt' else -(-n // stride) for n in size)
        assert out.shape == (1, channels, *rounded)
        assert out.isfinite().all()


@pytest.mark.parametrize('size', [(0, 32), (32, 0), (0, 0)])
def test_images_without_pixels(family, size):
    with pytest.raises((ValueError, RuntimeError)):
        build(family)(torch.zeros(1, 3, *size))


@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('size', [(5, 1), (33, 1), (65, 2), (40, 5), (64, 32)])
def test_one_column_in_bfloat16(family, size, memory_format, relative_error):
    """Images and inner maps that give one column: torch errs in strided kernels over them."""
    torch.manual_seed(1)
    model = build(family).to(memory_format=memory_format).eval()
    right = copy.deepcopy(model)
    x = torch.randn(2, 3, *size).contiguous(memory_format=memory_format)
    expected = right(x)
    for _ in range(3):  # what torch leaves unset is 0 at first
        with torch.autocast('cpu', torch.bfloat16):
            outs = model(x)
        gradients = torch.autograd.grad(sum(out.float().square().sum() for out in outs), list(model.parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert all(relative_error(a, e) < 0.1 for a, e in zip(outs, expected))


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
def test_maps_are_contiguous(family, memory_format, training):
    """mmcv's RoIAlign reads any other format as if it were this one, without a word."""
    model = build(family).to(memory_format=memory_format).train(training)
    outs = model(torch.randn(2, 3, 96, 64).contiguous(memory_format=memory_format))
    assert [out.is_contiguous() for out in outs] == 4 * [True]


@pytest.mark.parametrize('out_indices', [(0,), (1, 2, 3), (0, 2)])
def test_out_indices(family, out_indices):
    outs = build(family, out_indices=out_indices)(torch.randn(1, 3, 64, 64))
    assert [out.size(1) for out in outs] == [CHANNELS[family][i] for i in out_indices]


@pytest.mark.parametrize('out_indices', [(4,), (-1,), (1, 1), (2, 1), (), ('0',), (True,)])
def test_out_indices_out_of_range(family, out_indices):
    with pytest.raises(ValueError, match=r'out_indices must be ascending stages in \[0, num_stages=4\), got'):
        build(family, out_indices=out_indices)


@pytest.mark.parametrize('frozen_stages', [5, -2, 1.5])
def test_frozen_stages_out_of_range(family, frozen_stages):
    with pytest.raises(ValueError, match=r'frozen_stages must be in \[-1, num_stages=4\], got frozen_stages='):
        build(family, frozen_stages=frozen_stages)


@pytest.mark.parametrize('training', [False, True])
def test_empty_batch(family, training):
    outs = build(family).train(training)(torch.randn(0, 3, 64, 64))
    assert [out.shape[:2] for out in outs] == [(0, c) for c in CHANNELS[family]]


def test_every_parameter_gets_a_gradient(family):
    model = build(family)
    model.init_weights()
    outs = model.train()(torch.randn(2, 3, 72, 100))
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert [n for n, p in model.named_parameters() if not p.grad.isfinite().all()] == []


@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 4])
def test_frozen_stages(family, frozen_stages):
    model = build(family, frozen_stages=frozen_stages).train()
    names = {
        'resnet': [('conv1.', 'bn1.'), ('layer1.',), ('layer2.',), ('layer3.',), ('layer4.',)],
        'swin': [('patch_embed.',), *((f'stages.{i}.', f'norm{i}.') for i in range(4))],
        'pvt': [('stages.0.patch_embed.', 'stages.0.pos_embed.'), *((f'stages.{i}.',) for i in range(4))],
        'san': [
            ('conv_in.', 'bn_in.', 'conv0.', 'layer0.', 'bn0.'),
            *((f'conv{i}.', f'layer{i}.', f'bn{i}.') for i in range(1, 5)),
        ],
    }[family]
    frozen = tuple(prefix for part in names[: frozen_stages + 1] for prefix in part)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith(frozen), name
    for name, module in model.named_modules():
        if not list(module.children()) and list(module.parameters()):
            assert module.training != f'{name}.'.startswith(frozen), name


@pytest.mark.parametrize('norm_eval', [False, True])
def test_norm_eval(norm_eval):
    model = build('resnet', norm_eval=norm_eval).train()
    assert model.bn1.training != norm_eval and model.conv1.training
    before = model.layer1[0].bn2.running_mean.clone()
    model(torch.randn(2, 3, 32, 32))
    assert torch.equal(before, model.layer1[0].bn2.running_mean) == norm_eval


def test_checkpointing_gives_the_same_gradients(family):
    plain = build(family).double().train()
    saving = build(family, with_cp=True).double().train()
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 40, 56, dtype=torch.float64)
    results = []
    for model in (plain, saving):
        copied = x.clone().requires_grad_()
        sum(out.square().sum() for out in model(copied)).backward()
        results.append([copied.grad, *(p.grad for p in model.parameters())])
    for a, b in zip(*results):
        torch.testing.assert_close(a, b)


def test_checkpointing_keeps_less(family):
    kept = {}
    for with_cp in (False, True):
        model = build(family, with_cp=with_cp).train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x, sizes=sizes: sizes.append(x.numel()) or x, lambda x: x
        ):
            model(torch.randn(2, 3, 64, 64))
        kept[with_cp] = sum(sizes)
    assert kept[True] < 0.6 * kept[False]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(family, dtype, relative_error):
    model = build(family).eval()
    model.init_weights()
    x = torch.randn(1, 3, 64, 80)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast('cpu', dtype):
            outs = model(x)
    for out, e in zip(outs, expected):
        assert out.isfinite().all() and relative_error(out, e) < 0.1


def test_channels_last(family):
    model = build(family).double().eval()
    x = torch.randn(2, 3, 40, 56, dtype=torch.float64)
    expected = model(x)
    outs = model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    for a, b in zip(outs, expected):
        torch.testing.assert_close(a, b)


def test_shift_kernels_survive_init_weights(family):
    class Detector(BaseModule):
        def __init__(self):
            super().__init__([dict(type='Kaiming', layer='Conv2d'), dict(type='Normal', layer='Linear', std=1)])
            self.backbone = build(family)

    model = Detector()
    model.init_weights()
    kernels = {n: p for n, p in model.named_parameters() if n.endswith('dep_conv.weight')}
    assert len(kernels) == {'resnet': 8, 'swin': 7, 'pvt': 6, 'san': 10}[family]
    for name, kernel in kernels.items():
        assert torch.equal(kernel.flatten(2), torch.eye(9).expand_as(kernel.flatten(2))), name
    rates = [p for n, p in model.named_parameters() if n.endswith(('rate1', 'rate2'))]
    assert len(rates) == 2 * len(kernels) and all(r.item() == 0.5 for r in rates)


def test_state_dict_holds_nothing_made_by_the_constructor(family):
    model = build(family)
    buffers = ('running_mean', 'running_var', 'num_batches_tracked')
    extra = set(model.state_dict()) - {n for n, _ in model.named_parameters()}
    assert all(name.endswith(buffers) for name in extra)
    model(torch.randn(1, 3, 64, 64))
    assert set(model.state_dict()) == set(build(family).state_dict())


def test_deep_copy(family):
    model = build(family).eval()
    x = torch.randn(1, 3, 32, 32)
    for a, b in zip(model(x), copy.deepcopy(model)(x)):
        assert torch.equal(a, b)


# Pretrained weights.


def save(tmp_path, state):
    path = tmp_path / 'weights.pth'
    torch.save(state, path)
    return str(path)


def test_pretrained(family, tmp_path):
    source = build(family)
    source.init_weights()
    path = save(tmp_path, source.state_dict())
    model = build(family, init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    for (name, a), b in zip(model.state_dict().items(), source.state_dict().values()):
        assert torch.equal(a, b), name


def test_pretrained_with_prefix(family, tmp_path):
    source = build(family)
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    path = save(tmp_path, dict(state_dict={**state, 'head.fc.weight': torch.zeros(3, 3)}))
    model = build(family, init_cfg=dict(type='Pretrained', checkpoint=path, prefix='backbone.'))
    model.init_weights()
    assert torch.equal(next(model.parameters()), next(source.parameters()))
    without = build(family, init_cfg=dict(type='Pretrained', checkpoint=path))
    with pytest.raises(ValueError, match="Then add prefix='backbone.'"):
        without.init_weights()
    wrong = build(family, init_cfg=dict(type='Pretrained', checkpoint=path, prefix='neck.'))
    with pytest.raises(ValueError, match="no parameter in .* has a name that begins with prefix='neck.'"):
        wrong.init_weights()


def test_pretrained_of_more_stages_is_accepted(tmp_path):
    path = save(tmp_path, build('resnet').state_dict())
    three = dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 1, 2))
    model = build('resnet', **three, init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    fewer = save(tmp_path, model.state_dict())
    with pytest.raises(ValueError, match=r'missing: layer4'):
        build('resnet', init_cfg=dict(type='Pretrained', checkpoint=fewer)).init_weights()


@pytest.mark.parametrize('kind', ['mmengine.Pretrained', 'PretrainedInit'])
@pytest.mark.parametrize('prefix', ['backbone', 'backbone.'])
def test_pretrained_spellings(tmp_path, kind, prefix):
    source = build('resnet')
    path = save(tmp_path, {f'backbone.{k}': v for k, v in source.state_dict().items()})
    model = build('resnet', init_cfg=dict(type=kind, checkpoint=path, prefix=prefix))
    model.init_weights()
    assert torch.equal(model.conv1.weight, source.conv1.weight)


@pytest.mark.parametrize('config', [dict(), dict(checkpoint='x.pth', chekpoint='y.pth')])
def test_pretrained_without_a_file_or_misspelt(config):
    with pytest.raises(ValueError, match='init_cfg of type Pretrained must have checkpoint and may have prefix'):
        build('resnet', init_cfg=dict(type='Pretrained', **config)).init_weights()


def test_pretrained_of_another_backbone_is_refused(family, tmp_path):
    other = build('swin' if family == 'resnet' else 'resnet')
    path = save(tmp_path, other.state_dict())
    model = build(family, init_cfg=dict(type='Pretrained', checkpoint=path))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r'weights.pth does not fit .*: \d+ missing: .*; \d+ left over: '):
        model.init_weights()
    first = next(iter(before))
    assert model.state_dict()[first].shape == before[first].shape


def test_pretrained_of_another_width_is_refused(tmp_path):
    path = save(tmp_path, build('resnet', base_channels=16).state_dict())
    model = build('resnet', init_cfg=dict(type='Pretrained', checkpoint=path))
    with pytest.raises(ValueError, match=r'of another shape: layer1.0.conv1.weight 16x8x1x1, here 8x8x1x1'):
        model.init_weights()


@pytest.mark.parametrize(
    'name, change, message',
    [
        ('swin', lambda s: s.pop('norm1.bias'), '1 missing: norm1.bias'),
        ('swin', lambda s: s.update({'norm1.junk': torch.ones(1)}), '1 left over: norm1.junk'),
        ('swin', lambda s: s.update({'norm7.weight': torch.ones(1)}), '1 left over: norm7.weight'),
        ('resnet', lambda s: s.update({'layer9.0.conv1.weight': torch.ones(1)}), '1 left over: layer9.0.conv1.weight'),
        ('resnet', lambda s: s.update({'layer_foo': torch.ones(1)}), '1 left over: layer_foo'),
        ('pvt', lambda s: s.update({'stages.7.x': torch.ones(1)}), r'1 left over: stages\.7\.x'),
        ('san', lambda s: s.pop('layer1.0.sam.conv1.bias'), '1 missing: layer1.0.sam.conv1.bias'),
    ],
)
def test_pretrained_in_parts_is_refused(tmp_path, name, change, message):
    state = build(name).state_dict()
    change(state)
    model = build(name, init_cfg=dict(type='Pretrained', checkpoint=save(tmp_path, state)))
    with pytest.raises(ValueError, match=message):
        model.init_weights()


@pytest.mark.parametrize('init_cfg', ['x.pth', 5, dict(checkpoint='x.pth'), dict(type=None), [dict()]])
def test_wrong_init_cfg(family, init_cfg):
    with pytest.raises(ValueError, match='init_cfg must be a dict with a type, or a list of them, got init_cfg='):
        build(family, init_cfg=init_cfg).init_weights()


def test_pretrained_for_other_outputs_is_accepted(tmp_path):
    path = save(tmp_path, build('swin', out_indices=(3,)).state_dict())
    model = build('swin', out_indices=(0, 1), init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    assert torch.equal(model.norm0.weight, torch.ones(8))


def test_damaged_file_is_named(family, tmp_path):
    path = tmp_path / 'page.pth'
    path.write_text('<html></html>')
    model = build(family, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    with pytest.raises(ValueError, match='cannot read .*page.pth as a checkpoint: it is damaged, or no file of torch'):
        model.init_weights()


def test_missing_file_is_an_error(family):
    model = build(family, init_cfg=dict(type='Pretrained', checkpoint='no/such.pth'))
    with pytest.raises(FileNotFoundError, match='the checkpoint must be an existing file, got no/such.pth'):
        model.init_weights()


# Each family.


def test_resnet_strides_and_dilations():
    model = build('resnet', strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)).eval()
    assert [tuple(x.shape[2:]) for x in model(torch.randn(1, 3, 65, 96))] == [(17, 24)] + 3 * [(9, 12)]
    assert model.layer4[0].conv2.dilation == 4 and model.layer3[0].conv2.stride == 1


def test_resnet_group_norm_and_fewer_stages():
    model = build(
        'resnet',
        norm_cfg=dict(type='GN', num_groups=4),
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
    )
    assert 'gn1.weight' in model.state_dict() and not hasattr(model, 'layer3')
    assert len(model(torch.randn(1, 3, 32, 32))) == 2


@pytest.mark.parametrize('zero_init_residual', [True, False])
def test_resnet_blocks_start_as_the_identity(zero_init_residual):
    model = build('resnet', zero_init_residual=zero_init_residual)
    model.init_weights()
    last = [p for name, p in model.named_parameters() if name.endswith('bn3.weight')]
    assert len(last) == 8
    assert all(torch.equal(p, torch.full_like(p, not zero_init_residual)) for p in last)


@pytest.mark.parametrize('depth, blocks', [(26, (1, 2, 4, 1)), (38, (2, 3, 5, 2)), (50, (3, 4, 6, 3))])
def test_resnet_depths(depth, blocks):
    model = ResNetACmix(depth, base_channels=4, stem_channels=4)
    assert tuple(len(getattr(model, f'layer{i}')) for i in range(1, 5)) == blocks


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(depth=[26]), r'depth must be one of \[26, 38, 50\], got depth=\[26\]'),
        (dict(strides=2), 'strides must have num_stages=4 entries, got strides=2'),
        (dict(in_channels=0), 'in_channels must be an integer of at least 1, got in_channels=0'),
        (dict(depth=101), r'depth must be one of \[26, 38, 50\], got depth=101'),
        (dict(num_stages=5), 'num_stages must be 1, 2, 3 or 4, got num_stages=5'),
        (dict(strides=(1, 2)), r'strides must have num_stages=4 entries, got strides=\(1, 2\)'),
        (dict(dilations=(1,)), r'dilations must have num_stages=4 entries, got dilations=\(1,\)'),
        (dict(num_heads=3), 'out_channels must be divisible by num_heads, got out_channels=8 and num_heads=3'),
        (dict(attn_kernel_size=8), 'attn_kernel_size must be odd, got attn_kernel_size=8'),
    ],
)
def test_resnet_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        ResNetACmix(**{**dict(depth=26, base_channels=8), **change})


def test_san_keeps_the_order_of_the_official_network():
    """Pooled, widened, blocks of norm, ReLU, attention, norm, ReLU, 1x1 convolution and identity, norm, ReLU."""
    model = build('san').double().train()
    x = torch.randn(2, 3, 32, 64, dtype=torch.float64)
    outs = model(x)
    expected = model.bn_in(model.conv_in(x)).relu()
    for level in range(5):
        conv, blocks, norm = (getattr(model, f'{name}{level}') for name in ('conv', 'layer', 'bn'))
        expected = conv(torch.nn.functional.max_pool2d(expected, 2, 2))
        for block in blocks:
            inner = block.bn2(block.sam(block.bn1(expected).relu())).relu()
            expected = expected + block.conv(inner)
        expected = norm(expected).relu()
        if level > 0:
            torch.testing.assert_close(outs[level - 1], expected)


def test_swin_feeds_large_maps_in_strips(monkeypatch):
    model = build('swin').eval()
    x = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        expected = model(x)
        monkeypatch.setattr('mmacmix.backbones.swin_acmix.WHOLE_BYTES', 0)
        monkeypatch.setattr('mmacmix.backbones.swin_acmix.STRIP_BYTES', 4 * 2 * 14 * 4 * 8 * 3)  # 3 rows of the first
        for out, e in zip(model(x), expected):
            torch.testing.assert_close(out, e)


def test_swin_normalises_each_output():
    model = build('swin').eval()
    for out in model(torch.randn(1, 3, 64, 64)):
        mean, deviation = out.mean(1), out.std(1, unbiased=False)
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-5, rtol=0)
        torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=0.05, rtol=0)


def test_swin_stochastic_depth_drops_both_branches():
    model = build('swin', drop_path_rate=0.9).train()
    block = model.stages[-1].blocks[-1]
    assert block.drop_path.drop_prob == block.ffn.dropout_layer.drop_prob == pytest.approx(0.9)
    x = torch.randn(64, 2, 2, 64)
    kept = (block(x) - x).abs().flatten(1).amax(1) > 1e-6
    # Of 64 images each branch is kept for about 6.
    assert 1 <= kept.sum() <= 30
    for branch in (block.attn, block.ffn):
        assert any(isinstance(m, torch.nn.Module) for m in branch.modules())
    attn_only = block.drop_path(torch.ones(512, 1, 1, 1)).flatten()
    ffn_only = block.ffn.dropout_layer(torch.ones(512, 1, 1, 1)).flatten()
    for rows in (attn_only, ffn_only):
        assert 0.02 < (rows > 0).float().mean() < 0.25


def test_swin_drop_rate_reaches_every_place():
    model = build('swin', drop_rate=0.3, attn_drop_rate=0.2)
    dropouts = {n: m.p for n, m in model.named_modules() if isinstance(m, torch.nn.Dropout)}
    assert dropouts['drop_after_pos'] == 0.3
    blocks = [n.rsplit('.', 1)[0] for n in dropouts if n.endswith('attn.attn_drop')]
    assert len(blocks) == 7
    for name, p in dropouts.items():
        assert p == (0.2 if name.endswith('attn_drop') else 0.3), name


def test_swin_norm_and_rates():
    with pytest.raises(ValueError, match=r"normalise the last axis, as dict\(type='LN'\) does, got norm_cfg="):
        build('swin', norm_cfg=dict(type='BN'))
    with pytest.raises(ValueError, match=r'drop_path_rate must be in \[0, 1\), got drop_path_rate=1.5'):
        build('swin', drop_path_rate=1.5)
    with pytest.raises(ValueError, match='mlp_ratio must give 1 hidden channel at least, got mlp_ratio=0'):
        build('swin', mlp_ratio=0)


def test_swin_of_two_stages_returns_both():
    model = SwinACmix(dict(embed_dims=8, depths=(1, 1), num_heads=(1, 2)))
    assert [x.size(1) for x in model(torch.randn(1, 3, 32, 32))] == [8, 16]


def test_swin_patch_norm_and_drop_path():
    model = build('swin', patch_norm=False, drop_path_rate=0.3)
    assert model.patch_embed.norm is None
    rates = [b.drop_path.drop_prob for s in model.stages for b in s.blocks]
    assert rates == pytest.approx([0.05 * i for i in range(7)])
    shifts = [b.attn.shift_size for s in model.stages for b in s.blocks]
    assert shifts == [0, 3, 0, 3, 0, 3, 0]


def test_swin_window_size():
    model = build('swin', window_size=5)
    assert model.stages[0].blocks[0].attn.relative_position_bias_table.shape == (81, 1)
    assert model(torch.randn(1, 3, 50, 70))[0].shape == (1, 8, 13, 18)


@pytest.mark.parametrize(
    'arch, message',
    [
        ('huge', r"arch must be one of \['small', 'tiny'\] or a dict, got arch='huge'"),
        (dict(embed_dims=8), r"arch must have just the keys \['depths', 'embed_dims', 'num_heads'\], got"),
        (dict(embed_dims=8, depths=(0, 1), num_heads=(1, 1)), r"arch\['depths'\] must list integers of at least 1"),
        (dict(embed_dims=8, depths=(1,), num_heads=(1.0,)), r"arch\['num_heads'\] must list integers of at least"),
        (dict(embed_dims=8, depths=(), num_heads=()), r"arch\['depths'\] must list integers of at least 1"),
        (dict(embed_dims=8, depths=(1, 1), num_heads=(1,)), 'must be equally long, got arch='),
        (dict(embed_dims=8, depths=4 * (1,), num_heads=4 * (3,)), 'divisible by num_heads, got dim=8 and num_heads=3'),
    ],
)
def test_swin_wrong_arch(arch, message):
    with pytest.raises(ValueError, match=message):
        SwinACmix(arch)


PVT = SMALL['pvt']['arch']


@pytest.mark.parametrize(
    'arch, message',
    [
        ('huge', r"arch must be one of \['large', 'medium', 'small', 'tiny'\] or a dict, got arch='huge'"),
        ({key: PVT[key] for key in PVT if key != 'sr_ratios'}, r"arch must have just the keys .*'sr_ratios'\], got"),
        (dict(PVT, window_size=7), 'arch must have just the keys'),
        (dict(PVT, sr_ratios=(8, 4, 2, 0)), r"arch\['sr_ratios'\] must list integers of at least 1"),
        ({key: () for key in PVT}, r"arch\['embed_dims'\] must list integers of at least 1"),
        (dict(PVT, depths=(1, 1)), 'must be equally long, got arch='),
        (dict(PVT, num_heads=(3, 2, 5, 8)), 'divisible by num_heads, got dim=8 and num_heads=3'),
    ],
)
def test_pvt_wrong_arch(arch, message):
    with pytest.raises(ValueError, match=message):
        build('pvt', arch=arch)


@pytest.mark.parametrize('drop_path_rate', [1, -0.1, '0.1', None])
@pytest.mark.parametrize('name', ['pvt', 'swin'])
def test_wrong_drop_path_rate(name, drop_path_rate):
    with pytest.raises(ValueError, match=r'drop_path_rate must be in \[0, 1\), got drop_path_rate='):
        build(name, drop_path_rate=drop_path_rate)


@pytest.mark.parametrize(
    'norm_cfg, message',
    [
        (None, 'norm_cfg must be a dict as dict'),
        ('BN', 'norm_cfg must be a dict as dict'),
        (dict(eps=1e-5), 'norm_cfg must be a dict as dict'),
        (dict(type='Batch'), 'norm_cfg must have a type that mmcv builds, and what the type needs, got norm_cfg='),
        (dict(type='GN'), 'norm_cfg must have a type that mmcv builds, and what the type needs, got norm_cfg='),
        (dict(type='GN', num_groups='a'), 'norm_cfg must have a type that mmcv builds, and what the type needs'),
        (dict(type='BN', epsilon=1), 'norm_cfg must have a type that mmcv builds, and what the type needs'),
        (dict(type='GN', num_groups=0), r'norm_cfg must fit maps of \d+ channels, got norm_cfg='),
        (dict(type='GN', num_groups=-16), r'norm_cfg must fit maps of \d+ channels, got norm_cfg='),
        ('other', 'norm_cfg must normalise (maps|the last axis), as dict'),
    ],
)
def test_wrong_norm_cfg(family, norm_cfg, message):
    if family == 'pvt':
        pytest.skip('has no norm_cfg')
    if norm_cfg == 'other':
        norm_cfg = dict(type='BN' if family == 'swin' else 'LN')
    with pytest.raises(ValueError, match=message):
        build(family, norm_cfg=norm_cfg)


@pytest.mark.parametrize('name, widths, channels', [
    ('resnet', dict(stem_channels=16, base_channels=32), 16),
    ('resnet', dict(stem_channels=32, base_channels=16), 16),
    ('san', dict(stem_channels=64), 16),
])
def test_groups_of_a_norm_that_do_not_fit(name, widths, channels):
    """Found before the layer that they do not fit is built; the narrowest is not that of the stem always."""
    groups = dict(type='GN', num_groups=32)
    message = rf"norm_cfg must fit maps of {channels} channels, got norm_cfg=\{{'type': 'GN', 'num_groups': 32\}}"
    with pytest.raises(ValueError, match=message):
        build(name, norm_cfg=groups, **widths)
    build(name, norm_cfg=dict(groups, num_groups=16), **widths)


@pytest.mark.parametrize('rate', [-0.1, 1.1, '0.1', None])
@pytest.mark.parametrize('argument', ['drop_rate', 'attn_drop_rate'])
@pytest.mark.parametrize('name', ['pvt', 'swin'])
def test_wrong_dropout(name, argument, rate):
    with pytest.raises(ValueError, match=rf'{argument} must be in \[0, 1\], got {argument}='):
        build(name, **{argument: rate})


@pytest.mark.parametrize('paths', [(), ('attn',), 'convolution', ('attention', 'attention')])
def test_wrong_paths(family, paths):
    with pytest.raises(ValueError, match="paths must be a tuple of 'attention', 'convolution' or both, got paths="):
        build(family, paths=paths)


def test_stochastic_depth_grows_linearly(family):
    if family not in ('pvt', 'swin'):
        pytest.skip('has no stochastic depth')
    model = build(family, drop_path_rate=0.3)
    rates = [m.drop_prob for m in model.modules() if type(m).__name__ == 'DropPath']
    by_block = sorted(set(rates))
    assert rates == sorted(rates) and by_block[-1] == pytest.approx(0.3)
    steps = [b - a for a, b in zip(by_block, by_block[1:])]
    assert steps == pytest.approx([0.3 / (sum(SMALL[family]['arch']['depths']) - 1)] * len(steps))


def test_built_without_memory(family):
    with torch.device('meta'):
        model = build(family, **({} if family in ('resnet', 'san') else dict(drop_path_rate=0.2)))
        outs = model(torch.empty(1, 3, 64, 64))
    assert all(p.is_meta for p in model.parameters())
    assert [out.shape[1] for out in outs] == list(CHANNELS[family])


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
def test_hosts_find_the_class_without_custom_imports(scope):
    pytest.importorskip(scope)
    code = (
        f'from {scope}.registry import MODELS\n'
        f'from mmengine.registry import init_default_scope\n'
        f"init_default_scope('{scope}')\n"
        "print(type(MODELS.build(dict(type='mmacmix.SwinACmix', arch='tiny'))).__module__)"
    )
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.stdout.strip().endswith('mmacmix.backbones.swin_acmix'), run.stderr
