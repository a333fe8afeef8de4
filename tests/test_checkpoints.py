"""Conversion of released weights, and comparison of a checkpoint with a model."""

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from mmacmix.backbones import ResNetACmix, SwinACmix
from mmacmix.checkpoints import convert, mismatch, unwrap
from mmacmix.layers import ACmix

TOOL = Path(__file__).parents[1] / 'tools' / 'model_converters' / 'convert_checkpoint.py'


@pytest.fixture(params=[0, 1], ids=['resnet', 'swin'])
def released(golden_models, request):
    return golden_models.state_dict(golden_models.cases[request.param]['state_dict'])


@pytest.mark.parametrize(
    'wrap',
    [
        lambda s: {'model': s},
        lambda s: {'state_dict': s, 'epoch': 3},
        lambda s: {f'module.{k}': v for k, v in s.items()},
        lambda s: {'model': {f'module.{k}': v for k, v in s.items()}, 'optimizer': {}},
    ],
)
def test_wrappings(released, wrap):
    expected, actual = convert(released, 'acmix'), convert(wrap(released), 'acmix')
    assert expected.keys() == actual.keys()
    assert all(torch.equal(expected[k], actual[k]) for k in expected)


def test_classifier_and_made_buffers_are_dropped(golden_models):
    for case in golden_models.cases:
        state = {key: torch.zeros(shape) for key, shape in case['state_dict'].items()}
        converted = convert(state, 'acmix')
        gone = ('head.', 'attn_mask', 'relative_position_index')
        assert not [k for k in converted if k.startswith('fc.') or any(g in k for g in gone)]
        model = ResNetACmix(26) if 'resnet' in case['name'] else SwinACmix('tiny')
        model.load_state_dict(converted, strict=True)


def test_unknown_keys_are_named(released):
    layer = 'layer1.0.conv2.rate3' if 'conv1.weight' in released else 'layers.0.blocks.0.attn.rate3'
    with pytest.raises(ValueError, match=f"keys unknown to source 'acmix': {re.escape(layer)}, surprise"):
        convert({**released, layer: torch.ones(1), 'surprise': torch.ones(1)}, 'acmix')


def test_dep_conv_bias_is_unknown(released):
    """The release has none; a file that has one was made by another code."""
    layer = next(k for k in released if k.endswith('dep_conv.weight')).replace('weight', 'bias')
    with pytest.raises(ValueError, match=re.escape(layer)):
        convert({**released, layer: torch.ones(1)}, 'acmix')


def test_single_module(golden_modules):
    state = golden_modules.state_dict(golden_modules.cases[0]['state_dict'])
    converted = convert(state, 'acmix')
    assert converted.keys() == ACmix(16, 16).state_dict().keys()
    for key in ('extra', 'fc.bias'):
        with pytest.raises(ValueError, match=f"unknown to source 'acmix': {key}"):
            convert({**state, key: torch.ones(1)}, 'acmix')


def test_plain_networks_are_refused():
    resnet = {'conv1.weight': torch.ones(64, 3, 7, 7), 'layer1.0.conv1.weight': torch.ones(64, 64, 1, 1)}
    with pytest.raises(ValueError, match="source 'acmix' must have ACmix layers .*, got conv1.weight"):
        convert(resnet, 'acmix')
    swin = {'layers.0.blocks.0.attn.qkv.weight': torch.ones(288, 96)}
    with pytest.raises(ValueError, match="source 'acmix' must have ACmix layers .*, got layers.0"):
        convert(swin, 'acmix')


def test_incomplete_release(golden_models):
    state = golden_models.state_dict(golden_models.cases[1]['state_dict'])
    del state['layers.0.blocks.0.norm1.bias']
    with pytest.raises(ValueError, match="source 'acmix' must have layers.0.blocks.0.norm1.bias, got patch_embed"):
        convert(state, 'acmix')


def test_module_is_taken_off_the_front_only():
    assert list(unwrap({'module.a.module.b': torch.ones(1)})) == ['a.module.b']


