"""What is recorded for other runtimes is the same mathematics: plain forms beside the operators and layers."""

import sys

import pytest
import torch
import torch.nn.functional as F

from mmacmix.backbones.san_acmix import _halve
from mmacmix.layers import WindowACmix
from mmacmix.layers.acmix import ACmix
from mmacmix.layers.reduced_acmix import _enlarge
from mmacmix.ops import local_attention
from mmacmix.ops.aggregation import aggregation, aggregation_reference
from mmacmix.ops.exporting import (
    aggregation_by_rows,
    exporting,
    fill_up,
    local_attention_by_rows,
    read_or_zero,
    repeat_last,
    whole,
    window_mlp_by_rows,
    window_rows,
)
from mmacmix.ops.reference import local_attention_reference
from mmacmix.ops.window_attention import attend_in_windows, open_shift_mask
from mmacmix.ops.window_mlp import window_mlp, window_mlp_reference


@pytest.fixture()
def recorded(monkeypatch):
    """recorded(f, *args): the result of f as it is while torch.onnx records."""

    def call(function, *args):
        with monkeypatch.context() as patch:
            patch.setattr(torch.onnx, 'is_in_onnx_export', lambda: True)
            assert exporting()
            return function(*args)

    assert not exporting()
    return call


def same_with_gradients(plain, reference, *inputs):
    """Outputs and all gradients of two functions of the same tensors."""
    results = []
    for function in (plain, reference):
        leaves = [x.detach().requires_grad_() for x in inputs]
        out = function(*leaves)
        torch.manual_seed(1)
        results.append([out, *torch.autograd.grad(out, leaves, torch.randn_like(out))])
    for actual, expected in zip(*results):
        torch.testing.assert_close(actual, expected)


def doubles(*shape):
    return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize('size', [(1, 1), (2, 9), (8, 7)])
@pytest.mark.parametrize('kernel, stride, dilation', [(1, 1, 1), (3, 1, 1), (7, 2, 1), (3, 2, 3), (5, 3, 2)])
def test_local_attention_by_rows(size, kernel, stride, dilation):
    q, k, v = (doubles(2, 2, 3, *size) for _ in range(3))
    options = kernel, stride, dilation, 0.7
    same_with_gradients(
        lambda *qkv: local_attention_by_rows(*qkv, *options),
        lambda *qkv: local_attention_reference(*qkv, *options), q, k, v)


@pytest.mark.parametrize('size', [(1, 1), (2, 9), (8, 7)])
@pytest.mark.parametrize('kernel', [1, 3, 7])
def test_aggregation_and_perceptron_by_rows(size, kernel):
    same_with_gradients(
        lambda v, weights: aggregation_by_rows(v, weights, kernel),
        lambda v, weights: aggregation_reference(v, weights, kernel),
        doubles(2, 6, *size), doubles(2, 3, kernel**2, *size))
    same_with_gradients(
        window_mlp_by_rows, window_mlp_reference, doubles(2, 3, *size),
        doubles(3, kernel, kernel), doubles(3, kernel, kernel), doubles(4, 3, kernel, kernel))


def test_operators_take_the_plain_form_while_torch_records(recorded, monkeypatch):
    """What is recorded must not call an operator of ours."""
    owners = dict(local_attention='attend', aggregation='_Aggregation', window_mlp='_WindowMLP')
    for module, name in owners.items():
        monkeypatch.setattr(sys.modules[f'mmacmix.ops.{module}'], name, None)
    q, k, v, position = *(doubles(1, 2, 3, 5, 6) for _ in range(3)), doubles(3, 5, 6)

    def attention():
        return local_attention(q, k, v, position=position)

    with pytest.raises(TypeError):
        attention()
    torch.testing.assert_close(recorded(attention), local_attention(q, k, v, position=position, backend='reference'))
    v, weights = doubles(1, 4, 5, 6), doubles(1, 2, 9, 5, 6)
    torch.testing.assert_close(recorded(aggregation, v, weights, 3), aggregation_reference(v, weights, 3))
    args = doubles(1, 2, 5, 6), doubles(2, 3, 3), doubles(2, 3, 3), doubles(4, 2, 3, 3)
    torch.testing.assert_close(recorded(window_mlp, *args), window_mlp_reference(*args))


