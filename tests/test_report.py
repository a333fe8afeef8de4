"""`python -m mmacmix.report`: complete on a sound environment, and just as complete on a broken one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mmacmix
from mmacmix import report
from mmacmix.ops.backends import BACKENDS


def sections(text):
    """Rows of the report by title and name."""
    found, title = {}, None
    for line in text.splitlines()[2:]:
        if line.startswith('  '):
            name, value = line.split(None, 1)
            found[title][name] = value
        elif line:
            title = line.rstrip(':')
            found[title] = {}
    return found


def test_command(tmp_path):
    env = dict(os.environ, PYTHONPATH=str(Path(mmacmix.__file__).parents[1]), PYTHONWARNINGS='ignore')
    command = [sys.executable, '-m', 'mmacmix.report']
    result = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f'mmacmix {mmacmix.__version__} in {Path(mmacmix.__file__).parent}\n')
    found = sections(result.stdout)
    assert found['devices']['torch'].startswith(torch.__version__)
    implementations = found['implementations of local attention']
    assert list(implementations)[:-1] == list(BACKENDS)
    assert implementations['reference'].startswith('runs on ') and implementations['tiled'].startswith('runs on ')
    assert found['integration']['backbones'] == 'ResNetACmix, SANACmix, PVTACmix, SwinACmix'
    for name in ('mmengine', 'mmcv', 'mmdet', 'mmseg', 'mim', 'numpy'):
        version = found['packages'][name]
        assert 'BROKEN' not in version and any(char.isdigit() for char in version), version


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_why_triton_cannot_run_without_a_gpu(monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    kernels = pytest.importorskip('mmacmix.ops.triton_kernels', exc_type=ImportError)
    monkeypatch.setattr(kernels, 'INTERPRETED', False)
    assert dict(report.backends())['triton'].startswith('cannot run: ')
    assert dict(report.devices())['GPU'] == 'none that torch can use'


def test_compiled_operators_that_do_not_fit_torch(monkeypatch):
    real = report.trouble_with

    def broken(module):
        return 'ImportError: undefined symbol' if module == 'mmcv.ops' else real(module)

    monkeypatch.setattr(report, 'trouble_with', broken)
    text = dict(report.packages())['mmcv']
    assert 'BROKEN: its compiled operators cannot be imported (ImportError: undefined symbol)' in text


def test_what_is_missing_and_what_is_broken(monkeypatch, tmp_path):
    (tmp_path / 'brokenmodule.py').write_text('raise OSError("libcuda.so is gone\\nand more")')
    (tmp_path / 'brokenmodule-7.0.dist-info').mkdir()
    (tmp_path / 'brokenmodule-7.0.dist-info' / 'METADATA').write_text('Name: brokenmodule\nVersion: 7.0\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    packages = (('brokenmodule', ('other', 'brokenmodule')), ('no_such_module', ('no-such-distribution',)))
    monkeypatch.setattr(report, 'PACKAGES', packages)
    assert dict(report.packages()) == {
        'brokenmodule': 'brokenmodule 7.0, BROKEN: OSError: libcuda.so is gone',
        'no_such_module': 'not installed',
    }


def test_backbones_that_cannot_be_imported(monkeypatch):
    monkeypatch.setattr(report, 'trouble_with', lambda module: 'ImportError: no mmcv')
    assert dict(report.integration())['backbones'] == 'cannot be imported: ImportError: no mmcv'
