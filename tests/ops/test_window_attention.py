"""Attention in windows: the operator against torch's own attention over masked windows, written out."""

import importlib

import pytest
import torch

module = importlib.import_module('mmacmix.ops.window_attention')
needs_registration = pytest.mark.skipif(not module.REGISTERED, reason='torch before 2.4')


def case(heads=2, window=3, rows=4, cols=3, d=5, extra=0, dtype=torch.float64):
    maps = torch.randn(2, rows * window, cols * window, d, 3 * heads + extra, dtype=dtype, requires_grad=True)
    bias = torch.randn(heads, window**2, window**2, dtype=dtype, requires_grad=True)
    return maps, bias


@needs_registration
@pytest.mark.parametrize('chunk', [1, 20000, 2**21])
@pytest.mark.parametrize('extra', [0, 1])
@pytest.mark.parametrize('heads, window, shift', [(2, 3, 0), (1, 3, 1), (3, 4, 2), (2, 2, 1)])
def test_operator_equals_windows_written_out(heads, window, shift, extra, chunk, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK_BYTES', chunk)
    maps, bias = case(heads, window, extra=extra)
    actual = module.window_attention(maps, bias, heads, window, shift)
    expected = module.windows_written_out(maps, bias, heads, window, shift)
    torch.testing.assert_close(actual, expected)
    grad = torch.randn_like(actual)
    for a, e in zip(*(torch.autograd.grad(x, (maps, bias), grad) for x in (actual, expected))):
        torch.testing.assert_close(a, e)


def test_barred_pairs_do_not_see_each_other():
    maps, bias = case(1, 2, 2, 2, d=1)
    with torch.no_grad():
        maps[..., :2] = 0  # equal logits
        maps[..., 2] = torch.arange(16.0).view(4, 4, 1)
        bias.zero_()
    out = module.window_attention(maps, bias, 1, 2, 1)[0, :, :, 0]
    expected = torch.tensor([[2.5, 2.5, 4, 5], [2.5, 2.5, 4, 5], [8.5, 8.5, 10, 11], [12.5, 12.5, 14, 15]])
    torch.testing.assert_close(out, expected.double())


@needs_registration
def test_operator_check():
    maps, bias = case()
    torch.library.opcheck(torch.ops.mmacmix.window_attention, (maps, bias, 2, 3, 1))


@needs_registration
def test_autocast_does_not_reach_inside():
    maps, bias = case(dtype=torch.float32)
    plain = module.window_attention(maps, bias, 2, 3, 1)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(module.window_attention(maps, bias, 2, 3, 1), plain)


@needs_registration
def test_double_backward_is_refused():
    maps, bias = case()
    (grad,) = torch.autograd.grad(module.window_attention(maps, bias, 2, 3).sum(), maps, create_graph=True)
    with pytest.raises(RuntimeError, match='no double backward on a CPU'):
        grad.sum().backward()


@pytest.mark.parametrize('rows, cols, window, shift', [(2, 3, 4, 2), (1, 4, 4, 1), (3, 1, 3, 1)])
def test_shift_mask(rows, cols, window, shift):
    """As in Swin: pixels see each other where they lie in the same of nine regions."""
    region = torch.zeros(rows * window, cols * window)
    parts = [slice(0, -window), slice(-window, -shift), slice(-shift, None)]
    for number, (y, x) in enumerate((y, x) for y in parts for x in parts):
        region[y, x] = number
    region = region.view(rows, window, cols, window).transpose(1, 2).reshape(rows * cols, 1, window**2)
    expected = (region.unsqueeze(2) != region.unsqueeze(3)) * -100.0
    mask = module.shift_mask(rows, cols, window, shift, torch.float32, torch.device('cpu'))
    assert torch.equal(mask, expected)


def test_masks_are_none_of_the_default_device():
    maps, bias = case()
    module._border_masks.cache_clear()
    expected = module.window_attention(maps, bias, 2, 3, 1)
    module._border_masks.cache_clear()
    with torch.device('meta'):
        module.window_attention(maps.to('meta'), bias.to('meta'), 2, 3, 1)
        module.window_attention(maps, bias, 2, 3, 1)
    assert torch.equal(module.window_attention(maps, bias, 2, 3, 1), expected)
