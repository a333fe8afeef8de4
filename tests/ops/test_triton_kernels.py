"""The Triton kernels against the definition in float64: on a GPU where there is one, else in Triton's interpreter."""

import importlib
import math
import os
import subprocess
import sys

import pytest
import torch

from mmacmix.ops import packed_local_attention
from mmacmix.ops.reference import local_attention_reference
from mmacmix.ops.window import Window

kernels = pytest.importorskip('mmacmix.ops.triton_kernels', exc_type=ImportError)  # see conftest.py
INTERPRETED = not torch.cuda.is_available()
if INTERPRETED and not kernels.INTERPRETED:
    pytest.skip('triton was imported for compilation before', allow_module_level=True)

DEVICE = 'cpu' if INTERPRETED else 'cuda'
DTYPES = dict(fp32=torch.float32, tf32=torch.float32, fp16=torch.float16, bf16=torch.bfloat16)


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    """Triton looks at the variable again at the first launch; the precision of products is put back."""
    if INTERPRETED:
        monkeypatch.setenv('TRITON_INTERPRET', '1')
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def choose(precision):
    torch.set_float32_matmul_precision('high' if precision == 'tf32' else 'highest')
    return DTYPES[precision]


def make(shape, stride, dtype, position=True):
    """q, k, v, the position code and the gradient of the output."""
    shapes = [shape] * 3 + [shape[2:], (*shape[:3], *(math.ceil(n / stride) for n in shape[3:]))]
    tensors = [torch.randn(s).to(DEVICE, dtype) for s in shapes]
    if not position:
        tensors[3] = None
    return tensors


def expected(q, k, v, position, grad, window, dtype):
    """Output and the gradients of q, k, v and position by the definition, computed in ``dtype``."""
    leaves = [x.to(dtype).detach().clone().requires_grad_() for x in (q, k, v)]
    code = torch.zeros_like(q[0, 0]) if position is None else position
    code = code.to(dtype).detach().clone().requires_grad_()
    out = local_attention_reference(leaves[0], leaves[1] - code, leaves[2], *window)
    out.backward(grad.to(dtype))
    return [out.detach(), *(x.grad for x in leaves), code.grad]


def nan_like(x):
    return torch.full_like(x, math.nan)


def actual(q, k, v, position, grad, window, buffers=None):
    """The same by the kernels, into buffers that start as NaN."""
    out, *grads = buffers or (nan_like(grad), nan_like(q), nan_like(k), nan_like(v))
    log_sum = kernels.forward(q, k, v, position, window, out)
    kernels.backward(grad, q, k, v, position, out, log_sum, window, *grads)
    return [out, *grads, -grads[1].float().sum((0, 1))]


def check(tensors, window, precision, buffers=None):
    dtype = DTYPES[precision]
    results = actual(*tensors, window, buffers)
    exact = expected(*tensors, window, torch.float64)
    # TF32 has the mantissa of float16; the interpreter computes it as float32.
    if precision == 'tf32' and not INTERPRETED:
        dtype = torch.float16
    plain = expected(*tensors, window, dtype)
    floor = tensors[-1].double().norm()  # a gradient may be exactly 0, as on a map of one pixel
    for name, a, p, e in zip('out q k v position'.split(), results, plain, exact):
        size = torch.maximum(e.norm(), floor)
        error, allowed = (((x.double() - e).norm() / size).item() for x in (a, p))
        assert error <= 2 * allowed + 5e-7, f'{name}: error {error:.2e}, of the definition {allowed:.2e}'


def skip_bfloat16(precision):
    if precision == 'bf16' and INTERPRETED:
        pytest.skip("Triton's interpreter multiplies the bit patterns of bfloat16 matrices")


# size, d, kernel_size, stride, dilation
GEOMETRIES = [
    ((8, 8), 16, 7, 1, 1),
    ((1, 1), 8, 5, 1, 1),
    ((1, 6), 8, 5, 2, 1),
    ((2, 3), 8, 5, 1, 1),
    ((4, 5), 3, 1, 1, 1),
    ((5, 7), 24, 5, 2, 1),
    ((7, 4), 32, 7, 2, 1),
    ((12, 10), 8, 3, 1, 1),
    ((12, 19), 64, 3, 1, 1),
    ((3, 5), 128, 3, 1, 1),
]
TAPS_ONLY = [
    ((9, 7), 8, 3, 3, 1),
    ((7, 5), 8, 3, 1, 2),
    ((5, 6), 8, 3, 2, 3),
    ((3, 4), 8, 5, 1, 3),
]


