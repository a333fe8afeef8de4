"""What makes the backbones fast must not change what they compute: folded norms, deploy form, memory format."""

from copy import deepcopy

import pytest
import torch
import torch.nn.utils.prune
from mmcv.cnn import fuse_conv_bn
from torch import nn

from mmacmix.backbones import PVTACmix, ResNetACmix, SANACmix, SwinACmix
from mmacmix.layers import ACmix
from mmacmix.ops import scratch


def resnet(**options):
    """Small, with normalisations that are no identity."""
    options = {**dict(base_channels=8, stem_channels=8, zero_init_residual=False), **options}
    return with_norms(ResNetACmix(26, **options))


def san():
    return with_norms(SANACmix(10, stem_channels=32, attn_kernel_sizes=(3, 3, 3, 3, 3)))


def with_norms(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return model


def pvt():
    arch = dict(embed_dims=(8, 16), depths=(1, 2), num_heads=(1, 2), sr_ratios=(4, 2), mlp_ratios=(2, 2))
    return PVTACmix(arch, drop_path_rate=0.0, out_indices=(0, 1))


def swin():
    return SwinACmix(dict(embed_dims=12, depths=(2, 2), num_heads=(3, 6)), window_size=3, drop_path_rate=0.0)


BUILDERS = {
    'resnet': resnet,
    'resnet-gn': lambda: resnet(norm_cfg=dict(type='GN', num_groups=2)),
    'resnet-8-heads': lambda: resnet(num_heads=8),
    'swin': swin,
    'pvt': pvt,
    'san': san,
}


def unfolded(model, x):
    """Every norm runs by itself: what a hook on it sees."""
    fold = type(model).__module__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f'{fold}.affine_of', lambda norm: None)
        patch.setattr(f'{fold}.conv_norm', lambda conv, norm, x: norm(conv(x)))
        patch.setattr(f'{fold}.conv_norm_add', lambda conv, norm, x, identity, _: norm(conv(x)) + identity)
        return model(x)


def test_folded_norms_are_exact():
    model = resnet(norm_eval=True).double().train()
    x = torch.randn(2, 3, 50, 67, dtype=torch.float64)
    outs, plain = model(x), unfolded(model, x)
    for a, e in zip(outs, plain):
        torch.testing.assert_close(a, e)
    parameters = list(model.parameters())
    grads = (torch.autograd.grad(sum(y.square().mean() for y in ys), parameters) for ys in (outs, plain))
    for a, e in zip(*grads):
        torch.testing.assert_close(a, e, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize('options', [dict(), dict(stem_channels=32), dict(strides=(1, 2, 1, 2), out_indices=(0, 2))])
@pytest.mark.parametrize('deploy', [False, True])
def test_maps_written_over_others(options, deploy, relative_error):
    """In inference blocks write over the map of the block before; nobody may see that."""
    model = resnet(**options).eval()
    x = torch.randn(2, 3, 61, 70)
    expected = unfolded(model, x)
    if deploy:
        model.switch_to_deploy()
    seen = []
    with torch.inference_mode():
        model(x)
        for out, e in zip(model(x), expected):
            assert relative_error(out, e.detach()) < 1e-5
        for name in ('layer1', 'layer3'):
            stage = getattr(model, name)
            maps = torch.randn(1, stage[0].conv1.in_channels, 9, 8).contiguous(memory_format=torch.channels_last)
            before = maps.clone()
            stage(maps)
            stage[0](maps)
            assert torch.equal(maps, before)
        for block in model.layer3:
            block.register_forward_hook(lambda module, inputs, output: seen.append((output, output.clone())))
        for block in list(model.layer3)[2:]:
            block.register_forward_pre_hook(lambda module, inputs: seen.append((inputs[0], inputs[0].clone())))
        model(x)
    assert len(seen) == 6
    assert all(torch.equal(kept, copy) for kept, copy in seen)


def test_a_hook_is_given_what_the_block_was_given():
    model = resnet().eval()
    x, seen = torch.randn(1, 3, 64, 64), []
    with torch.inference_mode():
        model.layer3[1].register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].clone()))
        model(x)
        model.layer3[0].register_forward_hook(lambda module, inputs, output: seen.append(output.clone()))
        model(x)
    assert len(seen) == 3 and torch.equal(seen[0], seen[1])