def test_unknown_source(released):
    with pytest.raises(ValueError, match=r"source must be one of \['acmix', .*\], got source='timm'"):
        convert(released, 'timm')


def test_not_a_state_dict():
    with pytest.raises(ValueError, match=r'map names to tensors, got lr \(float\)'):
        unwrap({'lr': 0.1})
    with pytest.raises(ValueError, match='map names to tensors, got list'):
        unwrap([1, 2])


@pytest.mark.parametrize('weight, kind', [
    (torch.eye(2).to_sparse(), 'torch.sparse_coo'), (torch.eye(2).to_sparse_csr(), 'torch.sparse_csr'),
    (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), 'nested'),
    (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), 'torch.qint8'),
    (torch.ones(2, dtype=torch.complex64), 'torch.complex64'),
], ids=['sparse', 'rows', 'nested', 'quantised', 'complex'])
def test_weights_that_no_layer_has(weight, kind):
    with pytest.raises(ValueError, match=rf'must be dense tensors of real numbers, got a.weight \({kind}\)'):
        unwrap({'state_dict': {'a.weight': weight, 'a.bias': torch.ones(2)}})


def test_names_are_text():
    with pytest.raises(ValueError, match=r'names of parameters must be text, got 1 \(int\)'):
        unwrap({1: torch.ones(2)})


def test_merging_takes_the_pixels_in_the_order_of_the_release(golden_models):
    """The release concatenates (even, even), (odd, even), (even, odd), (odd, odd) pixels (row, column)."""
    state = golden_models.state_dict(golden_models.cases[1]['state_dict'])
    model = SwinACmix('tiny').eval()
    model.load_state_dict(convert(state, 'acmix'), strict=False)
    x = torch.randn(1, 6, 8, 96)
    parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    merged = torch.cat(parts, -1)
    weight, bias = (state[f'layers.0.downsample.norm.{n}'] for n in ('weight', 'bias'))
    merged = torch.nn.functional.layer_norm(merged, (384,), weight, bias)
    expected = merged @ state['layers.0.downsample.reduction.weight'].t()
    actual = model.stages[0].downsample(x)
    assert actual.shape == (1, 3, 4, 192)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_mismatch():
    own = {'a': torch.ones(2), 'b': torch.ones(3), 'n.num_batches_tracked': torch.tensor(0)}
    assert mismatch(own, own) == ''
    assert mismatch(own, {'a': torch.ones(2), 'b': torch.ones(3)}) == ''
    text = mismatch(own, {'a': torch.ones(4), 'c': torch.ones(1)})
    assert text == '1 missing: b; 1 left over: c; 1 of another shape: a 4, here 2'
    assert mismatch(own, {'a': torch.ones(2)}, 'b') == ''
    layer = {'l.a': torch.ones(2), 'l.b': torch.ones(3)}
    assert mismatch(layer, {}, 'l') == '' and mismatch({}, layer, 'l') == ''
    assert mismatch(layer, {'l.a': torch.ones(2)}, 'l') == '1 missing: l.b'
    assert mismatch({'l.a': torch.ones(2)}, layer, 'l') == '1 left over: l.b'


# The tool.


def run(*args):
    return subprocess.run([sys.executable, str(TOOL), *map(str, args)], capture_output=True, text=True)


def test_tool(released, tmp_path):
    source, target = tmp_path / 'released.pth', tmp_path / 'out' / 'backbone.pth'
    torch.save({'model': released}, source)
    result = run(source, target, '--source', 'acmix')
    assert result.returncode == 0, result.stderr
    config = dict(type='Pretrained', checkpoint=str(target))
    resnet = 'conv1.weight' in released
    model = ResNetACmix(26, init_cfg=config) if resnet else SwinACmix('tiny', init_cfg=config)
    model.init_weights()
    expected = convert(released, 'acmix')
    assert f'{len(expected)} parameters' in result.stdout
    for name, value in expected.items():
        assert torch.equal(model.state_dict()[name], value), name


