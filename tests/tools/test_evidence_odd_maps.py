"""tools/evidence/odd_maps.py replaces what its variants say, and nothing else."""
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / 'tools'), str(ROOT / 'tools' / 'evidence'), str(ROOT / 'tools' / 'demo')]
import odd_maps  # noqa: E402

from mmacmix.layers import ACmix  # noqa: E402


@pytest.fixture()
def variants():
    return {variant.name.rpartition(', ')[2]: variant for variant in odd_maps.VARIANTS}


@torch.no_grad()
def outputs(layer, x, variant):
    with odd_maps.replaced(variant.methods):
        return layer(x)


def test_zeros_change_the_border_of_the_convolution_alone(variants):
    layer, x = ACmix(8, 8, stride=2, paths=('convolution',)).double(), torch.randn(1, 8, 9, 11, dtype=torch.float64)
    now, zeros = layer(x), outputs(layer, x, odd_maps.VARIANTS[0])
    torch.testing.assert_close(now[..., :-1, :-1], zeros[..., :-1, :-1])
    changed = (now - zeros).abs().amax((0, 1)) > 1e-6
    assert changed[-1].all() and changed[:, -1].all()
    again = outputs(layer, x, variants['the last row and column repeated for convolution alone'])
    torch.testing.assert_close(again, now)
    torch.testing.assert_close(layer(x), now)  # and it is over


def test_attention_alone(variants):
    layer, x = ACmix(8, 8, stride=2, paths=('attention',)).double(), torch.randn(1, 8, 9, 11, dtype=torch.float64)
    again = outputs(layer, x, variants['the last row and column repeated for attention alone'])
    torch.testing.assert_close(again, layer(x))
    assert (outputs(layer, x, odd_maps.VARIANTS[0]) - again).abs().max() > 1e-6


@pytest.mark.parametrize('channels, stride, side', [(64, 1, 64), (128, 2, 64), (128, 1, 32), (512, 2, 16), (512, 1, 8)])
def test_code_of_a_crop_is_that_of_its_maps(channels, stride, side):
    layer = ACmix(16, channels, stride=stride)
    with torch.no_grad():
        crop, large = (odd_maps.code_of_a_crop(layer, torch.zeros(1, 16, n, n)) for n in (side, 2 * side))
        torch.testing.assert_close(crop, layer.position_code(torch.zeros(1, 16, side, side)))
    torch.testing.assert_close(large[:, 0, 1] - large[:, 0, 0], crop[:, 0, 1] - crop[:, 0, 0])


def test_even_images_and_windows_leave_the_layer_alone(variants):
    assert [variant.methods for variant in odd_maps.VARIANTS].count({}) == 3
    image = torch.zeros(360, 480, 3).numpy()
    cut = odd_maps.UpperRows(352).transform(dict(img=image, gt_seg_map=image[..., 0]))
    assert cut['img'].shape[:2] == cut['gt_seg_map'].shape == cut['ori_shape'] == (352, 480)
