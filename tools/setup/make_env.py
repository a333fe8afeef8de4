"""Make .venv, the environment of `make demo` and `make test`, from the package registries.

With STACK=onedl in the environment it makes .venv-onedl instead, with the OneDL forks of the OpenMMLab packages.

Needs Python 3.10 to 3.12 with its headers and a C++ compiler; uses the standard library only. A
second run finds nothing to do and says so within a second. The stamps in .venv are written last:
an installation that was interrupted, that failed or whose requirements changed has no valid stamp
and is begun again, which pip's cache makes short.
"""
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple, Tuple

from steps import KEPT_OPEN, InstallError, pip_command, run_program, run_step, say


class Stack(NamedTuple):
    """Requirements files of .venv and of .venv/pretrain, and what mmcv's distribution is called."""

    requirements: Tuple[str, ...]
    pretrain: str
    mmcv: str


TOOLS = ('tests', 'export', 'docs')
STACKS = {
    'stock': Stack(('mim', *TOOLS), 'pretrain', 'mmcv'),
    'onedl': Stack(('onedl', *TOOLS), 'onedl-pretrain', 'onedl-mmcv'),
}
STACK = os.environ.get('STACK') or 'stock'
ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ('.venv' if STACK == 'stock' else f'.venv-{STACK}')
REQUIREMENTS = ROOT / 'requirements'
ENV_STAMP = VENV / 'environment.stamp'
PACKAGE_STAMP = VENV / 'mmacmix.stamp'
# mmcv 2.1.0 reads its version in a way that Python 3.13 ended; torch 2.13 begins at 3.10.
OLDEST, NEWEST, TESTED = (3, 10), (3, 12), (3, 11)
CHECK_OPS = """
import torch
from mmcv.ops import nms
boxes = torch.tensor([[0., 0., 10., 10.], [0., 0., 10., 9.], [20., 20., 30., 30.]])
kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5)[1].tolist()
if kept != [0, 2]:
    raise SystemExit(f'mmcv.ops.nms must keep boxes [0, 2], got {kept}')
"""
CHECK_IMPORTS = 'import mmdet, mmdet.models, mmseg, mmseg.models, mim'


def main():
    if STACK not in STACKS:
        raise InstallError(f'STACK must be one of {sorted(STACKS)}, got STACK={STACK}')
    check_machine()
    with open(f'{VENV}.lock', 'w') as lock:
        take(lock, VENV.name)
        KEPT_OPEN[:] = [lock.fileno()]
        wanted = environment_key()
        if read(ENV_STAMP) != wanted or not (VENV / 'bin' / 'python').exists():
            make_environment(STACKS[STACK])
            ENV_STAMP.write_text(wanted)
        wanted = package_key()
        if read(PACKAGE_STAMP) != wanted:
            install_package()
            PACKAGE_STAMP.write_text(wanted)


def check_machine():
    """Raise InstallError, before anything is downloaded, if the installation cannot succeed."""
    version = sys.version_info[:2]
    if not OLDEST <= version <= NEWEST:
        raise InstallError(
            f'Python must be {dotted(OLDEST)} to {dotted(NEWEST)} for mmcv 2.1.0 and torch 2.13.0 '
            f'({dotted(TESTED)} is the tested one), got {dotted(version)} at {sys.executable}. '
            f'Name another one: make PYTHON=/path/to/python{dotted(TESTED)}')
    if importlib.util.find_spec('ensurepip') is None:
        raise InstallError(
            f'{sys.executable} must be able to make virtual environments, got no ensurepip '
            f'(Debian: apt-get install python{dotted(version)}-venv)')
    if not Path(sysconfig.get_path('include'), 'Python.h').exists():
        raise InstallError(
            f'the headers of {sys.executable} must be installed to compile mmcv, got no Python.h '
            f'(Debian: apt-get install python{dotted(version)}-dev)')
    compilers = [os.environ['CXX']] if os.environ.get('CXX') else ['c++', 'g++', 'clang++']
    if not any(shutil.which(name.split()[0]) for name in compilers):
        raise InstallError(
            f'a C++ compiler must be on PATH to compile mmcv, got none of {", ".join(compilers)} '
            '(Debian: apt-get install g++)')


def make_environment(stack):
    """Make .venv anew with the packages of this stack and see that it works."""
    files = [arg for name in stack.requirements for arg in ('-r', str(REQUIREMENTS / f'{name}.txt'))]
    say(f'Making {VENV.name}: 7 steps. About 12 minutes when mmcv has to be compiled on 2 cores, about '
        '2 minutes when pip\'s cache has it.')
    if VENV.exists():
        shutil.rmtree(VENV)
    run_step('[1/7] an empty environment', [sys.executable, '-m', 'venv', str(VENV)])
    run_step('[2/7] torch and build tools (a download of several hundred MB)',
             install('torch', 'setuptools', 'wheel', 'ninja'))
    run_step('[3/7] mmcv: where no wheel fits it is compiled from its sdist, 8 to 15 minutes on '
             '2 cores; pip keeps the result for later environments',
             install('-v', '--no-build-isolation', stack.mmcv), MMCV_WITH_OPS='1')
    run_step('[4/7] mmdet, mmsegmentation, openmim, onnxruntime, sphinx and the tools of the tests', install(*files))
    # Apart from mmcv.ops: compiling mmcv again does not cure a missing system library of OpenCV.
    run_step('[5/7] imports of torch, mmcv, and a run of mmcv.ops',
             [venv_python(), '-c', 'import torch, cv2, mmengine, mmcv'])
    run_step('      nms of mmcv.ops', [venv_python(), '-c', CHECK_OPS], on_failure=lambda: rebuild_mmcv(stack.mmcv))
    run_step('[6/7] imports of mmdet, mmseg and mim', [venv_python(), '-c', CHECK_IMPORTS])
    run_step('      pip check', pip_command(venv_python(), 'check'))
    make_pretrain_environment(stack.pretrain)


