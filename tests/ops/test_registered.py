"""What PyTorch knows about the operator: schema, shapes, gradients, cost, and how it compiles."""

import importlib.util
import sys

import pytest
import torch

from mmacmix.ops import local_attention, packed_local_attention
from mmacmix.ops.window import Window

registered = sys.modules['mmacmix.ops.registered']
needs_registration = pytest.mark.skipif(not registered.REGISTERED, reason='torch before 2.4')


def packed(size=(1, 3, 2, 4, 6, 7), dtype=torch.float64, order=None):
    x = torch.randn(size, dtype=dtype)
    if order == 'channels_last':
        x = x.permute(0, 4, 5, 1, 2, 3).contiguous().permute(0, 3, 4, 5, 1, 2)
    return x.requires_grad_()


@needs_registration
@pytest.mark.parametrize('order', [None, 'channels_last'])
@pytest.mark.parametrize('stride', [1, 2])
def test_operator_check(order, stride):
    position = torch.randn(4, 6, 7, dtype=torch.float64, requires_grad=True)
    arguments = ([packed(order=order)], position, 3, stride, 1, 0.5, 'tiled')
    torch.library.opcheck(torch.ops.mmacmix.local_attention, arguments)
    qkv = packed(order=order).detach()
    arguments = ([*qkv.unbind(1)], None, 3, stride, 1, 0.5, 'tiled')
    out, saved = torch.ops.mmacmix.local_attention(*arguments)
    arguments = (out, *arguments[:2], None, saved, *arguments[2:])
    torch.library.opcheck(torch.ops.mmacmix.local_attention_backward, arguments, test_utils='test_schema')
    torch.library.opcheck(torch.ops.mmacmix.local_attention_backward, arguments, test_utils='test_faketensor')


@needs_registration
def test_compiles_without_a_graph_break():
    def model(qkv, position):
        out = packed_local_attention(qkv.mul(2), 3, position=position)
        return local_attention(out, out, out).sin()

    qkv, position = packed(), torch.randn(4, 6, 7, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    expected, actual = model(qkv, position), compiled(qkv, position)
    torch.testing.assert_close(actual, expected)
    for a, e in zip(*(torch.autograd.grad(x.sum(), (qkv, position)) for x in (actual, expected))):
        torch.testing.assert_close(a, e)
    larger = packed((2, 3, 2, 4, 9, 5)), torch.randn(4, 9, 5, dtype=torch.float64)
    torch.testing.assert_close(compiled(*larger), model(*larger))


@needs_registration
@pytest.mark.parametrize('stride, queries', [(1, 42), (2, 12)])
def test_flops_by_formula(stride, queries):
    from torch.utils.flop_counter import FlopCounterMode  # since torch 2.1

    qkv = packed((2, 3, 2, 4, 6, 7), torch.float32)
    with FlopCounterMode(display=False) as counter:
        out = packed_local_attention(qkv, 5, stride)
    forward = 4 * 25 * 2 * 8 * queries
    assert counter.get_total_flops() == forward
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    assert counter.get_total_flops() == forward * 5 // 2


def test_meta_tensors():
    x = torch.empty(2, 4, 16, 25, 32, device='meta')
    assert local_attention(x, x, x, stride=2).shape == (2, 4, 16, 13, 16)


def test_function_of_older_torch_is_the_same(monkeypatch):
    """Before torch 2.4 there is no custom_op; the module is imported again as if that were so."""
    monkeypatch.delattr(torch.library, 'custom_op', raising=False)
    spec = importlib.util.find_spec('mmacmix.ops.registered')
    older = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(older)
    assert not older.REGISTERED
    for parts in (1, 3):
        x = packed()
        position = torch.randn(4, 6, 7, dtype=torch.float64, requires_grad=True)
        qkv = [x] if parts == 1 else list(x.unbind(1))
        window = Window(3, 2, 1, 0.5)
        results = []
        for module in (older, registered):
            out = module.attend(qkv, position, window, 'tiled')
            results.append([out, *torch.autograd.grad(out.square().sum(), (x, position))])
        for a, e in zip(*results):
            assert torch.equal(a, e)
    (grad,) = torch.autograd.grad(older.attend([x], None, window, 'tiled').square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward with backend='reference' only"):
        grad.sum().backward()
