"""tools/setup/make_core.py: what it refuses, and what it installs. Nothing is installed here."""
from pathlib import Path

import pytest


@pytest.fixture()
def make_core(load_tool, monkeypatch):
    return load_tool('setup/make_core', monkeypatch)


@pytest.mark.parametrize('version', ['', '1.13.1', '2.0', 'nightly', '../2.0.1'])
def test_no_release_of_torch(make_core, monkeypatch, version):
    monkeypatch.setenv('TORCH', version)
    with pytest.raises(make_core.InstallError, match='TORCH must be a release of torch from 2.0.0 on, .* got TORCH='):
        make_core.main()


def installed(make_core, monkeypatch, tmp_path, version):
    commands = []
    monkeypatch.setattr(make_core, 'run_step', lambda title, command: commands.append(command))
    make_core.make_environment(tmp_path / 'venv', version)
    return commands


def test_old_torch_gets_the_first_numpy(make_core, monkeypatch, tmp_path):
    commands = installed(make_core, monkeypatch, tmp_path, '2.0.1')
    assert 'torch==2.0.1' in commands[1] and 'numpy<2' in commands[1]
    assert {'torch==2.0.1', 'mmengine==0.10.7', 'mmcv-lite==2.1.0'} <= set(commands[2])
    assert 'numpy' in installed(make_core, monkeypatch, tmp_path, '2.13.0')[1]


def test_made_once(make_core, monkeypatch, tmp_path):
    made = []

    def make(venv, version):
        (venv / 'bin').mkdir(parents=True)
        (venv / 'bin' / 'python').touch()
        made.append((venv, version))

    monkeypatch.setattr(make_core, 'ROOT', tmp_path)
    monkeypatch.setattr(make_core, 'environment_key', lambda venv: 'key')
    monkeypatch.setattr(make_core, 'make_environment', make)
    monkeypatch.setenv('TORCH', '2.4.0')
    make_core.main()
    make_core.main()
    assert made == [(Path(tmp_path) / '.venv-torch-2.4.0', '2.4.0')]
