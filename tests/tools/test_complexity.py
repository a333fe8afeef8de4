"""The counter against the counts of the released code and against formulas."""
import importlib.util
from pathlib import Path

import pytest

from mmacmix.backbones import ResNetACmix, SwinACmix

PATH = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'complexity.py'


@pytest.fixture(scope='module')
def complexity():
    spec = importlib.util.spec_from_file_location('complexity', PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    'build, classifier, parameters, multiply_adds',
    [
        (lambda: ResNetACmix(26), 2048 * 1000 + 1000, 10.49, 2.22),
        (lambda: ResNetACmix(38), 2048 * 1000 + 1000, 14.41, 2.86),
        (lambda: ResNetACmix(50), 2048 * 1000 + 1000, 18.33, 3.50),
        (lambda: SwinACmix('tiny', out_indices=(3,)), 768 * 1000 + 1000, 28.65, 4.65),
        (lambda: SwinACmix('small', out_indices=(3,)), 768 * 1000 + 1000, 50.35, 9.00),
    ])
def test_counts_of_the_released_code(complexity, build, classifier, parameters, multiply_adds):
    """The release counts its classifier too: that many parameters and multiply-adds."""
    figures = complexity.count(build(), 224, 224)
    assert (figures['parameters'] + classifier) / 1e6 == pytest.approx(parameters, abs=0.01)
    assert (figures['multiply_adds'] + classifier) / 1e9 == pytest.approx(multiply_adds, rel=0.01)


def test_local_attention_by_its_formula(complexity):
    figures = complexity.count(ResNetACmix(26), 224, 224)
    blocks = [(64, 56)] + 2 * [(128, 28)] + 4 * [(256, 14)] + [(512, 7)]
    assert figures['local_attention'] == sum(2 * 49 * c * n * n for c, n in blocks)


def test_cost_is_linear_in_pixels(complexity):
    small = complexity.count(ResNetACmix(26), 224, 224)['multiply_adds']
    large = complexity.count(ResNetACmix(26), 448, 672)['multiply_adds']
    assert large == pytest.approx(6 * small, rel=0.01)


def test_config_and_options(complexity):
    root = PATH.parents[2]
    config = root / 'configs/retinanet/retinanet_resnet-acmix-26_fpn_1x_coco.py'
    assert complexity.build(str(config), []).out_indices == (1, 2, 3)
    assert complexity.build('ResNetACmix', ['depth=38', 'num_heads=8']).depth == 38
    with pytest.raises(SystemExit, match='mmacmix.ResNet is not a backbone of mmacmix'):
        complexity.build('ResNet', [])
