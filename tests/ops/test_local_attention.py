"""The definition against a loop over pixels, and the fast implementation against the definition."""

import importlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmacmix.ops import local_attention, packed_local_attention
from mmacmix.ops.window import Window

scratch = importlib.import_module('mmacmix.ops.scratch')
tiled = importlib.import_module('mmacmix.ops.tiled')


def inputs(shape, dtype=torch.float64, requires_grad=True):
    return [torch.randn(shape, dtype=dtype).requires_grad_(requires_grad) for _ in range(3)]


def gradients(backend, q, k, v, grad, **kwargs):
    copies = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    if kwargs.get('position') is not None:
        copies.append(kwargs.pop('position').detach().clone().requires_grad_())
    out = local_attention(*copies[:3], position=copies[3] if len(copies) == 4 else None, backend=backend, **kwargs)
    out.backward(grad)
    return [out.detach(), *(x.grad for x in copies)]


def mirrored(i, n):
    """Reflection at both ends, as ReflectionPad does, walked step by step."""
    while not 0 <= i < n:
        i = 0 if n == 1 else (-i if i < 0 else 2 * (n - 1) - i)
    return i


def by_pixels(q, k, v, kernel_size, stride, dilation, scale):
    batch, heads, d, height, width = q.shape
    out = torch.empty(batch, heads, d, math.ceil(height / stride), math.ceil(width / stride), dtype=q.dtype)
    half = kernel_size // 2
    for y in range(out.shape[3]):
        for x in range(out.shape[4]):
            window = [
                (mirrored(y * stride + i * dilation, height), mirrored(x * stride + j * dilation, width))
                for i in range(-half, half + 1)
                for j in range(-half, half + 1)
            ]
            keys = torch.stack([k[..., i, j] for i, j in window], -1)
            values = torch.stack([v[..., i, j] for i, j in window], -1)
            query = q[..., y * stride, x * stride].unsqueeze(-1)
            probs = (scale * (query * keys).sum(2)).softmax(-1)
            out[..., y, x] = (probs.unsqueeze(2) * values).sum(-1)
    return out


@pytest.mark.parametrize('backend', ['reference', 'tiled'])
@pytest.mark.parametrize(
    'size, kernel_size, stride, dilation',
    [((6, 9), 7, 1, 1), ((3, 6), 7, 2, 1), ((1, 5), 5, 1, 2), ((9, 4), 3, 2, 3), ((5, 5), 1, 1, 1)],
)
def test_equals_a_loop_over_pixels(backend, size, kernel_size, stride, dilation):
    q, k, v = inputs((2, 2, 3, *size), requires_grad=False)
    out = local_attention(q, k, v, kernel_size, stride, dilation, scale=0.7, backend=backend)
    torch.testing.assert_close(out, by_pixels(q, k, v, kernel_size, stride, dilation, 0.7))


@settings(max_examples=120, deadline=None)
@given(
    batch=st.integers(0, 3),
    heads=st.integers(1, 4),
    d=st.sampled_from([1, 3, 8, 16, 24]),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    kernel_size=st.sampled_from([1, 3, 5, 7, 9]),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 3),
    with_position=st.booleans(),
    chunk=st.sampled_from([1, 20000, 4 * 2**20]),
)
def test_tiled_equals_the_definition(batch, heads, d, size, kernel_size, stride, dilation, with_position, chunk):
    q, k, v = inputs((batch, heads, d, *size))
    window = dict(kernel_size=kernel_size, stride=stride, dilation=dilation)
    if with_position:
        window['position'] = torch.randn(d, *size, dtype=q.dtype)
    grad = torch.randn(batch, heads, d, *(math.ceil(n / stride) for n in size), dtype=q.dtype)
    saved = tiled.CHUNK_BYTES, tiled.MAPS_BYTES
    tiled.CHUNK_BYTES = tiled.MAPS_BYTES = chunk
    try:
        actual = gradients('tiled', q, k, v, grad, **window)
    finally:
        tiled.CHUNK_BYTES, tiled.MAPS_BYTES = saved
    for name, a, e in zip('out q k v position'.split(), actual, gradients('reference', q, k, v, grad, **window)):
        torch.testing.assert_close(a, e, rtol=1e-9, atol=1e-11, msg=lambda m, name=name: f'{name}: {m}')


