"""The convolution path: against the official order of operations, fused against plain, shifts against a convolution."""

import sys

import pytest
import torch
import torch.nn.functional as F

from mmacmix.layers.shift import init_shift_kernels
from mmacmix.ops import convolution_path
from mmacmix.ops.biased import biased_convolution

module = sys.modules['mmacmix.ops.conv_path']


def official(q, k, v, fc, dep, bias, stride):
    """Released order of operations, written with explicit sums."""
    batch, heads, d, height, width = q.shape
    maps = torch.cat([q, k, v], 1).reshape(batch, 3 * heads, d, height * width)
    mixed = torch.einsum('tm,bmcn->btcn', fc[:, :, 0, 0], maps)
    if bias is not None:
        mixed = mixed + bias[None, :, None, None]
    mixed = mixed.permute(0, 2, 1, 3).reshape(batch, -1, height, width)
    return F.conv2d(mixed, dep, None, stride, dep.size(-1) // 2, groups=d)


def case(heads, d, kernel=3, dtype=torch.float64):
    taps = kernel**2
    maps = [torch.randn(2, heads, d, 7, 6, dtype=dtype, requires_grad=True) for _ in range(3)]
    fc = torch.randn(taps, 3 * heads, 1, 1, dtype=dtype, requires_grad=True)
    dep = torch.randn(heads * d, taps, kernel, kernel, dtype=dtype, requires_grad=True)
    bias = torch.randn(taps, dtype=dtype, requires_grad=True)
    return maps, fc, dep, bias


@pytest.mark.parametrize('heads', [1, 3, 4, 6])
@pytest.mark.parametrize('with_bias', [False, True])
@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('d', [5, 6])  # odd, and even: two groups become one
def test_equals_the_official_order(heads, with_bias, stride, d):
    (q, k, v), fc, dep, bias = case(heads, d)
    bias = bias if with_bias else None
    leaves = [x for x in (q, k, v, fc, dep, bias) if x is not None]
    actual = convolution_path(torch.stack([q, k, v], 1), fc, dep, bias, stride)
    expected = official(q, k, v, fc, dep, bias, stride)
    torch.testing.assert_close(actual, expected)
    grad = torch.randn_like(actual)
    for a, e in zip(torch.autograd.grad(actual, leaves, grad), torch.autograd.grad(expected, leaves, grad)):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize('kernel', [1, 3, 5])
@pytest.mark.parametrize('stride, dilation', [(1, 1), (2, 1), (1, 2), (2, 3)])
def test_fused_equals_plain(kernel, stride, dilation, monkeypatch):
    (q, k, v), fc, dep, _ = case(4, 3, kernel)
    fused = convolution_path(torch.stack([q, k, v], 1), fc, dep, stride=stride, dilation=dilation)
    monkeypatch.setattr(module, 'FUSED_HEADS', 0)
    plain = convolution_path(torch.stack([q, k, v], 1), fc, dep, stride=stride, dilation=dilation)
    assert fused.shape[2:] == (-(-7 // stride), -(-6 // stride))
    torch.testing.assert_close(fused, plain)


def test_shift_kernels_make_a_convolution():
    """With the start of the paper the path is a 3 x 3 convolution whose kernel is made of fc's rows."""
    (q, k, v), fc, dep, _ = case(2, 4)
    dep = dep.detach()
    init_shift_kernels(dep)
    out = convolution_path(torch.stack([q, k, v], 1), fc, dep)
    kernel = fc[:, :, 0, 0].t().reshape(1, 6, 3, 3)
    maps = torch.cat([q, k, v], 1)
    for c in range(4):
        expected = F.conv2d(maps[:, :, c], kernel, padding=1)
        for head in range(2):
            torch.testing.assert_close(out[:, 2 * c + head], expected[:, 0])


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_biased_convolution(dtype, relative_error):
    """It differs from torch's by the way to the bias' gradient alone."""
    x = torch.randn(2, 6, 9, 8, dtype=dtype, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=dtype, requires_grad=True)
    bias = torch.randn(4, dtype=dtype, requires_grad=True)
    out = biased_convolution(x, weight, bias, 2, 1, 1, 2)
    expected = F.conv2d(x, weight, bias, 2, 1, 1, 2)
    assert torch.equal(out, expected)
    grad = torch.randn_like(out)
    inputs = (x, weight, bias)
    error = 100 * torch.finfo(dtype).eps
    for a, e in zip(torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad)):
        assert a.dtype == dtype and relative_error(a, e) < error
    assert torch.equal(F.relu(out, inplace=True), expected.relu())


def test_biased_convolution_twice_differentiable():
    x, weight, bias = torch.randn(1, 2, 5, 4).double(), torch.randn(3, 2, 3, 3).double(), torch.randn(3).double()
    inputs = [y.requires_grad_() for y in (x, weight, bias)]
    assert torch.autograd.gradgradcheck(lambda x, w, b: biased_convolution(x, w, b, 1, 1).square(), inputs)


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('dilation', [1, 2, 4])
@pytest.mark.parametrize('formats', [
    (torch.channels_last, torch.contiguous_format),
    (torch.contiguous_format, torch.channels_last),
    (torch.channels_last, torch.channels_last),
])
def test_dilated_kernels_have_gradients_in_bfloat16(stride, dilation, formats, relative_error):
    """torch leaves some of them unset in channels last; what it leaves unset is 0 at first."""
    projected = torch.randn(1, 8 * 12, 29, 33, dtype=torch.bfloat16).contiguous(memory_format=formats[0])
    maps = projected.unflatten(1, (8, 12))
    weight = torch.randn(32, 12, 3, 3, dtype=torch.bfloat16).contiguous(memory_format=formats[1])

    def gradient(maps, weight):
        weight = weight.detach().requires_grad_()
        out = module.grouped_convolution(maps, weight, None, stride, dilation)
        return torch.autograd.grad(out.square().sum() / 1000, weight)[0]

    exact = gradient(maps.double(), weight.double())
    for _ in range(3):
        assert relative_error(gradient(maps, weight), exact) < 0.02
