"""What tests of several areas share."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    # Kernels, and Triton's own functions, are made for its interpreter, or for a GPU, when they are imported: before
    # any test does.
    with pytest.MonkeyPatch.context() as _patch:
        _patch.setenv('TRITON_INTERPRET', '1')
        from mmacmix.ops.backends import why_not

        why_not('triton', torch.float32, torch.device('cpu'), 8)


def pytest_addoption(parser):
    parser.addoption('--nightly', action='store_true', help='run the long tests too, and more cases of the random ones')


def pytest_configure(config):
    config.addinivalue_line('markers', 'nightly: takes minutes; runs with --nightly only')


def pytest_collection_modifyitems(config, items):
    if not config.getoption('--nightly'):
        for item in items:
            if item.get_closest_marker('nightly'):
                item.add_marker(pytest.mark.skip(reason='runs with --nightly only'))


def pytest_terminal_summary(terminalreporter):
    """What tests recorded as 'cases': how many they saw, and the figures for docs/reliability.md."""
    for report in terminalreporter.getreports('passed'):
        for name, value in report.user_properties:
            if name == 'cases' and report.when == 'call':
                terminalreporter.write_line(value)


GOLDEN = Path(__file__).parent / 'data' / 'golden'


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Golden:
    """Figures of the released code: cases (json), arrays (npz), and the recipe of weights and inputs."""

    def __init__(self, name):
        listing = json.loads((GOLDEN / f'{name}.json').read_text())
        self.seed = listing['seed']
        self.cases = listing.get('cases') or listing['models']
        self.arrays = np.load(GOLDEN / f'{name}.npz')

    def array(self, name, shape):
        generator = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        return generator.standard_normal(tuple(shape)).astype(np.float32)

    def state_dict(self, shapes):
        """Weights by the official names; entries that a constructor makes are left out."""
        made = ('relative_position_index', 'attn_mask', 'num_batches_tracked')
        return {k: torch.from_numpy(self._value(k, s)) for k, s in shapes.items() if not k.endswith(made)}

    def _value(self, key, shape):
        a = self.array(key, shape)
        if key.endswith('running_var'):
            return 0.5 + np.abs(a)
        if key.endswith(('rate1', 'rate2')):
            return 0.5 + 0.1 * a
        if len(shape) >= 2:
            return a / np.sqrt(np.prod(shape[1:])).astype(np.float32)
        if key.endswith('weight'):
            return 1 + 0.1 * a
        return 0.1 * a


@pytest.fixture(scope='session')
def golden_modules():
    return Golden('public_modules')


@pytest.fixture(scope='session')
def golden_models():
    return Golden('public_models')


def relative_error(actual, expected):
    actual, expected = (
        x.detach().double().cpu() if isinstance(x, torch.Tensor) else torch.from_numpy(x).double()
        for x in (actual, expected)
    )
    return ((actual - expected).norm() / expected.norm()).item()


@pytest.fixture(name='relative_error', scope='session')
def _relative_error():
    """||actual - expected|| / ||expected||"""
    return relative_error


@pytest.fixture(autouse=True)
def _half_on_cpu(request):
    """Before 2.6 torch could not compute much in float16 on a CPU."""
    params = getattr(request.node, 'callspec', None)
    if params and torch.float16 in params.params.values() and torch.__version__ < (2, 6):
        pytest.skip(f'torch {torch.__version__} has no float16 on CPUs')
