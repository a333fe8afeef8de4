"""The convolutional form: golden figures, every quirk that is kept, every defect that is fixed."""

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

from mmacmix.layers import ACmix
from mmacmix.ops import local_attention


@pytest.mark.parametrize('index', range(4))
def test_golden(golden_modules, relative_error, index):
    golden, case = golden_modules, golden_modules.cases[index]
    module = ACmix(
        case['in_channels'],
        case['out_channels'],
        num_heads=case['heads'],
        attn_kernel_size=case['kernel_att'],
        conv_kernel_size=case['kernel_conv'],
        stride=case['stride'],
    )
    module.load_state_dict(golden.state_dict(case['state_dict']))
    module.double().eval()
    shape = (case['batch'], case['in_channels'], case['height'], case['width'])
    x = torch.from_numpy(golden.array(f'input{index}', shape)).double().requires_grad_()
    out = module(x)
    out.backward(torch.from_numpy(golden.array(f'grad{index}', out.shape)).double())
    assert relative_error(out, golden.arrays[f'{index}/output']) < 1e-5
    assert relative_error(x.grad, golden.arrays[f'{index}/grad_input']) < 1e-5
    for name, parameter in module.named_parameters():
        if name == 'conv_p.bias':  # the softmax cancels it: exactly zero by mathematics
            assert parameter.grad.abs().max() < 1e-12
        else:
            assert relative_error(parameter.grad, golden.arrays[f'{index}/grad/{name}']) < 1e-5, name


# Quirks that released weights depend on.


def test_parameters_have_the_official_names_and_no_dep_conv_bias(golden_modules):
    for case in golden_modules.cases:
        module = ACmix(
            case['in_channels'],
            case['out_channels'],
            case['heads'],
            case['kernel_att'],
            case['kernel_conv'],
        )
        shapes = {key: list(value.shape) for key, value in module.state_dict().items()}
        assert shapes == case['state_dict']
        assert module.dep_conv.bias is None


def test_paths_are_added_by_raw_index():
    """Attention is ordered (head, d), the convolution (d, head)."""
    module = ACmix(8, 8, num_heads=2).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        module.conv3.bias.copy_(torch.arange(8.0))  # values: head h has channels 4 h .. 4 h + 3
        module.rate1.fill_(1)
    x = torch.randn(1, 8, 5, 5, dtype=torch.float64)
    assert module(x)[0, :, 2, 2].tolist() == pytest.approx(list(range(8)))
    with torch.no_grad():
        module.rate1.fill_(0)
        module.rate2.fill_(1)
        module.fc.weight[4, 4] = 1  # the middle tap copies map 4: the first head of the values
        module.dep_conv.weight[0::2, 4, 1, 1] = 1  # outputs of head 0 are every second one
    assert module(x)[0, :, 2, 2].tolist() == pytest.approx([0, 0, 1, 0, 2, 0, 3, 0])


def test_fc_maps_three_maps_per_head_to_the_taps():
    """The code's 3 N -> k * k, not the paper's 3 N -> k * k * N."""
    assert ACmix(16, 16, num_heads=4, conv_kernel_size=5).fc.weight.shape == (25, 12, 1, 1)


# Defects of the official module that dense prediction runs into.


def test_memory_does_not_grow_with_the_window():
    x = torch.randn(1, 32, 64, 64, requires_grad=True)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for y in torch.utils._pytree.tree_flatten(out)[0]:
                if isinstance(y, torch.Tensor):
                    largest = max(largest, y.untyped_storage().nbytes())
            return out

    module = ACmix(32, 32)
    with Watch():
        module(x).sum().backward()
    assert largest < 49 * x.numel() * 4 / 4


