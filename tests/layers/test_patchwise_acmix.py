"""Patchwise ACmix against SAN's own order of operations, with windows written out."""

import copy

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from mmacmix.layers import PatchwiseACmix, window_norm
from mmacmix.ops.aggregation import aggregation_reference
from mmacmix.ops.reflection import pad_reflection


def layer(**options):
    module = PatchwiseACmix(64, **options).double()
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return module


def written_out(module, x):
    """SAN: the perceptron sees the query and all keys of the window, C / 16 * (1 + k * k) maps."""
    k, pad = module.attn_kernel_size, module.attn_kernel_size // 2
    queries, keys, values = module.conv1(x), module.conv2(x), module.conv3(x)
    attention = convolution = 0
    if 'attention' in module.paths:
        windows = pad_reflection(keys, pad).unfold(2, k, 1).unfold(3, k, 1)
        windows = windows.permute(0, 1, 4, 5, 2, 3).flatten(1, 3)
        weights = module.conv_w(torch.cat([queries, windows], 1)).unflatten(1, (-1, k * k))
        attention = aggregation_reference(values, weights, k)
    if 'convolution' in module.paths:
        maps = torch.cat([queries, keys, values], 1).unflatten(1, (6, -1)).transpose(1, 2)
        mixed = torch.einsum('tm,bcmyx->bctyx', module.fc.weight.flatten(1), maps).flatten(1, 2)
        convolution = F.conv2d(mixed, module.dep_conv.weight, None, 1, 1, groups=x.size(1) // 16)
    if len(module.paths) == 1:
        return attention + convolution
    return module.rate1 * attention + module.rate2 * convolution


PATHS = [('attention', 'convolution'), ('attention',), ('convolution',)]


@pytest.mark.parametrize('size', [(1, 2), (5, 4), (12, 9)])
@pytest.mark.parametrize('kernel', [3, 7])
@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('paths', PATHS, ids='-'.join)
def test_equals_san(paths, training, kernel, size):
    module = layer(attn_kernel_size=kernel, paths=paths).train(training)
    x = torch.randn(2, 64, *size, dtype=torch.float64, requires_grad=True)
    other = copy.deepcopy(module)
    expected = written_out(other, x)
    buffers = dict(other.named_buffers())
    out = module(x)
    torch.testing.assert_close(out, expected)
    for name, value in module.named_buffers():
        torch.testing.assert_close(value, buffers[name], msg=name)
    grad = torch.randn_like(out)
    actual = torch.autograd.grad(out, [x, *module.parameters()], grad)
    for a, e in zip(actual, torch.autograd.grad(expected, [x, *other.parameters()], grad)):
        torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('paths', PATHS, ids='-'.join)
def test_deploy_form(paths):
    module = layer(attn_kernel_size=3, paths=paths).eval()
    x = torch.randn(2, 64, 5, 7, dtype=torch.float64)
    with torch.no_grad():
        expected = module(x)
        assert module.train().switch_to_deploy() is module and module.switch_to_deploy() is module
        torch.testing.assert_close(module(x), expected)
    assert not list(module.parameters()) and not module.training
    other = layer(attn_kernel_size=3, paths=paths).switch_to_deploy()
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other(x), expected)


def test_momentum_of_none_averages_all_batches():
    module = layer()
    module.conv_w[0].momentum = module.conv_w[3].momentum = None
    start = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.randn(3, 2, 64, 6, 5, dtype=torch.float64)
    for batch in x:
        written_out(module, batch)
    expected = module.conv_w[0].running_var.clone()
    module.load_state_dict(start)
    for batch in x:
        module(batch)
    torch.testing.assert_close(module.conv_w[0].running_var, expected)


def test_synchronised_norms_count_as_batch_norm():
    """On one process SyncBN is batch normalisation; torch's own refuses to run on a CPU."""
    module = layer().train()
    x = torch.randn(2, 64, 6, 5, dtype=torch.float64)
    expected = module(x)
    module.conv_w[0] = nn.SyncBatchNorm.convert_sync_batchnorm(module.conv_w[0])
    torch.testing.assert_close(module(x), expected)


def half_a_batch(rank, path, results):
    """One of two processes: its half of the batch, with statistics of both."""
    dist.init_process_group('gloo', init_method=f'file://{path}', rank=rank, world_size=2)
    torch.manual_seed(0)
    module = layer().train()
    x = torch.randn(4, 64, 6, 5, dtype=torch.float64)[2 * rank : 2 * rank + 2].requires_grad_()
    module.conv_w[0] = nn.SyncBatchNorm.convert_sync_batchnorm(module.conv_w[0])
    module.conv_w[3].eval()  # torch's own does not run on a CPU
    out = module(x)
    out.square().sum().backward()
    torch.save([out.detach(), x.grad, module.conv_w[0].running_var], f'{results}/{rank}.pth')
    dist.barrier()  # torch 2.0 may hang in destroy_process_group after a fork


