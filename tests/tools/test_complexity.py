"""The counter against the counts of the released code, the paper's table and formulas."""
import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmacmix.backbones import PVTACmix, ResNetACmix, SANACmix, SwinACmix

PATH = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'complexity.py'


@pytest.fixture(scope='module')
def complexity():
    spec = importlib.util.spec_from_file_location('complexity', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    'build, parameters, multiply_adds',
    [
        (lambda: ResNetACmix(26), 10.49, 2.22),
        (lambda: ResNetACmix(38), 14.41, 2.86),
        (lambda: ResNetACmix(50), 18.33, 3.50),
        (lambda: SwinACmix('tiny', out_indices=(3,)), 28.65, 4.65),
        (lambda: SwinACmix('small', out_indices=(3,)), 50.35, 9.00),
    ])
def test_counts_of_the_released_code(complexity, build, parameters, multiply_adds):
    total = complexity.count(build(), 224, 224, classes=1000)['total']
    assert total.parameters / 1e6 == pytest.approx(parameters, abs=0.01)
    assert total.multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.01)


@pytest.mark.parametrize(
    'build, parameters, tolerance, multiply_adds',
    [
        (lambda: SANACmix(10), 12.1, 0.03, 1.9),
        (lambda: SANACmix(15), 16.6, 0.03, 2.7),
        (lambda: SANACmix(19), 21.2, 0.03, 3.4),
        (lambda: PVTACmix('tiny'), 13, 0.04, 2.0),
        (lambda: PVTACmix('small'), 25, 0.04, 3.9),
    ])
def test_reconstructions_keep_the_published_budget(complexity, build, parameters, tolerance, multiply_adds):
    total = complexity.count(build(), 224, 224, classes=1000)['total']
    assert total.parameters / 1e6 == pytest.approx(parameters, rel=tolerance)
    assert total.multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.05)


def test_ratios_of_the_paper(complexity):
    """80, 80 and 40 % of the multiply-adds; docs/complexity.md says why not of ResNet-ACmix-26 and PVT-ACmix-T."""

    def count(backbone):
        return complexity.count(backbone, 224, 224, classes=1000)['total'].multiply_adds

    alone = ('attention',)
    assert count(ResNetACmix(38)) / count(ResNetACmix(50, paths=alone)) == pytest.approx(0.8, abs=0.07)
    assert count(SANACmix(15)) / count(SANACmix(19, paths=alone)) == pytest.approx(0.8, abs=0.05)
    assert count(PVTACmix('small')) / count(PVTACmix('large', paths=alone)) == pytest.approx(0.4, abs=0.02)