@pytest.mark.parametrize('size', [(1, 1), (2, 5), (3, 6), (13, 19), (8, 1)])
@pytest.mark.parametrize('stride', [1, 2, 3])
def test_any_size_rounds_up(size, stride):
    module = ACmix(8, 16, stride=stride)
    out = module(torch.randn(2, 8, *size))
    assert out.shape == (2, 16, *(-(-n // stride) for n in size))
    assert out.isfinite().all()
    out.sum().backward()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize('paths', [('attention', 'convolution'), ('attention',), ('convolution',)])
@pytest.mark.parametrize('stride, dilation', [(2, 1), (2, 2), (3, 1)])
@pytest.mark.parametrize('size', [(9, 14), (8, 7), (1, 1), (1, 5)])
def test_a_stride_continues_maps_by_their_last_row_and_column(size, stride, dilation, paths):
    module = ACmix(8, 16, stride=stride, dilation=dilation, paths=paths).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    x = torch.randn(2, 8, *size, dtype=torch.float64)
    sides = (0, -size[1] % stride, 0, -size[0] % stride)
    results = []
    for continued in (False, True):
        leaf = x.clone().requires_grad_()
        out = module(nn.functional.pad(leaf, sides, mode='replicate') if continued else leaf)
        grads = torch.autograd.grad(out.sin().sum(), [leaf, *module.parameters()])
        results.append([out, *grads])
    for actual, expected in zip(*results):
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(module.eval().switch_to_deploy()(x), results[1][0], rtol=1e-10, atol=1e-12)


def test_a_constant_map_has_the_same_border_at_odd_and_even_sizes():
    """With zeros behind it, the last row of an odd map would come out as no row does in training."""
    module = ACmix(8, 8, stride=2)
    torch.testing.assert_close(module(torch.ones(1, 8, 21, 21)), module(torch.ones(1, 8, 22, 22)))


@pytest.mark.parametrize('size', [(4, 9), (5, 6)])
def test_small_maps_continue_the_large_ones(size):
    """The border of a map wider than the window is ReflectionPad's; below, its period goes on."""
    q, k, v = torch.randn(3, 1, 2, 3, *size, dtype=torch.float64)
    pad = nn.ReflectionPad2d(3)
    wide = [torch.nn.functional.pad(q[0], (3, 3, 3, 3))[None], pad(k[0])[None], pad(v[0])[None]]
    expected = local_attention(*wide)[..., 3:-3, 3:-3]
    torch.testing.assert_close(local_attention(q, k, v), expected)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_follows_the_dtype(dtype, relative_error):
    module = ACmix(16, 16)
    x = torch.randn(2, 16, 9, 7)
    expected = module(x)
    module, x = module.to(dtype), x.to(dtype)
    assert module.position_code(x).dtype == dtype
    out = module(x)
    assert out.dtype == dtype
    assert relative_error(out, expected) < (0.05 if dtype == torch.bfloat16 else 0.005)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(dtype, relative_error):
    module = ACmix(16, 16)
    x = torch.randn(2, 16, 9, 7)
    expected = module(x)
    expected.square().sum().backward()
    exact = {name: p.grad.clone() for name, p in module.named_parameters()}
    module.zero_grad()
    with torch.autocast('cpu', dtype):
        out = module(x)
        with torch.no_grad():  # another way through the layer
            assert torch.equal(module(x), out)
    out.float().square().sum().backward()
    assert out.dtype == dtype
    assert relative_error(out, expected) < 0.05
    for name, p in module.named_parameters():
        assert p.grad.dtype == torch.float32
        if name != 'conv_p.bias':
            assert relative_error(p.grad, exact[name]) < 0.15, name


@pytest.mark.parametrize('batch', [1, 3])
def test_inference_gives_what_training_gives(batch):
    """It takes another way: the projection goes into memory that is kept."""
    module = ACmix(12, 16).double()
    maps = torch.randn(2, batch, 12, 9, 7, dtype=torch.float64)
    expected = [module(x).detach() for x in maps]
    with torch.no_grad():
        outs = [module(x) for x in maps]
    for out, e in zip(outs, expected):
        torch.testing.assert_close(out, e)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_places_are_rounded_once(dtype):
    """In half precision a step between places would be rounded itself, and its error grow along the axis."""
    module = ACmix(8, 8, num_heads=4).to(dtype)
    with torch.no_grad():
        module.conv_p.weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        module.conv_p.bias.zero_()
        code = module.position_code(torch.empty(1, 8, 5, 333, dtype=dtype))
    expected = torch.linspace(-1, 1, 333, dtype=torch.float64)
    assert (code[0, 2].double() - expected).abs().max() <= torch.finfo(dtype).eps / 2
    assert code[1, :, 7].tolist() == [-1, -0.5, 0, 0.5, 1]


def test_position_code_follows_the_device():
    module = ACmix(8, 8).to('meta')
    assert module.position_code(torch.empty(1, 8, 4, 6, device='meta')).device.type == 'meta'


@pytest.mark.parametrize('dilation', [1, 2, 3])
@pytest.mark.parametrize('stride', [1, 2])
def test_dilation_spreads_both_paths(dilation, stride):
    module = ACmix(8, 8, stride=stride, dilation=dilation).double()
    x = torch.randn(1, 8, 25, 25, dtype=torch.float64, requires_grad=True)
    out = module(x)
    assert out.shape[2:] == (-(-25 // stride), -(-25 // stride))
    row = 12 // stride
    seen = torch.autograd.grad(out[0, :, row, row].sum(), x)[0].abs().sum((0, 1)) > 0
    reach = set(seen.nonzero()[:, 0].tolist())
    assert reach == {row * stride + dilation * i for i in range(-3, 4)}


@pytest.mark.parametrize('conv_kernel_size', [1, 3, 5, 7])
def test_conv_kernel_size_keeps_the_map(conv_kernel_size):
    assert ACmix(8, 8, conv_kernel_size=conv_kernel_size)(torch.randn(1, 8, 9, 5)).shape == (1, 8, 9, 5)


def is_shift(weight):
    taps = weight.size(1)
    expected = torch.zeros_like(weight)
    for i in range(taps):
        expected[:, i, i // weight.size(3), i % weight.size(3)] = 1
    return torch.equal(weight, expected)


@pytest.mark.parametrize('kernel', [3, 5])
def test_starts_as_shifts(kernel):
    module = ACmix(8, 8, conv_kernel_size=kernel)
    assert is_shift(module.dep_conv.weight)
    assert module.rate1.item() == module.rate2.item() == 0.5
    assert module.dep_conv.weight.requires_grad


def test_start_survives_the_init_of_a_parent():
    class Parent(BaseModule):
        def __init__(self):
            super().__init__(dict(type='Kaiming', layer='Conv2d'))
            self.conv = nn.Conv2d(8, 8, 1)
            self.acmix = ACmix(8, 8)

    parent = Parent()
    before = parent.conv.weight.clone()
    parent.init_weights()
    assert not torch.equal(parent.conv.weight, before)
    assert is_shift(parent.acmix.dep_conv.weight)
    for conv in (parent.acmix.conv1, parent.acmix.conv2, parent.acmix.conv3, parent.acmix.conv_p, parent.acmix.fc):
        assert conv.weight.abs().max() <= conv.in_channels**-0.5  # as torch's own start


@pytest.mark.parametrize('make', [lambda x: x.to(memory_format=torch.channels_last), lambda x: x[..., 1::2]])
def test_any_strides(make):
    module = ACmix(8, 8).double()
    x = make(torch.randn(2, 8, 9, 12, dtype=torch.float64))
    assert not x.is_contiguous()
    torch.testing.assert_close(module(x), module(x.contiguous()))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(num_heads=3), 'out_channels must be divisible by num_heads, got out_channels=16 and num_heads=3'),
        (dict(attn_kernel_size=6), 'attn_kernel_size must be odd, got attn_kernel_size=6'),
        (dict(conv_kernel_size=2), 'conv_kernel_size must be odd, got conv_kernel_size=2'),
        (dict(stride=0), 'stride must be an integer of at least 1, got stride=0'),
        (dict(dilation='2'), "dilation must be an integer of at least 1, got dilation='2'"),
        (dict(in_channels=0), 'in_channels must be an integer of at least 1, got in_channels=0'),
    ],
)
def test_wrong_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        ACmix(**{**dict(in_channels=16, out_channels=16), **change})


def test_wrong_input():
    with pytest.raises(ValueError, match=r'in_channels=8, H, W\), got x.shape=\(1, 4, 5, 5\)'):
        ACmix(8, 8)(torch.randn(1, 4, 5, 5))


def test_repr_rebuilds_the_module():
    module = ACmix(8, 16, num_heads=2, attn_kernel_size=5, conv_kernel_size=1, stride=2, dilation=3)
    again = eval(f'ACmix({module.extra_repr()})')
    assert again.extra_repr() == module.extra_repr()


@pytest.mark.parametrize('heads', [2, 8])
@pytest.mark.parametrize('with_affine', [True, False])
def test_affine_and_deploy_form(heads, with_affine):
    module = ACmix(16, 16, num_heads=heads, stride=2)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    affine = (torch.randn(16), torch.randn(16)) if with_affine else None
    x = torch.randn(2, 16, 9, 12)
    expected = module(x)
    if with_affine:
        expected = expected * affine[0].view(-1, 1, 1) + affine[1].view(-1, 1, 1)
        torch.testing.assert_close(module(x, affine), expected, rtol=1e-5, atol=1e-5)
    assert module.switch_to_deploy(affine) is module
    assert {name for name, _ in module.named_parameters()} == {'conv_p.weight', 'conv_p.bias'}
    torch.testing.assert_close(module(x), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(module.switch_to_deploy(affine)(x), module(x))
    with pytest.raises(ValueError, match='affine must be given to switch_to_deploy'):
        module(x, (torch.ones(16), torch.zeros(16)))