@pytest.mark.parametrize('height', range(1, 9))
@pytest.mark.parametrize('width', range(1, 9))
def test_small_maps(height, width):
    for kernel_size, stride, dilation in ((7, 1, 1), (7, 2, 1), (3, 2, 2)):
        q, k, v = inputs((1, 2, 3, height, width))
        window = dict(kernel_size=kernel_size, stride=stride, dilation=dilation)
        grad = torch.randn(1, 2, 3, -(-height // stride), -(-width // stride), dtype=q.dtype)
        for a, e in zip(gradients('tiled', q, k, v, grad, **window), gradients('reference', q, k, v, grad, **window)):
            torch.testing.assert_close(a, e)


@pytest.mark.parametrize('d', [8, 16, 24, 32, 64, 128])
def test_error_of_float32_is_that_of_the_precision(d, relative_error):
    """The definition adds channels in pairs, matrix products one after the other, which costs up to a bit or two."""
    q, k, v = inputs((1, 2, d, 9, 14), torch.float32, requires_grad=False)
    grad, position = torch.randn_like(q), torch.randn_like(q[0, 0])
    tensors = (q, k, v, grad)
    exact = gradients('reference', *(x.double() for x in tensors), position=position.double())
    actual = gradients('tiled', *tensors, position=position)
    plain = gradients('reference', *tensors, position=position)
    for a, p, e in zip(actual, plain, exact):
        assert relative_error(a, e) <= 3 * relative_error(p, e) + 1e-7


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_error_is_that_of_the_precision(dtype, relative_error):
    """No further from float64 than the definition is in the same precision."""
    q, k, v = inputs((2, 4, 16, 13, 18), dtype, requires_grad=False)
    grad = torch.randn_like(q)
    exact = gradients('reference', *(x.double() for x in (q, k, v, grad)))
    actual = gradients('tiled', q, k, v, grad)
    plain = gradients('reference', q, k, v, grad)
    for a, p, e in zip(actual, plain, exact):
        assert a.dtype == dtype
        assert relative_error(a, e) <= 1.2 * relative_error(p, e) + 1e-7


@pytest.mark.parametrize('backend', ['reference', 'tiled'])
def test_any_strides(backend):
    base = [torch.randn(2, 9, 11, 4 * 6, dtype=torch.float64) for _ in range(3)]
    views = [x.permute(0, 3, 1, 2).unflatten(1, (4, 6))[..., 1:, ::2] for x in base]
    grad = torch.randn(2, 4, 6, 8, 6, dtype=torch.float64).transpose(-1, -2).contiguous().transpose(-1, -2)
    actual = gradients(backend, *views, grad)
    expected = gradients('reference', *(x.contiguous() for x in views), grad.contiguous())
    for a, e in zip(actual, expected):
        torch.testing.assert_close(a, e)


def test_constants_per_window_cancel():
    """softmax(q k + c) = softmax(q k): why the query's own position code can be left out."""
    q, k, v = inputs((1, 2, 4, 6, 7), requires_grad=False)
    shift = torch.randn(4, 1, 1, dtype=q.dtype)
    torch.testing.assert_close(local_attention(q, k + shift, v), local_attention(q, k, v))


def test_huge_logits_stay_finite():
    q, k, v = inputs((1, 2, 4, 6, 7), torch.float32)
    out = local_attention(q * 1e4, k * 1e4, v)
    out.sum().backward()
    assert out.isfinite().all() and all(x.grad.isfinite().all() for x in (q, k, v))


def test_repeats_are_bitwise_equal():
    q, k, v = inputs((2, 4, 8, 21, 17), torch.float32)
    grad = torch.randn_like(q)
    for a, b in zip(gradients('auto', q, k, v, grad), gradients('auto', q, k, v, grad)):
        assert torch.equal(a, b)


def test_memory_is_bounded():
    """No windows: the largest tensor of a forward and backward pass stays near a map or a chunk."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for x in torch.utils._pytree.tree_flatten(out)[0]:
                if isinstance(x, torch.Tensor):
                    largest = max(largest, x.untyped_storage().nbytes())
            return out

    for size in ((96, 96), (3000, 3), (2, 4500)):
        q, k, v = inputs((1, 4, 16, *size), torch.float32, requires_grad=False)
        out, window = torch.empty_like(q), Window(7, 1, 1, 0.25)
        grads = [torch.empty_like(q) for _ in range(3)]
        scratch._kept.__dict__.clear()
        largest = 0
        with Watch():
            saved = tiled.forward(q, k, v, None, window, out)
            tiled.backward(out, q, k, v, None, out, saved, window, *grads)
        # Filled up to whole tiles and with its border, a map of 2 rows has 10.
        one_map = 4 * 4 * 16 * (size[0] + 9) * (size[1] + 9)
        assert largest < 1.1 * one_map + 3 * tiled.CHUNK_BYTES, size
        assert saved.numel() == 0
    with Watch():
        local_attention(q, k, v, backend='reference')
    assert largest > 40 * 4 * q.numel()


def test_kept_memory_is_bounded(monkeypatch):
    q, k, v = inputs((1, 1, 4, 8, 8), torch.float32, requires_grad=False)
    local_attention(q, k, v)
    assert 0 < scratch._kept.operator.bytes <= scratch.KEPT_BYTES
    monkeypatch.setattr(scratch, 'KEPT_BYTES', 100)
    local_attention(q, k, v)
    assert not hasattr(scratch._kept, 'operator')


def test_kept_memory_is_bounded_for_all_users_together(monkeypatch):
    scratch._kept.__dict__.clear()
    monkeypatch.setattr(scratch, 'KEPT_BYTES', 100)
    options = dict(dtype=torch.float32, device=torch.device('cpu'))
    with scratch.scratch(options, 'first') as outer, scratch.scratch(options, 'second') as inner:
        assert outer('x', 15).data_ptr() != inner('x', 15).data_ptr()
    assert list(scratch._kept.__dict__) == ['second']
    with scratch.scratch(options, 'second') as outer, scratch.scratch(options, 'second') as inner:
        assert outer('x', 15).data_ptr() != inner('x', 15).data_ptr()


def test_kept_memory_outlives_inference_mode():
    scratch._kept.__dict__.clear()
    q, k, v = inputs((1, 2, 4, 9, 8), torch.float32)
    with torch.inference_mode():
        first = local_attention(q, k, v)
    out = local_attention(q, k, v)
    out.sum().backward()
    assert torch.equal(first, out) and q.grad is not None


def test_infinite_values_do_not_stay_in_kept_memory():
    q, k, v = inputs((1, 2, 4, 9, 8), torch.float32)
    local_attention(q * torch.inf, k, v * torch.inf).sum().backward()
    assert all(x.isfinite().all() for x in gradients('tiled', q, k, v, torch.randn_like(q)))


@pytest.mark.parametrize('stride', [1, 2])
@pytest.mark.parametrize('order', ['B3hdyx', 'Byx3hd', 'Byxd3h'])
def test_packed(order, stride):
    """One tensor in any order in memory gives what three give, and its gradient comes in the same order."""
    sizes = dict(zip('B3hdyx', (2, 3, 2, 4, 9, 10)))
    plain = torch.randn([sizes[c] for c in 'B3hdyx'], dtype=torch.float64)
    packed = plain.permute(['B3hdyx'.index(c) for c in order]).contiguous()
    packed = packed.permute([order.index(c) for c in 'B3hdyx']).requires_grad_()
    position = torch.randn(4, 9, 10, dtype=torch.float64, requires_grad=True)
    out = packed_local_attention(packed, stride=stride, position=position)
    expected = local_attention(*packed.unbind(1), stride=stride, position=position, backend='reference')
    torch.testing.assert_close(out, expected)
    grad = torch.randn_like(expected)
    actual = torch.autograd.grad(out, (packed, position), grad)
    for a, e in zip(actual, torch.autograd.grad(expected, (packed, position), grad)):
        torch.testing.assert_close(a, e)
    assert actual[0].stride() == packed.stride()
    reference = packed_local_attention(packed, stride=stride, position=position, backend='reference')
    torch.testing.assert_close(reference, expected)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_inside(dtype):
    q, k, v = inputs((1, 2, 8, 9, 10), torch.float32)
    grad = torch.randn_like(q)
    plain = gradients('tiled', q, k, v, grad)
    with torch.autocast('cpu', dtype):
        inside = gradients('tiled', q, k, v, grad)
    for a, b in zip(plain, inside):
        assert torch.equal(a, b)


@pytest.mark.parametrize('power', [1, 2])
def test_double_backward_is_refused(power):
    """Also where the gradient that comes in is a constant: without an error the result would be wrong."""
    x = torch.randn(1, 1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(local_attention(x, x, x).pow(power).sum() + (x**3).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="backend='reference' only, and this one was .* backend='tiled'"):
        grad.square().sum().backward()


def test_double_backward_of_the_reference():
    x = torch.randn(1, 1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: local_attention(x, x, x, 3, backend='reference'), x)


@pytest.mark.parametrize('size', [(8, 8), (5, 6)])
def test_output_can_be_changed_in_place(size):
    q, k, v = inputs((1, 2, 3, *size))
    doubled = local_attention(q, k, v).mul_(2)
    torch.testing.assert_close(doubled, 2 * local_attention(q, k, v, backend='reference'))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(kernel_size=4), r'kernel_size must be odd, got kernel_size=4'),
        (dict(kernel_size=0), r'kernel_size must be an integer of at least 1, got kernel_size=0'),
        (dict(stride=0), r'stride must be an integer of at least 1, got stride=0'),
        (dict(stride=1.5), r'stride must be an integer of at least 1, got stride=1.5'),
        (dict(dilation=-1), r'dilation must be an integer of at least 1, got dilation=-1'),
        (dict(backend='cuda'), r"backend must be 'auto' or one of \['reference', .*\], got backend='cuda'"),
    ],
)
def test_wrong_arguments(change, message):
    q, k, v = inputs((1, 2, 3, 5, 5))
    with pytest.raises(ValueError, match=message):
        local_attention(q, k, v, **change)


def test_wrong_tensors():
    q, k, v = inputs((1, 2, 3, 5, 5))
    with pytest.raises(ValueError, match=r'one shape .* got k.shape=\(1, 2, 3, 5, 4\) and q.shape'):
        local_attention(q, k[..., :4], v)
    with pytest.raises(ValueError, match=r'one shape \(B, heads, d, H, W\), got q.shape=\(2, 3, 5, 5\)'):
        local_attention(q[0], k[0], v[0])
    with pytest.raises(ValueError, match='share dtype and device, got v on cpu in torch.float32'):
        local_attention(q, k, v.float())
    with pytest.raises(ValueError, match=r'H and W must be at least 1, got q.shape=\(1, 2, 3, 0, 5\)'):
        local_attention(*(x[..., :0, :] for x in (q, k, v)))
    with pytest.raises(TypeError, match='q must be a floating-point tensor, got torch.int64'):
        local_attention(q.long(), k, v)
    with pytest.raises(ValueError, match=r'position must have shape \(d, H, W\)=\(3, 5, 5\), got .*\(3, 5, 4\)'):
        local_attention(q, k, v, position=q[0, 0, :, :, :4])
    with pytest.raises(ValueError, match='got position on cpu in torch.float32 and q on cpu in torch.float64'):
        local_attention(q, k, v, position=q[0, 0].float())
    with pytest.raises(ValueError, match=r'shape \(B, 3, heads, d, H, W\), got \(1, 2, 3, 5, 5\)'):
        packed_local_attention(q)
