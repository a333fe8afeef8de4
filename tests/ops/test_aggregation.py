"""Aggregation with given weights, and the first layer of the window perceptron, against their definitions."""

import pytest
import torch
from torch import nn

from mmacmix.ops import bands
from mmacmix.ops.aggregation import aggregation, aggregation_reference
from mmacmix.ops.reflection import pad_reflection
from mmacmix.ops.window_mlp import window_mlp, window_mlp_reference, window_moments

SIZES = [(n, n) for n in range(1, 9)] + [(1, 7), (9, 2), (13, 21)]


@pytest.fixture(params=[2**20, 2000], ids=['whole', 'bands'])
def band_bytes(request, monkeypatch):
    monkeypatch.setattr(bands, 'BAND_BYTES', request.param)


def aggregation_case(size, kernel, dtype=torch.float64, batch=2, channels=6, groups=3):
    v = torch.randn(batch, channels, *size, dtype=dtype, requires_grad=True)
    weights = torch.randn(batch, groups, kernel**2, *size, dtype=dtype, requires_grad=True)
    return v, weights


def mlp_case(size, kernel, dtype=torch.float64, batch=2, channels=3, outputs=5):
    x = torch.randn(batch, channels, *size, dtype=dtype, requires_grad=True)
    rest = [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in (
        (channels, kernel, kernel), (channels, kernel, kernel), (outputs, channels, kernel, kernel)
    )]
    return (x, *rest)


def compare(function, reference, inputs, **tolerance):
    out, expected = function(*inputs), reference(*inputs)
    torch.testing.assert_close(out, expected, **tolerance)
    grad = torch.randn_like(expected)
    actual = torch.autograd.grad(out, inputs, grad)
    for a, e in zip(actual, torch.autograd.grad(expected, inputs, grad)):
        torch.testing.assert_close(a, e, **tolerance)


@pytest.mark.parametrize('kernel', [1, 3, 7])
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_aggregation(size, kernel, band_bytes):
    compare(
        lambda v, w: aggregation(v, w, kernel),
        lambda v, w: aggregation_reference(v, w, kernel),
        aggregation_case(size, kernel),
    )


@pytest.mark.parametrize('kernel', [1, 3, 7])
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_window_mlp(size, kernel, band_bytes):
    compare(window_mlp, window_mlp_reference, mlp_case(size, kernel))


def test_channels_share_weights_by_their_number():
    """Channel c takes the weights of group c % G, as SAN's kernels do."""
    v = torch.randn(1, 6, 4, 5)
    weights = torch.zeros(1, 3, 9, 4, 5)
    weights[:, 1, 4] = 1  # the centre tap
    out = aggregation(v, weights, 3)
    assert torch.equal(out[:, [1, 4]], v[:, [1, 4]])
    assert not out[:, [0, 2, 3, 5]].any()


def test_taps_go_by_rows():
    v = torch.randn(1, 1, 5, 6)
    weights = torch.zeros(1, 1, 9, 5, 6)
    weights[:, :, 1] = 1  # the row above
    out = aggregation(v, weights, 3)
    assert torch.equal(out[:, :, 1:], v[:, :, :-1])
    assert torch.equal(out[:, :, 0], v[:, :, 1])  # reflected


@pytest.mark.parametrize('memory_format', [torch.channels_last, 'sliced'])
def test_any_strides(memory_format):
    v, weights = (x.detach() for x in aggregation_case((9, 8), 3))
    x, *rest = (y.detach() for y in mlp_case((9, 8), 3))
    expected = aggregation(v, weights, 3), window_mlp(x, *rest)

    def arrange(y):
        if memory_format == 'sliced':
            return torch.stack([y, y], -1)[..., 1]
        return y.contiguous(memory_format=memory_format)

    torch.testing.assert_close(aggregation(arrange(v), weights, 3), expected[0])
    torch.testing.assert_close(window_mlp(arrange(x), *rest), expected[1])


def test_empty_batch():
    v, weights = aggregation_case((4, 5), 3, batch=0)
    out = aggregation(v, weights, 3)
    out.sum().backward()
    assert out.shape == v.shape and v.grad.shape == v.shape and weights.grad.shape == weights.shape
    x, *rest = mlp_case((4, 5), 3, batch=0)
    window_mlp(x, *rest).sum().backward()
    assert all(not y.grad.any() for y in rest)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_precision(dtype, relative_error):
    """The error is that of the reference in this precision, or less."""
    for function, reference, case in (
        (lambda v, w: aggregation(v, w, 7), lambda v, w: aggregation_reference(v, w, 7), aggregation_case((19, 23), 7)),
        (window_mlp, window_mlp_reference, mlp_case((19, 23), 7, channels=16)),
    ):
        inputs = [x.detach().to(dtype) for x in case]
        exact = reference(*(x.double() for x in inputs))
        error = relative_error(reference(*inputs), exact)
        assert relative_error(function(*inputs), exact) <= 2 * error + torch.finfo(dtype).eps