def test_tool_reports_what_is_wrong(tmp_path):
    missing = run(tmp_path / 'no.pth', tmp_path / 'out.pth', '--source', 'acmix')
    assert missing.returncode == 2 and 'SRC does not exist: ' in missing.stderr
    bad = tmp_path / 'bad.pth'
    bad.write_bytes(b'not a checkpoint')
    result = run(bad, tmp_path / 'out.pth', '--source', 'acmix')
    assert result.returncode == 1 and f'cannot read {bad}' in result.stderr
    torch.save({'weird': torch.ones(1), 'conv1.weight': torch.ones(1)}, bad)
    result = run(bad, tmp_path / 'out.pth', '--source', 'acmix')
    assert result.returncode == 1 and "keys unknown to source 'acmix': weird" in result.stderr
    assert not (tmp_path / 'out.pth').exists()


@pytest.mark.skipif(torch.__version__ < (2, 6), reason='no stand-ins for refused classes before')
def test_tool_reads_past_the_settings_of_the_trainer(golden_models, tmp_path, monkeypatch):
    """The release's trainer saves its yacs settings beside the model; yacs itself is not needed to read them."""
    config = types.ModuleType('yacs.config')

    class CfgNode(dict):
        pass

    CfgNode.__module__, CfgNode.__qualname__ = 'yacs.config', 'CfgNode'
    config.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
    monkeypatch.setitem(sys.modules, 'yacs.config', config)
    node = CfgNode(lr=0.1, data=CfgNode(size=224))
    node.__dict__['frozen'] = True
    released = golden_models.state_dict(golden_models.cases[1]['state_dict'])
    torch.save({'model': released, 'config': node, 'epoch': 299}, tmp_path / 'ckpt.pth')
    result = run(tmp_path / 'ckpt.pth', tmp_path / 'out.pth', '--source', 'acmix')
    assert result.returncode == 0, result.stderr
    assert set(torch.load(tmp_path / 'out.pth')['state_dict']) == set(convert(released, 'acmix'))


@pytest.mark.parametrize(
    'content', [b'hello world\n', b'<html></html>', b'\x80\x02cos\nsystem\n.', b'\x80\x02)R.', b'']
)
def test_tool_never_advises_to_load_unsafely(tmp_path, content):
    (tmp_path / 'odd.pth').write_bytes(content)
    result = run(tmp_path / 'odd.pth', tmp_path / 'out.pth', '--source', 'acmix')
    assert result.returncode == 1 and 'Traceback' not in result.stderr
    assert f'cannot read {tmp_path / "odd.pth"} as a checkpoint: ' in result.stderr
    assert 'weights_only' not in result.stderr


def test_hollow_tensors(released):
    key = next(k for k in released if k.endswith('bias'))
    hollow = torch.zeros(1).expand(2**40)
    with pytest.raises(ValueError, match=f'must not be larger than what is stored, got {re.escape(key)}'):
        convert({**released, key: hollow}, 'acmix')


def test_merging_of_an_odd_number_of_channels(golden_models):
    state = golden_models.state_dict(golden_models.cases[1]['state_dict'])
    key = 'layers.0.downsample.norm.bias'
    with pytest.raises(ValueError, match=f'{key} must have a last axis that 4 divides, got shape 5'):
        convert({**state, key: torch.zeros(5)}, 'acmix')


def test_tool_never_runs_code_from_a_file(tmp_path):
    class Crafted:
        def __reduce__(self):
            return (open, (str(tmp_path / 'executed'), 'w'))

    torch.save({'model': Crafted()}, tmp_path / 'crafted.pth')
    result = run(tmp_path / 'crafted.pth', tmp_path / 'out.pth', '--source', 'acmix')
    assert result.returncode == 1 and 'cannot read' in result.stderr
    assert not (tmp_path / 'executed').exists()