def test_stages_of_resnet_by_hand(complexity):
    parts = complexity.count(ResNetACmix(26), 224, 224)
    #           channels in, out, pixels in, out of each ACmix
    blocks = [(64, 64, 56, 56), (128, 128, 56, 28), (128, 128, 28, 28), (256, 256, 28, 14)]
    blocks += 3 * [(256, 256, 14, 14)] + [(512, 512, 14, 7)]
    assert parts['projection'].multiply_adds == sum(3 * i * o * n * n for i, o, n, _ in blocks)
    assert parts['attention'].multiply_adds == sum(2 * 49 * o * m * m + o // 2 * n * n for _, o, n, m in blocks)
    assert parts['convolution'].multiply_adds == sum(27 * o * n * n + 81 * o * m * m for _, o, n, m in blocks)


@pytest.mark.parametrize('paths', [('attention', 'convolution'), ('attention',), ('convolution',)], ids='-'.join)
@pytest.mark.parametrize(
    'make', [lambda **o: ResNetACmix(26, **o), lambda **o: SwinACmix('tiny', **o), lambda **o: PVTACmix('tiny', **o)]
)
def test_total_is_what_torch_counts_when_it_runs(complexity, make, paths):
    """Within the difference between a fused convolution path and fc with dep_conv, which the formula counts."""
    backbone = make(paths=paths).eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        backbone(torch.randn(1, 3, 64, 64))
    expected = counter.get_total_flops() / 2
    parts = complexity.count(make(paths=paths), 64, 64)
    assert parts['total'].multiply_adds == pytest.approx(expected, rel=0.08)
    assert parts['total'].parameters == sum(p.numel() for p in backbone.parameters())


def test_cost_is_linear_in_pixels(complexity):
    small = complexity.count(ResNetACmix(26), 224, 224)['total']
    large = complexity.count(ResNetACmix(26), 448, 672)['total']
    assert large.multiply_adds == pytest.approx(6 * small.multiply_adds, rel=0.01)
    assert large.elements == pytest.approx(6 * small.elements, rel=0.01)
    assert large.parameters == small.parameters


def test_stages_that_do_not_run_keep_their_parameters(complexity):
    whole, part = (complexity.count(ResNetACmix(26, **o), 64, 64) for o in (dict(), dict(out_indices=(0,))))
    for name, costs in whole.items():
        assert part[name].parameters == costs.parameters, name
    assert part['projection'].multiply_adds < whole['projection'].multiply_adds


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['no.py'], 'no.py must be a config with model.backbone'),
        (['setup.py'], 'setup.py must be a config with model.backbone'),
        (['ResNetACmix', 'depth=26', 'in_channels=4'], 'cannot run on images of 3 x 224 x 224'),
        (['ResNetACmix', 'depth=26', "norm_cfg={'type':'XX'}"], 'norm_cfg must have a type that mmcv builds'),
        (['ResNetACmix', 'depth=26', 'type=1'], '1 is not a backbone of mmacmix'),
        (['SwinACmix', 'mlp_ratio=1e400'], 'mlp_ratio must give 1 hidden channel at least'),
    ],
)
def test_bad_arguments_end_in_a_line(complexity, monkeypatch, arguments, message):
    monkeypatch.setattr('sys.argv', ['complexity.py', *arguments])
    with pytest.raises(SystemExit, match=message):
        complexity.main()


def test_config_and_options(complexity):
    root = PATH.parents[2]
    config = root / 'configs/retinanet/retinanet_resnet-acmix-26_fpn_1x_coco.py'
    assert complexity.build(str(config), []).out_indices == (1, 2, 3)
    assert complexity.build('ResNetACmix', ['depth=38', 'num_heads=8']).depth == 38
    assert complexity.build('PVTACmix', ["paths=('attention',)"]).paths == ('attention',)
    with pytest.raises(SystemExit, match='mmacmix.ResNet is not a backbone of mmacmix'):
        complexity.build('ResNet', [])
    with pytest.raises(SystemExit, match='depth must be one of'):
        complexity.build('ResNetACmix', ['depth=27'])


@pytest.fixture()
def write_complexity(monkeypatch):
    monkeypatch.syspath_prepend(str(PATH.parent))
    yield importlib.import_module('write_complexity')
    for name in ('complexity', 'write_complexity'):
        sys.modules.pop(name)


def test_the_document_is_counted(write_complexity):
    text = (PATH.parents[2] / 'docs/complexity.md').read_text()
    assert write_complexity.write(text) == text


def test_the_document_is_written(write_complexity, tmp_path, capsys):
    path = tmp_path / 'costs.md'
    markers = [f'<!-- {name} -->\nold\n<!-- end -->' for name in ('published', 'ratios', 'stages')]
    path.write_text('\n'.join(['# Costs', *markers, 'the end']))
    assert write_complexity.main(['--into', str(path)]) == 0
    text = path.read_text()
    assert text.startswith('# Costs\n') and text.endswith('the end') and 'old' not in text
    assert '| SAN-ACmix-10 | both |' in text
    assert (tmp_path / 'costs.png').stat().st_size > 10_000
    path.write_text('\n'.join(markers[1:]))
    with pytest.raises(SystemExit):
        write_complexity.main(['--into', str(path)])
    assert 'must have <!-- published --> once' in capsys.readouterr().err


def test_output(complexity, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['complexity.py', 'ResNetACmix', 'depth=26', '--classes', '1000'])
    complexity.main()
    text = capsys.readouterr().out
    assert 'stage I, projections' in text
    assert text.splitlines()[-1].split()[:3] == ['total', '10.49', 'M']