@pytest.mark.parametrize('hook', ['register_forward_hook', 'register_forward_pre_hook'])
@pytest.mark.parametrize('everywhere', [False, True])
def test_hooks_see_maps_that_stay(hook, everywhere):
    model = resnet().eval()
    kept = []

    def keep(module, inputs, output=None):
        if type(module).__name__ == 'Bottleneck':
            kept.extend((y, y.clone()) for y in (inputs[0], output) if y is not None)

    if everywhere:
        name = 'register_module_forward_hook' if hook == 'register_forward_hook' else 'register_module_forward_pre_hook'
        handle = getattr(nn.modules.module, name)(keep)
    else:
        handle = getattr(model.layer3[1], hook)(keep)
    with torch.inference_mode():
        model(torch.randn(1, 3, 64, 64))
    handle.remove()
    assert kept and all(torch.equal(y, copy) for y, copy in kept)


def test_norms_of_the_batch_are_not_folded():
    model = resnet().train()
    before = model.layer1[0].bn2.running_mean.clone()
    model(torch.randn(2, 3, 32, 32))
    assert not torch.equal(model.layer1[0].bn2.running_mean, before)


@pytest.mark.parametrize('name', BUILDERS)
def test_deploy_form(name, relative_error):
    model = BUILDERS[name]().eval()
    x = torch.randn(2, 3, 61, 70)
    with torch.no_grad():
        expected = model(x)
        assert model.train().switch_to_deploy() is model and not model.training
        for a, e in zip(model(x), expected):
            assert relative_error(a, e) < 1e-5
    with pytest.raises(RuntimeError, match=r'must be trained before switch_to_deploy\(\), got train\(\) after it'):
        model.train()
    assert not model.eval().training
    if name != 'san':  # whose norms come before what they could be merged with
        assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
    other = BUILDERS[name]().switch_to_deploy()
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for a, e in zip(other(x), expected):
            assert relative_error(a, e) < 1e-5


def test_hooks_and_layers_of_others_are_called():
    """Folded or not: what a hook changes counts, and a convolution that does more is not read for its weight."""
    model = resnet().eval()
    x = torch.randn(1, 3, 40, 36)
    with torch.no_grad():
        expected = model(x)[0].clone()
        handle = model.layer1[0].bn1.register_forward_hook(lambda module, args, out: out * 0)
        changed = model(x)[0]
        handle.remove()
        assert not torch.allclose(changed, expected)
        torch.nn.utils.prune.l1_unstructured(model.layer1[0].conv1, 'weight', 0.5)
        pruned = model(x)[0]
        model.layer1[0].conv1.weight_orig.mul_(3)
        assert not torch.allclose(model(x)[0], pruned)


class Keeps(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        self.kept, self.copies = [x], [x.clone()]
        out = self.inner(x)
        self.kept.append(out)
        self.copies.append(out.clone())
        return out


@pytest.mark.parametrize('place', [0, 1, 2])
def test_maps_that_a_wrapper_keeps_are_not_written_over(place):
    model = ResNetACmix(50, base_channels=8, stem_channels=8).eval()
    x = torch.randn(1, 3, 40, 36)
    with torch.no_grad():
        expected = model(x)
        model.layer1[place] = Keeps(model.layer1[place])
        for out, e in zip(model(x), expected):
            torch.testing.assert_close(out, e)
    for kept, copy in zip(model.layer1[place].kept, model.layer1[place].copies):
        assert torch.equal(kept, copy)


def test_maps_that_inner_hooks_see_are_not_written_over():
    model = ResNetACmix(50, base_channels=8, stem_channels=8).eval()
    model.layer1[2].bn1.train()
    seen = []
    model.layer1[2].conv1.register_forward_pre_hook(lambda module, args: seen.extend((args[0], args[0].clone())))
    with torch.no_grad():
        model(torch.randn(1, 3, 40, 36))
    assert torch.equal(*seen)


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.skipif(not hasattr(torch.library, 'custom_op'), reason='torch before 2.4')
@pytest.mark.parametrize('name', ['resnet', 'swin', 'pvt', 'san'])
def test_traced(name):
    model, x = BUILDERS[name]().eval(), torch.randn(1, 3, 40, 36)
    with torch.no_grad():
        for out, expected in zip(torch.jit.trace(model, x)(x), model(x)):
            torch.testing.assert_close(out, expected)


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.skipif(not hasattr(torch.library, 'custom_op'), reason='torch before 2.4')
@pytest.mark.parametrize('size', [(10, 10), (11, 10), (9, 7)])
def test_a_traced_stride_takes_other_sizes(size):
    layer = ACmix(8, 8, stride=2).eval()
    with torch.no_grad():
        traced = torch.jit.trace(layer, torch.randn(1, 8, *size))
        for other in ((10, 10), (11, 11), (20, 21), (5, 8)):
            x = torch.randn(1, 8, *other)
            torch.testing.assert_close(traced(x), layer(x))


@pytest.mark.parametrize('name', BUILDERS)
def test_memory_format_of_images_and_gradients_does_not_matter(name):
    model = BUILDERS[name]().double().train()
    x = torch.randn(2, 3, 40, 36, dtype=torch.float64)
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        outs = model(x.contiguous(memory_format=memory_format))
        grads = [torch.ones_like(y, memory_format=memory_format) * (y.detach() > 0) for y in outs]
        results.append([*outs, *torch.autograd.grad(outs, list(model.parameters()), grads)])
    for a, e in zip(*results):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize('name', ['resnet', 'swin'])
def test_two_runs_are_bitwise_equal(name):
    model = BUILDERS[name]().train()
    if name == 'resnet':
        model.norm_eval = True
        model.train()
    x = torch.randn(2, 3, 61, 70)
    torch.use_deterministic_algorithms(True)
    try:
        runs = []
        for _ in range(2):
            outs = model(x)
            runs.append([*outs, *torch.autograd.grad(sum(y.sum() for y in outs), list(model.parameters()))])
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*runs))