@pytest.mark.parametrize('precision', ['fp32', 'tf32'])
@pytest.mark.parametrize('size, d, kernel_size, stride, dilation', GEOMETRIES)
def test_equals_the_definition(precision, size, d, kernel_size, stride, dilation):
    dtype = choose(precision)
    check(make((1, 1, d, *size), stride, dtype), Window(kernel_size, stride, dilation, d**-0.5), precision)


@pytest.mark.parametrize('size, d, kernel_size, stride, dilation', TAPS_ONLY)
def test_windows_with_few_common_keys(size, d, kernel_size, stride, dilation):
    window = Window(kernel_size, stride, dilation, d**-0.5)
    for precision in ('tf32', 'fp16'):
        launch = kernels.choose_launch('forward', DTYPES[precision], d, True, window, True)
        assert launch.kernel is kernels.forward_taps
    check(make((1, 1, d, *size), stride, choose('fp32')), window, 'fp32')


@pytest.mark.parametrize('precision', ['fp16', 'bf16'])
@pytest.mark.parametrize('size, d, stride', [((9, 6), 16, 1), ((5, 7), 64, 2), ((3, 2), 8, 1)])
def test_half_precision(precision, size, d, stride):
    skip_bfloat16(precision)
    check(make((2, 1, d, *size), stride, choose(precision)), Window(5, stride, 1, d**-0.5), precision)


@pytest.mark.parametrize('precision', ['fp16', 'bf16'])
def test_half_precision_by_taps(precision):
    check(make((1, 2, 8, 3, 5), 1, choose(precision)), Window(3, 1, 2, 8**-0.5), precision)


@pytest.mark.parametrize('size', [(2, 2), (3, 1), (4, 4), (5, 6), (6, 3), (7, 7), (8, 5)])
def test_small_maps(size):
    """The tiles, whose keys collect from several reflections, with the window of the paper."""
    check(make((1, 1, 8, *size), 1, choose('tf32')), Window(7, 1, 1, 8**-0.5), 'tf32')


def test_tiles_inside_of_the_map():
    check(make((1, 1, 8, 18, 19), 1, choose('tf32')), Window(3, 1, 1, 8**-0.5), 'tf32')


@pytest.mark.parametrize('precision', ['fp32', 'tf32'])
def test_scale_and_no_position(precision):
    dtype = choose(precision)
    check(make((2, 2, 8, 4, 5), 1, dtype, position=False), Window(3, 1, 1, -1.3), precision)


@pytest.mark.parametrize('precision', ['fp32', 'tf32'])
def test_any_strides(precision):
    """Parts of one packed channels_last projection, permuted and sliced buffers, an expanded gradient."""
    dtype = choose(precision)
    packed = torch.randn(2, 3 * 2 * 6, 5, 7).to(DEVICE, dtype).to(memory_format=torch.channels_last)
    q, k, v = packed.unflatten(1, (3, 2, 6)).unbind(1)
    position = torch.randn(7, 5, 12).to(DEVICE, dtype).permute(2, 1, 0)[::2]
    grad = torch.randn(2, 2, 6, 1, 1).to(DEVICE, dtype).expand(2, 2, 6, 3, 4)
    out = torch.full((4, 3, 6, 2, 2), math.nan, dtype=dtype, device=DEVICE).permute(4, 3, 2, 1, 0)
    whole = torch.full((2, 5, 14, 36), math.nan, dtype=dtype, device=DEVICE)
    grads = whole.permute(0, 3, 1, 2)[..., ::2].unflatten(1, (3, 2, 6)).unbind(1)
    assert not any(x.is_contiguous() for x in (q, k, v, position, grad, out, *grads))
    check([q, k, v, position, grad], Window(3, 2, 1, 0.5), precision, [out, *grads])
    assert whole[:, :, 1::2].isnan().all()  # nothing is written beside the buffers


