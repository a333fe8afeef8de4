"""One path alone: what each ACmix layer computes then, and what it has no parameters for."""

import pytest
import torch
from torch import nn

from mmacmix.layers import ACmix, PatchwiseACmix, SpatialReductionACmix, WindowACmix

LAYERS = {
    'acmix': (lambda **o: ACmix(12, 16, **o), (2, 12, 9, 7)),
    'acmix-8-heads': (lambda **o: ACmix(12, 16, num_heads=8, stride=2, **o), (2, 12, 9, 7)),
    'window': (lambda **o: WindowACmix(12, 3, window_size=3, shift_size=1, **o), (2, 9, 8, 12)),
    'window-6-heads': (lambda **o: WindowACmix(12, 6, window_size=3, **o), (2, 9, 8, 12)),
    'reduced': (lambda **o: SpatialReductionACmix(12, 2, sr_ratio=2, **o), (2, 9, 8, 12)),
    'reduced-6-heads': (lambda **o: SpatialReductionACmix(12, 6, **o), (2, 9, 8, 12)),
    'patchwise': (lambda **o: PatchwiseACmix(32, attn_kernel_size=3, **o), (2, 32, 9, 8)),
}
SINGLE = [('attention',), ('convolution',)]


@pytest.fixture(params=LAYERS)
def case(request):
    make, shape = LAYERS[request.param]
    return (lambda **options: make(**options).double()), torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize('path', SINGLE, ids='-'.join)
def test_one_path_is_a_summand_of_both(case, path):
    """With rates (1, 0) or (0, 1) the whole layer gives what the path alone gives."""
    make, x = case
    both = make()
    with torch.no_grad():
        both.rate1.fill_(path == ('attention',))
        both.rate2.fill_(path == ('convolution',))
    one = make(paths=path)
    kept = {name: value for name, value in both.state_dict().items() if name in one.state_dict()}
    one.load_state_dict(kept)
    torch.testing.assert_close(one(x), both(x))
    with torch.no_grad():
        torch.testing.assert_close(one(x), both(x))


@pytest.mark.parametrize('path', SINGLE, ids='-'.join)
def test_no_dead_parameters(case, path):
    make, x = case
    one = make(paths=path)
    assert not hasattr(one, 'rate1') and not hasattr(one, 'rate2')
    one(x).square().sum().backward()
    assert [name for name, p in one.named_parameters() if p.grad is None] == []
    assert sum(p.numel() for p in one.parameters()) < sum(p.numel() for p in make().parameters())


@pytest.mark.parametrize('path', [*SINGLE, ('attention', 'convolution')], ids='-'.join)
def test_cost_counts_the_parameters(case, path):
    make, _ = case
    module = make(paths=path)
    cost = module.cost(9, 8)
    assert sum(part.parameters for part in cost) == sum(p.numel() for p in module.parameters())
    for name, part in zip(('attention', 'convolution'), cost[1:]):
        assert (part.multiply_adds > 0) == (name in path)


def test_output_shape(case):
    make, x = case
    module = make()
    assert module.output_shape(x.shape) == tuple(module(x).shape)


@pytest.mark.parametrize('path', SINGLE, ids='-'.join)
def test_deploy_form(case, path):
    make, x = case
    module = make(paths=path).eval()
    if not hasattr(module, 'switch_to_deploy'):
        pytest.skip('this layer has no weights to merge')
    expected = module(x)
    module.switch_to_deploy()
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize('path', [*SINGLE, ('attention', 'convolution')], ids='-'.join)
def test_affine(path):
    """A batch normalisation behind the layer, folded into it."""
    module = ACmix(8, 16, paths=path).double()
    norm = nn.BatchNorm2d(16).double().eval()
    scale, shift = torch.randn(2, 16, dtype=torch.float64)
    norm.weight.data, norm.bias.data = scale * (1 + norm.eps) ** 0.5, shift
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(module(x, (scale, shift)), norm(module(x)))


def test_order_of_paths_does_not_matter(case):
    make, _ = case
    assert make(paths=['convolution', 'attention']).paths == ('attention', 'convolution')


@pytest.mark.parametrize(
    'paths', [(), 'attention', ('attention', 'attention'), ('attn',), None, (1,), ['convolution', '']]
)
def test_unknown_paths(case, paths):
    with pytest.raises(ValueError, match="paths must be a tuple of 'attention', 'convolution' or both, got paths="):
        case[0](paths=paths)
