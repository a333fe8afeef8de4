"""tools/setup/make_env.py: refusals, and when an environment is made, repaired or kept.

Nothing is installed here: `run_step` is replaced by a recorder.
"""
import runpy
import shutil
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture()
def steps(make_env):
    """The module of run_step; imported after make_env, whose folder is on sys.path by then."""
    import steps
    return steps


@pytest.fixture()
def checkout(make_env, monkeypatch, tmp_path):
    """A copy of what the environment depends on, in which the installation only pretends.

    `ran` lists the titles of the steps; a title that contains a key of `broken` raises or calls.
    """
    for name in ('setup.py', 'pyproject.toml', 'LICENSE', 'model-index.yml', 'requirements',
                 'configs'):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    for name in ('README.md', 'mmacmix/__init__.py', 'tools/train.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('one\n')
    venv = tmp_path / '.venv'
    monkeypatch.setattr(make_env, 'ROOT', tmp_path)
    monkeypatch.setattr(make_env, 'REQUIREMENTS', tmp_path / 'requirements')
    monkeypatch.setattr(make_env, 'VENV', venv)
    monkeypatch.setattr(make_env, 'ENV_STAMP', venv / 'environment.stamp')
    monkeypatch.setattr(make_env, 'PACKAGE_STAMP', venv / 'mmacmix.stamp')
    monkeypatch.setattr(make_env, 'check_machine', lambda: None)
    ran, commands, broken = [], [], {}

    def run_step(title, command, on_failure=None, **environment):
        ran.append(title.strip())
        commands.append(' '.join(command))
        if 'venv' in command:
            folder = Path(command[-1])
            (folder / 'bin').mkdir(parents=True)
            (folder / 'bin' / 'python').touch()
        if 'wheel' in command and '-w' in command:
            (venv / 'wheels').mkdir()
            (venv / 'wheels' / 'mmacmix-0.whl').touch()
        for part, error in list(broken.items()):
            if part in title:
                del broken[part]
                if on_failure is None:
                    raise error
                on_failure()

    monkeypatch.setattr(make_env, 'run_step', run_step)
    monkeypatch.setattr(make_env, 'site_packages', lambda python: str(Path(python).parents[1]))
    monkeypatch.setattr(make_env.subprocess, 'run', lambda *args, **kwargs: commands.append(
        ' '.join(args[0])))
    return SimpleNamespace(path=tmp_path, venv=venv, ran=ran, commands=commands, broken=broken)


def made(checkout, make_env):
    """Run make_env; return the titles of the steps of this run."""
    del checkout.ran[:], checkout.commands[:]
    make_env.main()
    return list(checkout.ran)


def test_first_run_installs_at_the_constrained_versions(checkout, make_env):
    titles = made(checkout, make_env)
    assert [title[:5] for title in titles if title.startswith('[')] == [
        f'[{step}/7]' for step in range(1, 8)]
    assert titles[-3:] == ['mmacmix: a wheel of the current sources', 'mmacmix: installing it',
                           'mmacmix: pip check']
    installs = [line for line in checkout.commands if ' install -c ' in line]
    constraints = f'{checkout.path}/requirements/constraints.txt'
    assert installs and all(f' -c {constraints} ' in line for line in installs)
    assert 'torch==2.13.0' in Path(constraints).read_text().split()
    assert any('--no-build-isolation mmcv' in line for line in installs)
    assert any('mim.txt' in line and 'tests.txt' in line for line in installs)
    # mmpretrain lies over .venv, in an environment of its own
    pretrain = checkout.venv / 'pretrain'
    assert all((str(pretrain) in line) == ('pretrain.txt' in line) for line in installs)
    assert (pretrain / 'below.pth').read_text() == f'{checkout.venv}\n'
    assert not any('index' in line for line in checkout.commands)


def test_onedl_forks_in_an_environment_of_their_own(checkout, make_env, monkeypatch):
    monkeypatch.setenv('STACK', 'onedl')
    fresh = runpy.run_path(str(ROOT / 'tools' / 'setup' / 'make_env.py'))
    assert (fresh['STACK'], fresh['VENV']) == ('onedl', ROOT / '.venv-onedl')
    monkeypatch.setattr(make_env, 'STACK', 'onedl')
    made(checkout, make_env)
    installs = [line for line in checkout.commands if ' install -c ' in line]
    assert any('--no-build-isolation onedl-mmcv' in line for line in installs)
    assert any('/onedl.txt' in line and 'tests.txt' in line for line in installs)
    assert any('/onedl-pretrain.txt' in line for line in installs)
    assert not any('/mim.txt' in line or '/pretrain.txt' in line for line in installs)
    # Another stack is another environment, though nothing else changed.
    monkeypatch.setattr(make_env, 'STACK', 'stock')
    assert made(checkout, make_env)[0].startswith('[1/7]')


def test_second_run_does_nothing(checkout, make_env):
    made(checkout, make_env)
    assert made(checkout, make_env) == []


def test_changed_sources_only_rebuild_the_wheel(checkout, make_env):
    made(checkout, make_env)
    for name in ('mmacmix/__init__.py', 'tools/train.py', 'model-index.yml', 'setup.py',
                 'configs/_base_/det_runtime.py'):
        with open(checkout.path / name, 'a') as file:
            file.write('two\n')
        titles = made(checkout, make_env)
        assert titles and all(title.startswith('mmacmix') for title in titles), name
    (checkout.path / 'tools' / 'train.py').unlink()
    assert made(checkout, make_env) != []


def test_changed_requirements_begin_again(checkout, make_env):
    made(checkout, make_env)
    (checkout.venv / 'left').touch()
    with open(checkout.path / 'requirements' / 'constraints.txt', 'a') as file:
        file.write('regex==1\n')
    assert made(checkout, make_env)[0].startswith('[1/7]')
    assert not (checkout.venv / 'left').exists()


@pytest.mark.parametrize('step', ['[1/7]', '[2/7]', '[3/7]', '[4/7]', '[5/7]', '[6/7]', '[7/7]', 'torchvision',
                                  '      pip check'])
@pytest.mark.parametrize('error', [KeyboardInterrupt, 'InstallError'])
def test_interrupted_or_failed_installation_begins_again(checkout, make_env, step, error):
    error = make_env.InstallError if error == 'InstallError' else error
    checkout.broken[step] = error
    with pytest.raises(error):
        made(checkout, make_env)
    checkout.venv.mkdir(exist_ok=True)
    (checkout.venv / 'left').touch()
    assert made(checkout, make_env)[0].startswith('[1/7]')
    assert not (checkout.venv / 'left').exists()
    assert made(checkout, make_env) == []


@pytest.mark.parametrize('step', ['a wheel of', 'installing it', 'mmacmix: pip check'])
def test_failed_installation_of_the_package_is_tried_again(checkout, make_env, step):
    made(checkout, make_env)
    (checkout.path / 'mmacmix' / '__init__.py').write_text('two\n')
    checkout.broken[step] = make_env.InstallError
    with pytest.raises(make_env.InstallError):
        made(checkout, make_env)
    assert made(checkout, make_env)[0] == 'mmacmix: a wheel of the current sources'


def test_going_back_after_a_failed_installation_of_the_package_installs_too(checkout, make_env):
    made(checkout, make_env)
    (checkout.path / 'mmacmix' / '__init__.py').write_text('two\n')
    checkout.broken['installing it'] = make_env.InstallError
    with pytest.raises(make_env.InstallError):
        made(checkout, make_env)
    (checkout.path / 'mmacmix' / '__init__.py').write_text('one\n')
    assert made(checkout, make_env)[0] == 'mmacmix: a wheel of the current sources'


def test_an_environment_without_its_python_is_made_again(checkout, make_env):
    made(checkout, make_env)
    (checkout.venv / 'bin' / 'python').unlink()
    assert made(checkout, make_env)[0].startswith('[1/7]')


def test_a_moved_environment_is_made_again(checkout, make_env, monkeypatch):
    before = make_env.environment_key()
    monkeypatch.setattr(make_env, 'VENV', checkout.path / 'elsewhere' / '.venv')
    assert make_env.environment_key() != before


def test_mmcv_of_another_torch_is_compiled_again(checkout, make_env):
    checkout.broken['nms of mmcv.ops'] = make_env.InstallError
    titles = made(checkout, make_env)
    again = titles.index('mmcv from its sdist')
    assert titles[again + 1] == 'nms of mmcv.ops'
    remove, compile_ = (next(i for i, line in enumerate(checkout.commands) if part in line)
                        for part in (' cache remove mmcv', ' --no-binary mmcv '))
    assert remove < compile_
    assert '--force-reinstall' in checkout.commands[compile_]


def test_an_unknown_stack(checkout, make_env, monkeypatch):
    monkeypatch.setattr(make_env, 'STACK', 'nightly')
    with pytest.raises(make_env.InstallError, match='STACK must be one of .*, got STACK=nightly'):
        make_env.main()


@pytest.mark.parametrize('version', [(3, 7), (3, 9), (3, 13)])
def test_python_that_mmcv_or_torch_do_not_support(make_env, monkeypatch, version):
    monkeypatch.setattr(sys, 'version_info', version + (0, 'final', 0))
    got = '.'.join(map(str, version))
    with pytest.raises(make_env.InstallError,
                       match=rf'Python must be 3\.10 to 3\.12 .*got {got} at .*make PYTHON='):
        make_env.check_machine()


def test_no_compiler(make_env, monkeypatch, tmp_path):
    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(make_env.InstallError, match=r'a C\+\+ compiler must be on PATH to compile '
                       r'mmcv, got none of c\+\+, g\+\+, clang\+\+'):
        make_env.check_machine()
    monkeypatch.setenv('CXX', 'no-such-compiler -O2')
    with pytest.raises(make_env.InstallError, match='got none of no-such-compiler'):
        make_env.check_machine()


def test_no_headers(make_env, monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, 'get_path', lambda name: str(tmp_path))
    with pytest.raises(make_env.InstallError, match=r'headers of .* got no Python\.h'):
        make_env.check_machine()


def test_no_venv_module(make_env, monkeypatch):
    monkeypatch.setattr(make_env.importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(make_env.InstallError, match='must be able to make virtual environments, '
                       'got no ensurepip'):
        make_env.check_machine()


def test_step_reports_its_time(steps, capfd):
    steps.run_step('a step', [sys.executable, '-c', 'print("not shown")'])
    assert capfd.readouterr().out == 'a step\n      done in 0:00 min\n'


def test_step_passes_variables(steps):
    steps.run_step('a step', [sys.executable, '-c', 'import os; os.environ["GIVEN"] == "1" or 1/0'],
                   GIVEN='1')


def test_failed_step_shows_its_last_lines(steps, capfd):
    code = 'print(*range(100), sep="\\n"); raise SystemExit(3)'
    with pytest.raises(steps.InstallError,
                       match='step "a step" must succeed, got exit code 3 from .*lines are above'):
        steps.run_step('  a step', [sys.executable, '-c', code])
    lines = capfd.readouterr().out.splitlines()
    assert lines[-40:] == [str(i) for i in range(60, 100)]


def test_failed_step_with_a_cure(steps):
    cured = []
    steps.run_step('a step', [sys.executable, '-c', 'raise SystemExit(1)'],
                   on_failure=lambda: cured.append(True))
    assert cured == [True]


def test_compiled_files_are_counted(steps, tmp_path):
    log = tmp_path / 'log'
    log.write_bytes(b'x' * 200_000 + b'\n  [1/130] c++ a.cpp\n  [12/130] c++ b.cpp\nnote [3]\n')
    with open(log, 'rb') as file:
        assert steps.compiled(file) == ', 12 of 130 files compiled'
    log.write_bytes(b'Collecting mmcv\n')
    with open(log, 'rb') as file:
        assert steps.compiled(file) == ''