def test_strides_of_a_dilated_window():
    """Its gradients take another way, over padded buffers."""
    q, k, v, position, grad = make((1, 2, 4, 5, 6), 1, choose('fp32'))
    q, k, v = (x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in (q, k, v))
    check([q, k, v, position, grad], Window(3, 1, 2, 0.5), 'fp32')


@pytest.mark.parametrize('precision', ['fp32', 'tf32'])
def test_offsets_of_64_bits(precision, monkeypatch):
    dtype = choose(precision)
    choose_launch = kernels.choose_launch
    monkeypatch.setattr(kernels, 'choose_launch', lambda *args: choose_launch(*args[:-1], True))
    check(make((1, 1, 8, 4, 5), 1, dtype), Window(3, 1, 1, 0.3), precision)


@pytest.mark.parametrize('precision', ['fp32', 'tf32'])
def test_repeats_are_bitwise_equal(precision):
    tensors = make((1, 1, 8, 3, 9), 1, choose(precision))
    for a, b in zip(*(actual(*tensors, Window(3, 1, 1, 0.4)) for _ in range(2))):
        assert torch.equal(a, b)


@pytest.mark.parametrize('precision', ['fp32', 'tf32'])
def test_log_sum(precision):
    q, k, v, _, grad = make((1, 2, 8, 4, 5), 1, choose(precision))
    log_sum = kernels.forward(q, k, v, None, Window(1, 1, 1, 0.4), nan_like(grad))
    assert log_sum.dtype == torch.float32
    # A window of one pixel has one logit.
    tolerance = 1e-5 if precision == 'fp32' or INTERPRETED else 1e-2
    torch.testing.assert_close(log_sum, 0.4 * (q * k).sum(2), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize('precision', ['fp32', 'tf32'])
def test_huge_logits(precision):
    q, k, v, position, grad = make((1, 1, 8, 4, 6), 1, choose(precision))
    tensors = [1e4 * q, 1e4 * k, v, position, grad]
    window = Window(3, 1, 1, 8**-0.5)
    results = actual(*tensors, window)
    assert all(x.isfinite().all() for x in results)
    if INTERPRETED or precision == 'fp32':
        # Each query takes the value of its best key alone.
        exact = expected(*tensors, window, torch.float64)
        torch.testing.assert_close(results[0].double(), exact[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('precision', ['fp32', 'tf32'])
def test_probabilities_are_bounded(precision):
    """Where logits of 1e9 are rounded a few bits differently in the two passes, their difference may be 1000."""
    q, k, v, position, grad = make((1, 1, 8, 3, 5), 1, choose(precision))
    window = Window(3, 1, 1, 8**-0.5)
    out, *grads = nan_like(grad), *(nan_like(x) for x in (q, k, v))
    log_sum = kernels.forward(1e4 * q, 1e5 * k, v, position, window, out)
    log_sum = torch.where(log_sum > 0, log_sum - 1000, log_sum)
    kernels.backward(grad, 1e4 * q, 1e5 * k, v, position, out, log_sum, window, *grads)
    # A pixel is read by 9 queries, and by one of them at most 4 times.
    assert grads[2].abs().max() <= 36 * grad.abs().max()


def test_empty_batch():
    q, k, v, position, grad = make((0, 2, 8, 4, 6), 1, torch.float32)
    for code in (position, None):
        out, *grads, _ = actual(q, k, v, code, grad, Window(3, 1, 1, 0.4))
        assert out.shape == grad.shape and all(x.shape == q.shape for x in grads)


def test_a_launch_that_fails_names_the_way_round(monkeypatch):
    class Kernel:
        def __getitem__(self, grid):
            raise OSError('no C compiler')

    launch = kernels.Launch(Kernel(), dict(TILE_H=8, TILE_W=8))
    monkeypatch.setattr(kernels, 'choose_launch', lambda *args: launch)
    with pytest.raises(RuntimeError, match=r'OSError: no C compiler.*MMACMIX_BACKEND=tiled') as caught:
        actual(*make((1, 1, 4, 3, 3), 1, torch.float32), Window(3, 1, 1, 0.5))
    assert isinstance(caught.value.__cause__, OSError)


def test_unavailable(monkeypatch):
    device = torch.device(DEVICE)
    assert kernels.unavailable(torch.float32, device, 16) is None
    reason = kernels.unavailable(torch.float64, device, 16)
    assert reason.endswith('float32, float16 or bfloat16, got torch.float64')
    reason = kernels.unavailable(torch.float32, device, 129)
    assert reason == 'the Triton kernels take 1 to 128 channels per head, got 129'
    monkeypatch.setattr(kernels, 'INTERPRETED', False)
    reason = kernels.unavailable(torch.float32, torch.device('cpu'), 16)
    assert reason == 'the Triton kernels run on NVIDIA GPUs, got a tensor on cpu'


@pytest.mark.parametrize('stride', [1, 2])
def test_as_the_operator(stride, relative_error):
    """Through the public function, with autograd: packed in pixel order, as the layers call it."""
    qkv = torch.randn(2, 5, 6, 8, 3, 2, device=DEVICE).permute(0, 4, 5, 3, 1, 2).requires_grad_()
    position = torch.randn(8, 5, 6, device=DEVICE, requires_grad=True)
    results = []
    for backend in ('triton', 'reference'):
        out = packed_local_attention(qkv, 3, stride, position=position, backend=backend)
        results.append([out, *torch.autograd.grad(out.square().sum(), (qkv, position))])
    assert results[0][1].stride() == qkv.stride()
    for a, e in zip(*results):
        assert relative_error(a, e) < 1e-5


@pytest.mark.parametrize('setting', ['old', 'new'])
def test_precision_of_products_by_either_setting(setting):
    """The old setting raises an error when read after the new one was set, so a fresh process each."""
    change = 'allow_tf32 = True' if setting == 'old' else "fp32_precision = 'tf32'"
    if setting == 'new' and not hasattr(torch.backends.cuda.matmul, 'fp32_precision'):
        pytest.skip(f'torch {torch.__version__} has the old setting only')
    run_python(
        'import torch\n'
        'from mmacmix.ops.triton_kernels import allows_tf32\n'
        'assert not allows_tf32()\n'
        f'torch.backends.cuda.matmul.{change}\n'
        'assert allows_tf32()\n'
    )


COMPILE = """
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from mmacmix.ops.triton_kernels import choose_launch
from mmacmix.ops.window import Window

def build(part, precision, dtype, d, pointer):
    launch = choose_launch(part, dtype, d, True, Window(7, 1, 1, d**-0.5), precision == 'tf32')
    constants = dict(launch.constants, folds_y=1, folds_x=1, q_x=1, k_x=1, v_x=1)
    names = ('num_warps', 'num_stages', 'enable_fp_fusion')
    options = {name: constants.pop(name) for name in names if name in constants}
    signature = dict.fromkeys(launch.kernel.arg_names, 'i32')
    for name in signature:
        if name in constants:
            signature[name] = 'constexpr'
        elif name in ('log_sum', 'delta'):
            signature[name] = '*fp32'
        elif name == 'scale':
            signature[name] = 'fp32'
        elif name in ('q', 'k', 'v', 'position', 'out', 'grad', 'grad_q', 'grad_k', 'grad_v'):
            signature[name] = pointer
    source = ASTSource(fn=launch.kernel, signature=signature, constexprs=constants)
    compiled = compile(source, target=GPUTarget('cuda', CAPABILITY, 32), options=options)
    assert 'cubin' in compiled.asm
    assert compiled.metadata.shared <= 99 * 1024, (part, precision, d, compiled.metadata.shared)

for precision, d in VARIANTS:
    dtype, pointer = {'fp16': (torch.float16, '*fp16'), 'bf16': (torch.bfloat16, '*bf16')}.get(
        precision, (torch.float32, '*fp32')
    )
    for part in ('forward', 'grad_queries', 'grad_keys'):
        build(part, precision, dtype, d, pointer)
"""


def run_python(code):
    environment = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    result = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize(
    'capability, variants',
    [
        (80, [('tf32', 128), ('fp16', 16)]),
        (90, [('fp32', 32), ('bf16', 64), ('tf32', 16)]),
    ],
)
def test_compiles(capability, variants):
    """What the interpreter accepts the compiler may not; and shared memory must do for consumer cards, 99 KiB."""
    if 'nvidia' not in importlib.import_module('triton.backends').backends:
        pytest.skip('this triton has no compiler for NVIDIA GPUs')
    run_python(f'CAPABILITY = {capability}\nVARIANTS = {variants}\n{COMPILE}')
