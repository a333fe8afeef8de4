"""Strided convolutions where torch errs: where their output has one column."""

import pytest
import torch
import torch.nn.functional as F

from mmacmix.ops import strided
from mmacmix.ops.exporting import exporting
from mmacmix.ops.strided import convolution

# Kernel, stride, padding, dilation: stems, paths of ACmix, patches; then those that are as they were.
STRIDED = [(7, 2, 3, 1), (3, 2, 1, 1), (3, 2, 2, 2), (5, 3, 2, 1), (2, 2, 0, 1), (4, 4, 0, 1), (8, 8, 0, 1)]
OTHERS = [(1, 2, 0, 1), (3, 1, 1, 1)]


def inputs(kernel, height, width, dtype, groups=1, memory_format=torch.contiguous_format):
    x = torch.randn(2, 8, height, width, dtype=dtype).contiguous(memory_format=memory_format)
    weight = torch.randn(16, 8 // groups, kernel, kernel, dtype=dtype).contiguous(memory_format=memory_format)
    bias = torch.randn(16, dtype=dtype)
    return [y.requires_grad_() for y in (x, weight / kernel, bias)]


def widths(kernel, stride, padding, dilation):
    """All that give up to two columns."""
    reach = dilation * (kernel - 1) + 1
    return range(max(1, reach - 2 * padding), reach - 2 * padding + 2 * stride)


@pytest.mark.parametrize('groups', [1, 4])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('window', STRIDED + OTHERS, ids=str)
def test_equals_torch(window, memory_format, groups, monkeypatch):
    """In float64, in which both forms are exact."""
    monkeypatch.setattr(strided, 'autocast', lambda: True)
    kernel, *settings = window
    for width in widths(*window):
        ours = inputs(kernel, 17, width, torch.float64, groups, memory_format)
        out, expected = convolution(*ours, *settings, groups), F.conv2d(*ours, *settings, groups)
        torch.testing.assert_close(out, expected)
        grad = torch.randn_like(out)
        for a, e in zip(torch.autograd.grad(out, ours, grad), torch.autograd.grad(expected, ours, grad)):
            torch.testing.assert_close(a, e)


@pytest.mark.parametrize('groups', [1, 4])
@pytest.mark.parametrize('autocast', [False, True])
@pytest.mark.parametrize('memory_format', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('height', [1, 17, 30])
@pytest.mark.parametrize('window', STRIDED + OTHERS, ids=str)
def test_bfloat16(window, height, memory_format, autocast, groups, relative_error):
    """What torch leaves unset is 0 at first, so each is computed several times."""
    kernel, stride, padding, dilation = window
    height = max(height, dilation * (kernel - 1) + 1 - 2 * padding)
    for width in widths(*window):
        half = inputs(kernel, height, width, torch.float32 if autocast else torch.bfloat16, groups, memory_format)
        exact = [y.detach().double().requires_grad_() for y in half]
        expected = F.conv2d(*exact, stride, padding, dilation, groups)
        grad = torch.randn_like(expected).bfloat16()
        right = torch.autograd.grad(expected, exact, grad.double())
        for _ in range(3):
            torch.empty(10**5, dtype=torch.uint8).fill_(128)  # what is unset may look so
            with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
                out = convolution(*half, stride, padding, dilation, groups)
            assert out.dtype == torch.bfloat16 and relative_error(out, expected) < 0.02
            for a, e in zip(torch.autograd.grad(out, half, grad), right):
                assert relative_error(a, e) < 0.02


def test_one_column_keeps_its_order_of_axes():
    """Writing in place over it, and asking for its format, work as with the output of torch."""
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x, weight, bias = inputs(3, 9, 1, torch.bfloat16, 1, memory_format)
        out = convolution(x, weight, bias, 2, 1)
        assert out._base is None
        assert out.is_contiguous(memory_format=memory_format)
        F.relu(out, inplace=True).sum().backward()


@pytest.mark.skipif(
    not hasattr(getattr(torch, 'compiler', None), 'is_exporting'), reason='a torch that does not say when it exports')
def test_export_is_of_any_size():
    """Recorded is one convolution, without a branch on the size."""
    class Module(torch.nn.Module):
        def forward(self, x, weight):
            assert exporting()
            return convolution(x, weight, None, 2, 1)

    x, weight = torch.randn(1, 3, 16, 16), torch.randn(4, 3, 3, 3)
    sizes = dict(x={3: torch.export.Dim('w', min=4)}, weight=None)
    program = torch.export.export(Module(), (x, weight), dynamic_shapes=sizes)
    wide = torch.randn(1, 3, 16, 33)
    torch.testing.assert_close(program.module()(wide, weight), F.conv2d(wide, weight, None, 2, 1))