def test_window_rows_are_those_of_the_windows():
    x = torch.arange(5.0).expand(5, 5)
    middle = list(window_rows(x, 3))[1]  # (rows, kernel, cols)
    assert middle[0].tolist() == [[1, 0, 1, 2, 3], [0, 1, 2, 3, 4], [1, 2, 3, 4, 3]]


def test_whole():
    assert [whole(n, 4) for n in (1, 4, 5, 8)] == [4, 4, 8, 8]


def test_filling_up(recorded):
    x = doubles(2, 3, 4)
    expected = F.pad(x, (0, 0, 0, 2))
    assert torch.equal(fill_up(x, 1, 5), expected) and torch.equal(recorded(fill_up, x, 1, 5), expected)
    assert fill_up(x, 1, 3) is x and torch.equal(recorded(fill_up, x, 2, 4), x)
    index = torch.tensor([2, 3, 0])
    assert torch.equal(read_or_zero(x, 1, index), torch.stack([x[:, 2], x[:, 0] * 0, x[:, 0]], 1))


def test_repeating_the_last_entry(recorded):
    x = doubles(2, 3, 4)
    expected = F.pad(x, (0, 2), mode='replicate')
    assert torch.equal(repeat_last(x, 2, 6), expected) and torch.equal(recorded(repeat_last, x, 2, 6), expected)
    assert repeat_last(x, 1, 3) is x and torch.equal(recorded(repeat_last, x, 1, 3), x)


@pytest.mark.parametrize('length', [1, 2, 3, 5, 7, 12, 25])
def test_enlarging_reads_the_same_pixels_as_torch(recorded, length):
    x = torch.arange(float(length)).view(1, 1, length, 1)
    for size in [*range(1, 120), 168, 200, 333, 334, 1344]:
        if size >= length:
            assert torch.equal(recorded(_enlarge, x, (size, 1)), _enlarge(x, (size, 1))), size


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (7, 8)])
def test_halving(recorded, size):
    x = doubles(2, 3, *size).relu()
    assert torch.equal(recorded(_halve, x), _halve(x))


@pytest.mark.parametrize('size', [(1, 1), (1, 2), (7, 9)])
def test_position_code(recorded, size):
    layer = ACmix(8, 8).double()
    x = doubles(1, 8, *size)
    torch.testing.assert_close(recorded(layer.position_code, x), layer.position_code(x))


@pytest.mark.parametrize('sides', [(2, 3), (1, 4), (3, 1)])
@pytest.mark.parametrize('shift', [1, 2])
def test_open_shift_mask(sides, shift):
    window = 4
    ys, xs = (torch.arange(n * window) for n in sides)
    mask = open_shift_mask(ys, xs, window, torch.tensor(shift), torch.float64)
    assert torch.equal(mask, open_shift_mask(ys, xs, window, shift, torch.float64))
    assert not open_shift_mask(ys, xs, window, torch.tensor(0), torch.float64).any()


@pytest.mark.parametrize('size', [(1, 1), (4, 9), (5, 5), (8, 11), (13, 4)])
@pytest.mark.parametrize('paths', [('attention', 'convolution'), ('attention',), ('convolution',)])
@pytest.mark.parametrize('heads', [2, 6])
@torch.no_grad()
def test_window_acmix_put_together_by_index(recorded, size, paths, heads):
    """Sizes below, at and above a window, shifted and not."""
    for shift in (0, 2):
        layer = WindowACmix(12, heads, window_size=4, shift_size=shift, paths=paths).double()
        for p in layer.parameters():
            torch.nn.init.normal_(p)
        x = doubles(2, *size, 12)
        torch.testing.assert_close(recorded(layer, x), layer(x))


def test_windows_share_a_bias_or_have_their_own():
    maps, bias = doubles(1, 4, 8, 3, 6), doubles(2, 16, 16)
    shared = attend_in_windows(maps, bias, 2, 4)
    assert shared.shape == (1, 1, 2, 4, 4, 6)
    torch.testing.assert_close(attend_in_windows(maps, bias.expand(1, 2, -1, -1, -1), 2, 4), shared)