def test_norms_synchronised_over_processes(tmp_path):
    torch.multiprocessing.start_processes(
        half_a_batch, (tmp_path / 'store', tmp_path), nprocs=2, start_method='fork'
    )
    halves = [torch.load(tmp_path / f'{rank}.pth') for rank in range(2)]
    torch.manual_seed(0)
    module = layer().train()
    module.conv_w[3].eval()
    x = torch.randn(4, 64, 6, 5, dtype=torch.float64, requires_grad=True)
    out = module(x)
    out.square().sum().backward()
    torch.testing.assert_close(torch.cat([half[0] for half in halves]), out)
    torch.testing.assert_close(torch.cat([half[1] for half in halves]), x.grad)
    for half in halves:
        torch.testing.assert_close(half[2], module.conv_w[0].running_var)


def test_a_single_pixel_cannot_be_normalised():
    with pytest.raises(ValueError, match='must have 2 pixels or more'):
        layer().train()(torch.randn(1, 64, 1, 1, dtype=torch.float64))


def test_rates_start_even_and_shifts_as_shifts():
    module = PatchwiseACmix(64)
    assert module.rate1.item() == module.rate2.item() == 0.5
    assert torch.equal(module.dep_conv.weight.flatten(2), torch.eye(9).expand(16, 9, 9))


@pytest.mark.parametrize('paths', PATHS[1:], ids='-'.join)
def test_one_path_has_no_dead_parameters(paths):
    names = {name.split('.')[0] for name, _ in PatchwiseACmix(32, paths=paths).named_parameters()}
    own = {'conv_w'} if paths == ('attention',) else {'fc', 'dep_conv'}
    assert names == {'conv1', 'conv2', 'conv3'} | own


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(channels=48), 'channels must be divisible by 32, got channels=48'),
        (dict(attn_kernel_size=4), 'attn_kernel_size must be odd, got attn_kernel_size=4'),
        (dict(conv_kernel_size=0), 'conv_kernel_size must be an integer of at least 1'),
        (dict(paths=()), r"paths must be a tuple of 'attention', 'convolution' or both, got paths=\(\)"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        PatchwiseACmix(**{**dict(channels=32), **options})
    with pytest.raises(ValueError, match=r'x must have shape \(B, channels=32, H, W\)'):
        PatchwiseACmix(32)(torch.randn(1, 31, 4, 4))


def test_autocast_does_not_reach_the_moments():
    q, k = torch.randn(2, 2, 4, 9, 8)
    results = []
    for enabled in (True, False):
        torch.manual_seed(1)
        module = layer().float().train()
        norm = module.conv_w[0]
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            moments = window_norm.window_norm(norm, q, k, module.attn_kernel_size)
            results.append([*moments, norm.running_mean, norm.running_var])
    assert all(torch.equal(a, e) for a, e in zip(*results))


def test_autocast(relative_error):
    module = layer().float().eval()
    x = torch.randn(2, 64, 9, 8)
    with torch.autocast('cpu', torch.bfloat16):
        out = module(x)
    assert relative_error(out, module(x)) < 0.1


def test_groups_of_synchronised_norms(monkeypatch):
    """mmcv's SyncBatchNorm is none of torch's, and has another name for its processes."""
    ours = object()
    sizes = {ours: 2, dist.group.WORLD: 4}
    monkeypatch.setattr(dist, 'is_initialized', lambda: True)
    monkeypatch.setattr(dist, 'get_world_size', lambda group: sizes[group])
    torchs, mmcvs = nn.SyncBatchNorm(8), type('SyncBatchNorm', (nn.Module,), {})()
    assert window_norm._synced(torchs) and window_norm._group(torchs) is dist.group.WORLD
    mmcvs.group = torchs.process_group = ours
    for norm in (torchs, mmcvs):
        assert window_norm._synced(norm) and window_norm._group(norm) is ours
    sizes[ours] = 1
    assert not any(window_norm._synced(norm) for norm in (torchs, mmcvs, nn.BatchNorm2d(8)))


@pytest.mark.skipif(not hasattr(torch.library, 'custom_op'), reason='torch before 2.4')
@pytest.mark.parametrize('training', [True, False])
def test_compiles(training):
    module, x = layer().train(training), torch.randn(2, 64, 6, 5, dtype=torch.float64)
    compiled, results = torch.compile(copy.deepcopy(module), backend='aot_eager'), []
    for run in (compiled, module):
        out = run(x)
        results.append([out, *torch.autograd.grad(out.square().sum(), list(run.parameters()))])
    for actual, expected in zip(*results):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize('training', [True, False])
def test_empty_batch_beyond_a_cpu(training):
    module = layer().train(training).to('meta')
    x = torch.empty(0, 64, 6, 5, dtype=torch.float64, device='meta', requires_grad=True)
    out = module(x)
    out.sum().backward()
    assert out.shape == (0, 16, 6, 5) and x.grad.shape == x.shape