@pytest.mark.skipif(not hasattr(torch.library, 'custom_op'), reason='torch before 2.4')
@pytest.mark.parametrize('name', ['resnet', 'swin'])
def test_compiles_without_a_graph_break(name):
    model = BUILDERS[name]().train()
    if name == 'resnet':
        model.norm_eval = True
        model.train()
    x = torch.randn(1, 3, 40, 36)
    compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
    parameters = list(model.parameters())
    results = []
    for run in (model, compiled):
        outs = run(x)
        results.append([*outs, *torch.autograd.grad(sum(y.mean() for y in outs), parameters)])
    for a, e in zip(*results):
        torch.testing.assert_close(a, e, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(torch.__version__ < (2, 4), reason='no registered operator before')
def test_a_compiled_backbone_does_not_write_into_kept_memory():
    """A graph would hold memory that other calls write to."""
    model = resnet().eval()
    x = torch.randn(1, 3, 40, 36)
    with torch.no_grad():
        expected = model(x)
        scratch._kept.__dict__.clear()
        compiled = torch.compile(model, backend='aot_eager', fullgraph=True)
        for out, e in zip(compiled(x), expected):
            torch.testing.assert_close(out, e, rtol=1e-3, atol=1e-4)
    assert 'projection' not in scratch._kept.__dict__


@pytest.mark.parametrize('whole_too', [False, True])
def test_layers_deployed_alone_keep_their_norms(whole_too, relative_error):
    model = resnet().eval()
    x = torch.randn(1, 3, 40, 36)
    with torch.no_grad():
        expected = model(x)
        for module in model.modules():
            if isinstance(module, ACmix):
                module.switch_to_deploy()
        if whole_too:
            model.switch_to_deploy()
        for out, e in zip(model(x), expected):
            assert relative_error(out, e) < 1e-5


@pytest.mark.parametrize('training', [True, False])
def test_activation_checkpointing_of_blocks(training):
    activation_checkpointing = pytest.importorskip('mmengine.runner.activation_checkpointing')
    model = resnet().train(training)
    other = deepcopy(model)
    activation_checkpointing.turn_on_activation_checkpointing(other, [f'layer{i}.0' for i in range(1, 5)])
    x = torch.randn(2, 3, 40, 36)
    results = []
    for run in (model, other):
        outs = run(x)
        sum(y.mean() for y in outs).backward()
        results.append([*outs, *(parameter.grad for parameter in run.parameters())])
    for a, e in zip(*results):
        torch.testing.assert_close(a, e)


@pytest.mark.parametrize('build', [resnet, san])
def test_fuse_conv_bn_of_mmcv(build, relative_error):
    model = build().eval()
    x = torch.randn(1, 3, 40, 36)
    with torch.no_grad():
        expected = model(x)
        for out, e in zip(fuse_conv_bn(deepcopy(model))(x), expected):
            assert relative_error(out, e) < 1e-4
