"""The window form against a version that writes every window and its mask out."""

import pytest
import torch
import torch.nn.functional as F

from mmacmix.layers import WindowACmix


def written_out(module, x, shift):
    """One window at a time; a pair attends where neither pixel was brought round by the shift alone."""
    batch, height, width, dim = x.shape
    window, heads = module.window_size, module.num_heads
    d = dim // heads
    x = F.pad(x, (0, 0, 0, -width % window, 0, -height % window))
    rows, cols = x.shape[1:3]
    x = torch.roll(x, (-shift, -shift), (1, 2))
    home_y = torch.arange(rows) + shift
    home_x = torch.arange(cols) + shift
    qkv = x @ module.qkv.weight.t() + module.qkv.bias
    attention = torch.empty_like(x)
    for top in range(0, rows, window):
        for left in range(0, cols, window):
            part = qkv[:, top : top + window, left : left + window].reshape(batch, window**2, 3, heads, d)
            place = [(i, j) for i in range(window) for j in range(window)]
            out = torch.empty(batch, window**2, heads, d, dtype=x.dtype)
            for a, (ay, ax) in enumerate(place):
                logits = []
                for b, (by, bx) in enumerate(place):
                    row = (ay - by + window - 1) * (2 * window - 1) + ax - bx + window - 1
                    logit = (part[:, a, 0] * part[:, b, 1]).sum(-1) * d**-0.5
                    logit = logit + module.relative_position_bias_table[row]
                    round_y = (home_y[top + ay] >= rows) != (home_y[top + by] >= rows)
                    round_x = (home_x[left + ax] >= cols) != (home_x[left + bx] >= cols)
                    logits.append(logit - 100.0 if round_y or round_x else logit)
                probs = torch.stack(logits, 1).softmax(1)
                out[:, a] = (probs.unsqueeze(-1) * part[:, :, 2]).sum(1)
            out = out.reshape(batch, window, window, dim) @ module.proj.weight.t() + module.proj.bias
            attention[:, top : top + window, left : left + window] = out
    maps = qkv.permute(0, 3, 1, 2).reshape(batch, 3 * heads, d, rows, cols)
    mixed = torch.einsum('tm,bmcyx->bctyx', module.fc.weight[:, :, 0, 0], maps)
    mixed = (mixed + module.fc.bias[:, None, None]).flatten(1, 2)
    conv = F.conv2d(mixed, module.dep_conv.weight, padding=module.conv_kernel_size // 2, groups=d)
    out = module.rate1 * attention + module.rate2 * conv.permute(0, 2, 3, 1)
    return torch.roll(out, (shift, shift), (1, 2))[:, :height, :width]


@pytest.mark.parametrize('size', [(6, 9), (7, 5), (3, 3), (2, 8), (1, 1)])
@pytest.mark.parametrize('shift', [0, 1])
def test_equals_the_form_written_out(size, shift):
    module = WindowACmix(8, 2, window_size=3, shift_size=shift).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    x = torch.randn(2, *size, 8, dtype=torch.float64, requires_grad=True)
    # A map no longer than a window is not shifted, as in the released code.
    used = shift if min(size) > 3 else 0
    actual, expected = module(x), written_out(module, x, used)
    torch.testing.assert_close(actual, expected)
    leaves = [x, *module.parameters()]
    grad = torch.randn_like(actual)
    for a, e in zip(torch.autograd.grad(actual, leaves, grad), torch.autograd.grad(expected, leaves, grad)):
        torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-9)


def test_convolution_does_not_pass_the_projection():
    module = WindowACmix(8, 2, window_size=3)
    with torch.no_grad():
        module.proj.weight.zero_()
        module.proj.bias.zero_()
    x = torch.randn(1, 6, 6, 8)
    assert module(x).abs().max() > 0


def test_start():
    module = WindowACmix(8, 2)
    assert module.rate1.item() == module.rate2.item() == 0.5
    assert module.dep_conv.bias is None and module.fc.bias is not None
    assert torch.equal(module.dep_conv.weight[3].flatten(1), torch.eye(9))


def test_start_of_the_position_bias():
    table = WindowACmix(8, 8, window_size=20).relative_position_bias_table
    assert table.mean().abs() < 0.001 and 0.019 < table.std() < 0.021