def make_pretrain_environment(requirements):
    """Make .venv/pretrain: mmpretrain on top of .venv, for the tests of configs/imagenet.

    mmdet imports mmpretrain where it is, and mmpretrain torchvision, whose build in the registries
    needs CUDA's libraries: on a machine without them it would end every import of mmdet.
    """
    folder = VENV / 'pretrain'
    run_step('[7/7] mmpretrain, apart from the others', [sys.executable, '-m', 'venv', str(folder)])
    python = str(folder / 'bin' / 'python')
    Path(site_packages(python), 'below.pth').write_text(f'{site_packages(venv_python())}\n')
    run_step('      mmpretrain and torchvision', pip_command(
        python, 'install', '-c', str(REQUIREMENTS / 'constraints.txt'),
        '-r', str(REQUIREMENTS / f'{requirements}.txt')))
    run_step('      pip check', pip_command(python, 'check'))


def rebuild_mmcv(name):
    """Compile mmcv again: the one at hand, from pip's cache, was built against another torch."""
    say('      mmcv.ops does not work with this torch: compiling mmcv again (8 to 15 minutes on '
        '2 cores)')
    # Fails only where pip has no cache, which then holds no stale wheel either.
    subprocess.run(pip_command(venv_python(), 'cache', 'remove', name.replace('-', '_')), capture_output=True)
    run_step('      mmcv from its sdist',
             install('-v', '--no-build-isolation', '--no-deps', '--force-reinstall',
                     '--no-binary', name, name), MMCV_WITH_OPS='1')
    run_step('      nms of mmcv.ops', [venv_python(), '-c', CHECK_OPS])


def install_package():
    """Install mmacmix as a user gets it: from a wheel."""
    if PACKAGE_STAMP.exists():
        PACKAGE_STAMP.unlink()
    wheels = VENV / 'wheels'
    if wheels.exists():
        shutil.rmtree(wheels)
    run_step('mmacmix: a wheel of the current sources', pip_command(
        venv_python(), 'wheel', '--no-deps', '--no-build-isolation', '-w', str(wheels), str(ROOT)))
    wheel, = wheels.glob('mmacmix-*.whl')
    run_step('mmacmix: installing it', pip_command(
        venv_python(), 'install', '--no-deps', '--force-reinstall', str(wheel)))
    run_step('mmacmix: pip check', pip_command(venv_python(), 'check'))


def install(*args):
    """Return the pip command that installs `args` in .venv at the constrained versions."""
    constraints = str(REQUIREMENTS / 'constraints.txt')
    return pip_command(venv_python(), 'install', '-c', constraints, *args)


def site_packages(python):
    """Return the folder into which pip of this interpreter installs."""
    code = 'import sysconfig; print(sysconfig.get_path("purelib"))'
    return subprocess.run([python, '-c', code], check=True, capture_output=True, text=True).stdout.strip()


def venv_python():
    return str(VENV / 'bin' / 'python')


def environment_key():
    """What .venv is made of: when it changes, .venv is made again."""
    # An environment that was moved or whose Python was replaced does not work any more.
    parts = [STACK, sys.version, os.path.realpath(sys.executable), str(VENV)]
    return digest(REQUIREMENTS.glob('*.txt'), parts)


def package_key():
    """What the wheel is made of: when it changes, the wheel is built and installed again."""
    files = [ROOT / name for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE',
                                      'model-index.yml')]
    for folder in ('mmacmix', 'configs', 'tools', 'requirements'):
        files += [path for path in (ROOT / folder).rglob('*')
                  if '__pycache__' not in path.parts and '.mim' not in path.parts]
    return digest((path for path in files if path.is_file()), [])


def digest(files, parts):
    key = hashlib.sha256('\n'.join(parts).encode())
    for path in sorted(files):
        key.update(str(path.relative_to(ROOT)).encode())
        # The mode too: a script that became executable is another wheel.
        key.update(str(path.stat().st_mode).encode())
        key.update(path.read_bytes())
    return key.hexdigest()


def read(stamp):
    return stamp.read_text() if stamp.exists() else None


def take(lock, name):
    """Wait until no other run works on the environment `name`."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f'Waiting for another make that works on {name}')
        fcntl.flock(lock, fcntl.LOCK_EX)


def dotted(version):
    return '.'.join(str(part) for part in version)


if __name__ == '__main__':
    run_program(main)
