"""Which implementation runs, and who decides."""

import sys
from types import SimpleNamespace

import pytest
import torch

from mmacmix.ops import local_attention, packed_local_attention, use_backend

backends = sys.modules['mmacmix.ops.backends']


@pytest.fixture(autouse=True)
def _triton_is_asked_for_again():
    backends._why_no_import.cache_clear()
    yield
    backends._why_no_import.cache_clear()


@pytest.fixture
def ran(monkeypatch):
    """Names of the backends that ran, in order."""
    names = []
    module = sys.modules['mmacmix.ops.local_attention']

    def note(q, backend):
        names.append(backends.choose(q, backend))
        return names[-1]

    monkeypatch.setattr(module, 'choose', note)
    monkeypatch.delenv(backends.ENVIRONMENT_VARIABLE, raising=False)
    return names


def attend(**options):
    x = torch.randn(1, 1, 2, 5, 5)
    return local_attention(x, x, x, **options)


def test_argument_before_context_before_environment(ran, monkeypatch):
    attend()
    monkeypatch.setenv('MMACMIX_BACKEND', 'reference')
    attend()
    with use_backend('tiled'):
        attend()
        attend(backend='reference')
        with use_backend('auto'):
            attend()
    packed_local_attention(torch.randn(1, 3, 1, 2, 5, 5))
    assert ran == ['tiled', 'reference', 'tiled', 'reference', 'reference', 'reference']


def test_context_ends_with_an_error(ran):
    with pytest.raises(KeyError), use_backend('reference'):
        raise KeyError
    attend()
    assert ran == ['tiled']


def test_unknown_names(monkeypatch):
    with pytest.raises(ValueError, match=r"name must be 'auto' or one of .*, got name='cudnn'"), use_backend('cudnn'):
        pass
    monkeypatch.setenv('MMACMIX_BACKEND', 'cudnn')
    with pytest.raises(ValueError, match="MMACMIX_BACKEND must be 'auto' or one of .*, got MMACMIX_BACKEND='cudnn'"):
        attend()


def test_named_backend_never_falls_back(monkeypatch):
    monkeypatch.setitem(backends.MODULES, 'triton', 'mmacmix.ops.no_such_module')
    with pytest.raises(RuntimeError, match="backend='triton' cannot run: triton cannot be imported"):
        attend(backend='triton')
    with use_backend('triton'), pytest.raises(RuntimeError, match="backend='triton' cannot run"):
        attend()


def test_an_import_that_fails_is_tried_once(monkeypatch):
    tried = []

    def fail(name):
        tried.append(name)
        raise ImportError('no such thing')

    monkeypatch.setattr(backends, 'implementation', fail)
    reasons = {backends.why_not('triton', torch.float32, torch.device('cuda'), 8) for _ in range(3)}
    assert tried == ['triton'] and len(reasons) == 1 and 'no such thing' in reasons.pop()


def test_older_triton_is_none(monkeypatch):
    for name in ('triton_kernels', 'triton_backward', 'triton_forward'):
        monkeypatch.delitem(sys.modules, f'mmacmix.ops.{name}', raising=False)
    older = SimpleNamespace(__version__='2.3.1', language=SimpleNamespace())
    monkeypatch.setitem(sys.modules, 'triton', older)
    monkeypatch.setitem(sys.modules, 'triton.language', older.language)
    reason = backends.why_not('triton', torch.float32, torch.device('cuda'), 8)
    assert reason.startswith('triton cannot be imported (the kernels need triton 3.0 or later')
    assert 'got triton 2.3.1' in reason


def test_triton_says_why_it_cannot(monkeypatch):
    kernels = pytest.importorskip('mmacmix.ops.triton_kernels', exc_type=ImportError)
    monkeypatch.setattr(kernels, 'INTERPRETED', False)
    with pytest.raises(RuntimeError, match="backend='triton' cannot run: .* NVIDIA GPUs, got a tensor on cpu"):
        attend(backend='triton')