def test_autocast_does_not_reach_inside():
    for function, inputs in (
        (lambda v, w: aggregation(v, w, 3), aggregation_case((9, 8), 3, torch.float32)),
        (window_mlp, mlp_case((9, 8), 3, torch.float32)),
    ):
        runs = []
        for enabled in (False, True):
            with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
                out = function(*inputs)
                runs.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
        assert all(torch.equal(a, b) for a, b in zip(*runs))


def test_repeats_are_bitwise_equal():
    for function, inputs in (
        (lambda v, w: aggregation(v, w, 7), aggregation_case((33, 29), 7, torch.float32)),
        (window_mlp, mlp_case((33, 29), 7, torch.float32)),
    ):
        runs = []
        for _ in range(2):
            out = function(*inputs)
            runs.append([out, *torch.autograd.grad(out.square().sum(), inputs)])
        assert all(torch.equal(a, b) for a, b in zip(*runs))


def test_no_windows_are_kept():
    """What is saved for the backward pass does not grow with the window."""
    for function, inputs in (
        (lambda v, w: aggregation(v, w, 7), aggregation_case((30, 30), 7)),
        (window_mlp, mlp_case((30, 30), 7)),
    ):
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, saved=saved: saved.append(x) or x, lambda x: x):
            function(*inputs)
        given = {x.untyped_storage().data_ptr() for x in inputs}
        assert {x.untyped_storage().data_ptr() for x in saved} <= given


def test_second_derivatives_are_refused():
    v, weights = aggregation_case((4, 4), 3)
    grad, = torch.autograd.grad(aggregation(v, weights, 3).square().sum(), v, create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


@pytest.mark.parametrize('kernel', [1, 3, 7])
@pytest.mark.parametrize('size', [(2, 3), (9, 14)])
def test_window_moments(size, kernel):
    """They are what batch normalisation of the written-out windows computes with, and have its gradients."""
    x = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True) + 5
    windows = pad_reflection(x, kernel // 2).unfold(2, kernel, 1).unfold(3, kernel, 1)
    flat = windows.permute(0, 1, 4, 5, 2, 3).flatten(1, 3)
    expected = nn.BatchNorm2d(flat.size(1), affine=False).double()(flat)
    first, second = window_moments(x, kernel, x.detach().mean((0, 2, 3)))
    pixels = 2 * size[0] * size[1]
    mean = first / pixels
    variance = second / pixels - mean.square()
    mean = mean + x.detach().mean((0, 2, 3))[:, None, None]
    scale = torch.rsqrt(variance + 1e-5)
    actual = (windows - mean[:, None, None]) * scale[:, None, None]
    actual = actual.permute(0, 1, 4, 5, 2, 3).flatten(1, 3)
    torch.testing.assert_close(actual, expected)
    grad = torch.randn_like(expected)
    inner = torch.autograd.grad(actual, x, grad, retain_graph=True)[0]
    torch.testing.assert_close(inner, torch.autograd.grad(expected, x, grad)[0])


@pytest.mark.parametrize(
    'change, error, message',
    [
        (dict(kernel=4), ValueError, 'kernel_size must be odd, got kernel_size=4'),
        (dict(kernel=0), ValueError, 'kernel_size must be an integer of at least 1'),
        (dict(v=torch.ones(2, 6, 4, dtype=torch.float64)), ValueError, r'v must have shape \(B, C, H, W\)'),
        (dict(v=torch.ones(2, 6, 4, 5).long()), TypeError, 'v must be a floating-point tensor, got torch.int64'),
        (dict(weights='w'), TypeError, 'weights must be a floating-point tensor, got str'),
        (dict(weights=torch.ones(2, 4, 9, 4, 5, dtype=torch.float64)), ValueError, 'G a divisor of C'),
        (dict(weights=torch.ones(2, 3, 9, 5, 4, dtype=torch.float64)), ValueError, 'weights must have shape'),
        (dict(weights=torch.ones(2, 3, 9, 4, 5)), ValueError, 'v and weights must share dtype and device'),
    ],
)
def test_wrong_arguments(change, error, message):
    v, weights = aggregation_case((4, 5), 3)
    arguments = {**dict(v=v, weights=weights, kernel=3), **change}
    with pytest.raises(error, match=message):
        aggregation(arguments['v'], arguments['weights'], arguments['kernel'])


@pytest.mark.parametrize(
    'place, shape, message',
    [
        (0, (2, 4, 4, 5), r'x must have shape \(B, C=3, H, W\)'),
        (1, (3, 3, 2), r'scale must have shape \(C, k, k\)=\(3, 3, 3\)'),
        (2, (3, 9), r'shift must have shape'),
        (3, (5, 3, 3, 1), r'weight must have shape \(outputs, C, k, k\)'),
        (3, (5, 3, 2, 2), 'kernel_size must be odd'),
    ],
)
def test_wrong_arguments_of_the_perceptron(place, shape, message):
    inputs = list(mlp_case((4, 5), 3))
    inputs[place] = torch.ones(shape, dtype=torch.float64)
    with pytest.raises(ValueError, match=message):
        window_mlp(*inputs)
