"""Make .venv-torch-VERSION, the environment of `make core TORCH=VERSION`.

It has that release of torch, mmengine, and mmcv without its compiled operators: what the backbones need.

Works with every Python that this release of torch has a wheel for. A second run finds nothing to do.
"""
import os
import re
import shutil
import sys
from pathlib import Path

from make_env import REQUIREMENTS, ROOT, digest, read, take
from steps import KEPT_OPEN, InstallError, pip_command, run_program, run_step, say

PIECES = """
import torch, mmengine, mmcv.cnn
found = torch.__version__.split('+')[0]
if found != '{torch}':
    raise SystemExit(f'torch must be {torch}, got {{found}}')
"""


def main():
    version = check_version(os.environ.get('TORCH') or '')
    venv = ROOT / f'.venv-torch-{version}'
    stamp = venv / 'environment.stamp'
    with open(f'{venv}.lock', 'w') as lock:
        take(lock, venv.name)
        KEPT_OPEN[:] = [lock.fileno()]
        wanted = environment_key(venv)
        if read(stamp) != wanted or not (venv / 'bin' / 'python').exists():
            make_environment(venv, version)
            stamp.write_text(wanted)


def check_version(version):
    """Return `version` if it can be one that mmacmix supports; raise InstallError otherwise."""
    if not re.fullmatch(r'\d+\.\d+\.\d+', version) or int(version.split('.')[0]) < 2:
        raise InstallError(
            f'TORCH must be a release of torch from 2.0.0 on, as in make core TORCH=2.0.1, got TORCH={version}')
    return version


def make_environment(venv, version):
    """Make the environment anew and see that its parts can be imported."""
    say(f'Making {venv.name}: 4 steps. torch brings CUDA\'s libraries where it has no build without them, several GB.')
    if venv.exists():
        shutil.rmtree(venv)
    python = str(venv / 'bin' / 'python')
    # Before 2.3 torch was compiled against the first numpy.
    numpy = 'numpy<2' if tuple(map(int, version.split('.'))) < (2, 3, 0) else 'numpy'
    run_step('[1/4] an empty environment', [sys.executable, '-m', 'venv', str(venv)])
    run_step(f'[2/4] torch {version}', pip_command(python, 'install', f'torch=={version}', numpy, 'setuptools<82'))
    run_step('[3/4] mmengine, mmcv without its operators, and the tools of the tests', pip_command(
        python, 'install', f'torch=={version}', numpy, 'setuptools<82', f'mmengine=={constrained("mmengine")}',
        f'mmcv-lite=={constrained("mmcv")}', 'pytest>=7.0', 'pytest-xdist>=3.0', 'hypothesis>=6.0'))
    run_step('[4/4] imports', [python, '-c', PIECES.format(torch=version)])


def constrained(name):
    """The version of a package that the test suite runs on."""
    return re.search(rf'^{name}==(\S+)$', (REQUIREMENTS / 'constraints.txt').read_text(), re.MULTILINE).group(1)


def environment_key(venv):
    """What the environment is made of: when it changes, the environment is made again."""
    parts = [sys.version, os.path.realpath(sys.executable), str(venv)]
    return digest([REQUIREMENTS / 'constraints.txt', Path(__file__).resolve()], parts)


if __name__ == '__main__':
    run_program(main)
