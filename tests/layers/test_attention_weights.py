"""Weights of attention for one pixel: against the definition, and against what the attention path makes of them."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmacmix.layers import ACmix, PatchwiseACmix, SpatialReductionACmix, WindowACmix
from mmacmix.ops.reflection import reflection_index

torch.manual_seed(0)


def randomised(layer):
    """In float64 and evaluation, with parameters that are far from their start."""
    layer = layer.double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.4)
        for name, buffer in layer.named_buffers():
            if name.endswith('running_mean'):
                buffer.copy_(torch.randn_like(buffer))
            if name.endswith('running_var'):
                buffer.copy_(torch.rand_like(buffer) + 0.5)
    return layer


def maps(layer, height, width, channels, batch=2):
    size = (batch, height, width, channels) if layer.channels_last else (batch, channels, height, width)
    return torch.randn(size, dtype=torch.float64)


@pytest.mark.parametrize('stride, dilation, size', [(1, 1, (9, 12)), (2, 1, (9, 12)), (1, 2, (11, 5)), (1, 1, (2, 3))])
@pytest.mark.parametrize('pixel', [(0, 0), (1, 2), (-1, -1)])
def test_local_weights_are_the_softmax_of_the_window(stride, dilation, size, pixel):
    layer = randomised(ACmix(6, 8, num_heads=2, stride=stride, dilation=dilation))
    x = maps(layer, *size, 6)
    rows, cols = layer.output_shape(x.shape)[2:]
    row, col = pixel[0] % rows, pixel[1] % cols
    whole = F.pad(x, (0, -size[1] % stride, 0, -size[0] % stride), mode='replicate')
    q, k = (conv(whole).unflatten(1, (2, 4)) for conv in (layer.conv1, layer.conv2))
    k = k - layer.position_code(whole)
    expected = torch.zeros(2, 2, *size, dtype=torch.float64)
    index = [reflection_index(n, 3 * dilation).tolist() for n in whole.shape[2:]]
    for image in range(2):
        for head in range(2):
            read = [
                (index[0][row * stride + i * dilation], index[1][col * stride + j * dilation])
                for i in range(7)
                for j in range(7)
            ]
            query = q[image, head, :, row * stride, col * stride]
            logits = torch.stack([query @ k[image, head, :, y, z] for y, z in read]) / math.sqrt(4)
            for (y, z), weight in zip(read, logits.softmax(0)):
                expected[image, head, min(y, size[0] - 1), min(z, size[1] - 1)] += weight
    torch.testing.assert_close(layer.attention_weights(x, row, col), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize('shift, size, pixel', [(0, (8, 12), (3, 5)), (2, (9, 13), (0, 0)), (2, (9, 13), (8, 12)),
                                                (2, (4, 9), (1, 1)), (1, (3, 2), (2, 1))])
def test_weights_of_windows_give_the_output(shift, size, pixel):
    layer = randomised(WindowACmix(6, 3, window_size=4, shift_size=shift, paths=('attention',)))
    x = maps(layer, *size, 6)
    weights = layer.attention_weights(x, *pixel)
    values = layer.qkv(x)[..., 12:].unflatten(3, (3, 2))
    mixed = torch.einsum('bnyx,byxnd->bnd', weights, values).flatten(1)
    # Zeros that fill up windows have the values of the bias.
    left = (1 - weights.sum((2, 3))).unsqueeze(2) * layer.qkv.bias[12:].view(3, 2)
    expected = layer(x)[:, pixel[0], pixel[1]]
    torch.testing.assert_close(layer.proj(mixed + left.flatten(1)), expected, rtol=1e-9, atol=1e-9)
    assert weights.min() >= 0 and weights.sum((2, 3)).max() <= 1 + 1e-9


def test_shifted_windows_do_not_see_across_the_seam():
    layer = randomised(WindowACmix(4, 2, window_size=4, shift_size=2, paths=('attention',)))
    weights = layer.attention_weights(maps(layer, 8, 8, 4), 0, 7)
    # Upper right corner: after the shift its window is made of all four corners, barred from one another.
    assert torch.all(weights[:, :, :2, 6:] > 0)
    weights[:, :, :2, 6:] = 0
    assert weights.max() < 1e-30


@pytest.mark.parametrize('ratio, size', [(1, (5, 6)), (2, (6, 8)), (2, (7, 9)), (4, (3, 9))])
def test_weights_of_a_reduced_map_give_the_output(ratio, size):
    layer = randomised(SpatialReductionACmix(6, 3, sr_ratio=ratio, paths=('attention',)))
    x = maps(layer, *size, 6)
    weights = layer.attention_weights(x, 1, 2)
    assert weights.shape == (2, 3, *size) and weights.min() >= 0
    whole = all(n >= ratio for n in size)
    if whole:
        torch.testing.assert_close(weights.sum((2, 3)), torch.ones(2, 3, dtype=torch.float64))
    padded = F.pad(weights, (0, -size[1] % ratio, 0, -size[0] % ratio))
    shares = padded[:, :, ::ratio, ::ratio] * ratio**2
    values = layer.kv(layer._reduce(x))[..., 6:].unflatten(3, (3, 2))
    shares = shares[:, :, : values.size(1), : values.size(2)]
    mixed = torch.einsum('bnyx,byxnd->bnd', shares, values).flatten(1)
    torch.testing.assert_close(layer.proj(mixed), layer(x)[:, 1, 2], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize('size, pixel', [((9, 8), (4, 3)), ((9, 8), (0, 7)), ((2, 1), (1, 0))])
def test_weights_of_patches_give_the_output(size, pixel):
    layer = randomised(PatchwiseACmix(64, paths=('attention',)))
    x = maps(layer, *size, 64)
    weights = layer.attention_weights(x, *pixel)
    assert weights.shape == (2, 2, *size)
    values = layer.conv3(x).unflatten(1, (8, 2))  # groups innermost
    mixed = torch.einsum('bgyx,bsgyx->bsg', weights, values).flatten(1)
    torch.testing.assert_close(mixed, layer(x)[:, :, pixel[0], pixel[1]], rtol=1e-9, atol=1e-9)


LAYERS = {
    'convolutional': lambda **options: ACmix(8, 8, stride=2, **options),
    'window': lambda **options: WindowACmix(8, 2, **options),
    'reduced': lambda **options: SpatialReductionACmix(8, 2, **options),
    'patchwise': lambda **options: PatchwiseACmix(32, **options),
}


@pytest.mark.parametrize('kind', LAYERS)
def test_what_cannot_be_asked(kind):
    layer = LAYERS[kind]().double().eval()
    x = maps(layer, 9, 6, 32 if kind == 'patchwise' else 8)
    rows, cols = (5, 3) if kind == 'convolutional' else (9, 6)
    with torch.no_grad():
        assert layer.attention_weights(x, rows - 1, cols - 1).shape[2:] == (9, 6)
    with pytest.raises(ValueError, match=rf'row must be an integer in \[0, {rows}\), got row={rows}'):
        layer.attention_weights(x, rows, 0)
    with pytest.raises(ValueError, match=r'col must be an integer in \[0, \d\), got col=-1'):
        layer.attention_weights(x, 0, -1)
    with pytest.raises(ValueError, match="path 'attention'.*got paths=.'convolution',.$"):
        LAYERS[kind](paths=('convolution',)).double().attention_weights(x, 0, 0)
    layer.switch_to_deploy()
    with pytest.raises(ValueError, match='before switch_to_deploy.*after it'):
        layer.attention_weights(x, 0, 0)


@pytest.mark.parametrize('kind', LAYERS)
def test_asking_changes_nothing(kind):
    layer = LAYERS[kind]().double().eval()
    x = maps(layer, 9, 6, 32 if kind == 'patchwise' else 8).requires_grad_()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    weights = layer.attention_weights(x, 0, 0)
    assert not weights.requires_grad and x.grad is None
    assert all(p.grad is None for p in layer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
