import pytest
import torch

from mmacmix.ops.reflection import fold_reflection, pad_reflection, reflection_index


@pytest.mark.parametrize('size', [(4, 4), (5, 9), (12, 7)])
def test_equals_reflection_pad_where_that_is_defined(size):
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(pad_reflection(x, 3), torch.nn.ReflectionPad2d(3)(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    'length, pad, expected',
    [
        (1, 2, [0, 0, 0, 0, 0]),
        (2, 3, [1, 0, 1, 0, 1, 0, 1, 0]),
        (3, 4, [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]),
        (4, 0, [0, 1, 2, 3]),
    ],
)
def test_goes_on_beyond_the_map(length, pad, expected):
    assert reflection_index(length, pad).tolist() == expected


@pytest.mark.parametrize('length', [1, 2, 3, 7])
@pytest.mark.parametrize('pad', [0, 1, 3, 8])
def test_fold_is_the_transpose_of_reading(length, pad):
    x = torch.randn(2, length, 3, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(2, length + 2 * pad, 3, dtype=torch.float64)
    x.index_select(1, reflection_index(length, pad)).backward(grad)
    torch.testing.assert_close(fold_reflection(grad, 1, length, pad), x.grad)


def test_fold_takes_an_extended_axis():
    grad = torch.randn(11, dtype=torch.float64)
    extended = torch.cat([grad, torch.full((4,), float('nan'), dtype=torch.float64)])
    torch.testing.assert_close(fold_reflection(extended, 0, 5, 3), fold_reflection(grad, 0, 5, 3))