def test_start_of_the_linear_layers():
    module = WindowACmix(96, 2)
    for linear in (module.qkv, module.proj):
        assert 0.019 < linear.weight.std() < 0.021 and not linear.bias.any()


@pytest.mark.parametrize('rate', ['attn_drop_rate', 'proj_drop_rate'])
def test_dropout_silences_attention_only(rate):
    module = WindowACmix(8, 2, window_size=3, **{rate: 1.0})
    with torch.no_grad():
        module.proj.bias.zero_()
    x = torch.randn(1, 6, 6, 8)
    dropped, whole = module.train()(x), module.eval()(x)
    with torch.no_grad():
        module.rate1.zero_()
    torch.testing.assert_close(dropped, module(x))
    assert not torch.allclose(dropped, whole)


def test_empty_batch():
    assert WindowACmix(8, 2)(torch.randn(0, 9, 5, 8)).shape == (0, 9, 5, 8)


def test_state_dict_holds_parameters_only():
    module = WindowACmix(8, 2)
    assert set(module.state_dict()) == {name for name, _ in module.named_parameters()}


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast(dtype, relative_error):
    module = WindowACmix(16, 2, shift_size=3)
    x = torch.randn(2, 9, 15, 16)
    expected = module(x)
    with torch.autocast('cpu', dtype):
        out = module(x)
    assert out.dtype == dtype and relative_error(out, expected) < 0.03
    out = module.to(dtype)(x.to(dtype))
    assert out.dtype == dtype and relative_error(out, expected) < 0.03


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(num_heads=3), 'dim must be divisible by num_heads, got dim=8 and num_heads=3'),
        (dict(window_size=0), 'window_size must be an integer of at least 1, got window_size=0'),
        (dict(shift_size=7), r'shift_size must be an integer in \[0, window_size=7\), got shift_size=7'),
        (dict(shift_size=1.5), r'shift_size must be an integer in \[0, window_size=7\), got shift_size=1.5'),
        (dict(conv_kernel_size=4), 'conv_kernel_size must be odd, got conv_kernel_size=4'),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        WindowACmix(**{**dict(dim=8, num_heads=2), **change})


def test_wrong_input():
    with pytest.raises(ValueError, match=r'x must have shape \(B, H, W, dim=8\), got x.shape=\(1, 8, 6, 6\)'):
        WindowACmix(8, 2)(torch.randn(1, 8, 6, 6))


@pytest.mark.parametrize('heads', [3, 6])
@pytest.mark.parametrize('bias', [True, False])
def test_deploy_form(heads, bias):
    module = WindowACmix(24, heads, window_size=3, shift_size=1, qkv_bias=bias).eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(2, 7, 8, 24)
    expected = module(x)
    assert module.switch_to_deploy() is module and not list(module.parameters())
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)
    module.switch_to_deploy()
    torch.testing.assert_close(module.double()(x.double()).float(), expected, rtol=1e-4, atol=1e-5)


def test_dropout_of_probabilities_is_active_in_training_only():
    module = WindowACmix(8, 2, window_size=3, attn_drop_rate=0.5)
    x = torch.randn(1, 6, 6, 8)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


@pytest.mark.parametrize('heads', [3, 6])
def test_inference_gives_what_training_gives(heads):
    """It takes another way: the projection goes into memory that is kept."""
    module = WindowACmix(12, heads, window_size=3, shift_size=1).double()
    torch.nn.init.normal_(module.qkv.bias)
    maps = torch.randn(2, 2, 8, 7, 12, dtype=torch.float64)
    expected = [module(x).detach() for x in maps]
    with torch.no_grad():
        outs = [module(x) for x in maps]
    for out, e in zip(outs, expected):
        torch.testing.assert_close(out, e)


def test_start_after_a_build_without_memory():
    with torch.device('meta'):
        module = WindowACmix(8, 2, window_size=3)
    module.to_empty(device='cpu')
    module.relative_position_index.fill_(10**6)
    module.init_weights()
    assert torch.equal(module.relative_position_index, WindowACmix(8, 2, window_size=3).relative_position_index)


def test_backward_hooks_of_all_modules():
    module, seen = WindowACmix(8, 2, window_size=3), []
    for part in module.modules():
        part.register_full_backward_hook(lambda part, *grads: seen.append(part))
    module(torch.randn(1, 4, 5, 8, requires_grad=True)).sum().backward()
    assert module in seen and module.proj_drop in seen
