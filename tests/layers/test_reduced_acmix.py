"""Spatial-reduction ACmix against its definition, written out."""

import copy

import pytest
import torch
import torch.nn.functional as F

from mmacmix.layers import SpatialReductionACmix


def written_out(module, x):
    batch, height, width, channels = x.shape
    heads, d, ratio = module.num_heads, channels // module.num_heads, module.sr_ratio
    reduced = x
    if ratio > 1:
        pad = [max(ratio - n, 0) for n in (height, width)]
        reduced = F.pad(x, (0, 0, 0, pad[1], 0, pad[0])).permute(0, 3, 1, 2)
        reduced = module.norm(module.sr(reduced).permute(0, 2, 3, 1))
    rows, cols = reduced.shape[1:3]
    q = module.q(x).view(batch, height * width, heads, d).transpose(1, 2)
    k, v = module.kv(reduced).view(batch, rows * cols, 2, heads, d).permute(2, 0, 3, 1, 4)
    probs = (q @ k.transpose(2, 3) * d**-0.5).softmax(-1)
    attention = module.proj((probs @ v).transpose(1, 2).reshape(batch, height, width, channels))
    # Each pixel has the key and value of the pixel of the reduced map that lies over it.
    y = (torch.arange(height) * rows / height).long().clamp(max=rows - 1)
    z = (torch.arange(width) * cols / width).long().clamp(max=cols - 1)
    spread = [m.unflatten(2, (rows, cols))[:, :, y][:, :, :, z] for m in (k, v)]
    maps = torch.cat([q.unflatten(2, (height, width)), *spread], 1)  # (B, 3 heads, H, W, d)
    mixed = torch.einsum('tm,bmyxc->bctyx', module.fc.weight.flatten(1), maps) + module.fc.bias[:, None, None]
    convolution = F.conv2d(mixed.flatten(1, 2), module.dep_conv.weight, None, 1, 1, groups=d)
    return module.rate1 * attention + module.rate2 * convolution.permute(0, 2, 3, 1)


@pytest.mark.parametrize('size', [(8, 12), (9, 7), (3, 2), (1, 1), (4, 1)])
@pytest.mark.parametrize('heads', [1, 2, 6])
@pytest.mark.parametrize('ratio', [1, 2, 4])
def test_definition(ratio, heads, size):
    module = SpatialReductionACmix(12, heads, sr_ratio=ratio).double()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, *size, 12, dtype=torch.float64, requires_grad=True)
    out, expected = module(x), written_out(module, x)
    torch.testing.assert_close(out, expected)
    inputs = [x, *module.parameters()]
    grad = torch.randn_like(out)
    for a, e in zip(torch.autograd.grad(out, inputs, grad), torch.autograd.grad(expected, inputs, grad)):
        torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-9)
    with torch.no_grad():
        torch.testing.assert_close(module.switch_to_deploy()(x), expected)


@pytest.mark.parametrize('batch', [1, 2])
@pytest.mark.parametrize('size', [(8, 12), (9, 1), (1, 1)])
@pytest.mark.parametrize('heads', [1, 2, 6])
@pytest.mark.parametrize('dtype, bound', [(torch.float32, 1e-5), (torch.bfloat16, 0.03), (torch.float16, 0.004)])
def test_precisions(dtype, bound, heads, size, batch, relative_error):
    module = SpatialReductionACmix(24, heads, sr_ratio=2)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    inputs = [torch.randn(batch, *size, 24, requires_grad=True), *module.parameters()]
    with torch.autocast('cpu', dtype, enabled=dtype != torch.float32):
        out = module(inputs[0])
    grad = torch.randn(out.shape)
    grads = torch.autograd.grad(out, inputs, grad.to(out.dtype))
    exact = copy.deepcopy(module).double()
    inputs = [inputs[0].detach().double().requires_grad_(), *exact.parameters()]
    expected = written_out(exact, inputs[0])
    assert relative_error(out, expected) < bound
    for a, e in zip(grads, torch.autograd.grad(expected, inputs, grad.double())):
        if e.numel() > 1 or dtype == torch.float32:  # rates: sums that cancel, so rounding has no such bound
            assert relative_error(a, e) < bound


def test_no_bias():
    module = SpatialReductionACmix(8, 2, qkv_bias=False)
    assert module.q.bias is None and module.kv.bias is None
    assert module(torch.randn(1, 3, 4, 8)).shape == (1, 3, 4, 8)


def test_dropout_only_in_training():
    module = SpatialReductionACmix(8, 2, attn_drop_rate=0.5, proj_drop_rate=0.5)
    x = torch.randn(1, 6, 6, 8)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_start():
    module = SpatialReductionACmix(8, 2, sr_ratio=2)
    assert module.rate1.item() == module.rate2.item() == 0.5
    assert torch.equal(module.dep_conv.weight.flatten(2), torch.eye(9).expand(8, 9, 9))


def test_start_of_the_linear_layers_and_the_reduction():
    module = SpatialReductionACmix(96, 2, sr_ratio=4)
    for linear in (module.q, module.kv, module.proj):
        assert 0.019 < linear.weight.std() < 0.021 and not linear.bias.any()
    assert module.sr.weight.std().item() == pytest.approx((2 / (16 * 96)) ** 0.5, rel=0.02)
    assert not module.sr.bias.any()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(num_heads=3), 'dim must be divisible by num_heads, got dim=8 and num_heads=3'),
        (dict(sr_ratio=0), 'sr_ratio must be an integer of at least 1, got sr_ratio=0'),
        (dict(conv_kernel_size=2), 'conv_kernel_size must be odd, got conv_kernel_size=2'),
        (dict(dim=0), 'dim must be an integer of at least 1'),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        SpatialReductionACmix(**{**dict(dim=8, num_heads=2), **options})
    with pytest.raises(ValueError, match=r'x must have shape \(B, H, W, dim=8\), got x.shape=\(1, 8, 4, 4\)'):
        SpatialReductionACmix(8, 2)(torch.randn(1, 8, 4, 4))
