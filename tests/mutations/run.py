"""Plants the faults of faults.py one at a time in a copy of the project; the tests named for each must turn red.

    python tests/mutations/run.py                    # all of them
    python tests/mutations/run.py --only NAME NAME   # some

Every fault is planted in a fresh copy in a temporary folder; the sources stay as they are. First the tests must be
green without a fault. A test that fails counts as red, one that cannot be run does not.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from faults import FAULTS

ROOT = Path(__file__).resolve().parents[2]
COPIED = ('mmacmix', 'configs', 'docs', 'tools', 'tests', 'pyproject.toml')
SECONDS = 600  # that the tests of one fault may take
FAILED = 1  # how pytest ends when tests ran and one failed


class Outcome(NamedTuple):
    """What the tests said: ``code`` as pytest ends, the first that failed, and all that pytest printed."""

    code: int
    failed: str
    output: str


@contextmanager
def project(fault=None):
    """A copy of the project, with a fault in it if one is given."""
    with tempfile.TemporaryDirectory(prefix='mmacmix-fault-') as folder:
        copy = Path(folder)
        ignore = shutil.ignore_patterns('__pycache__', '.mim', '_build')
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=ignore)
            else:
                shutil.copy(ROOT / name, copy / name)
        if fault is not None:
            path = copy / fault.file
            path.write_text(planted(path.read_text(encoding='utf-8'), fault), encoding='utf-8')
        yield copy


def planted(text, fault):
    """The text of a source with the fault in it.

    Raises:
        ValueError: What the fault replaces is not there just once: the source has changed since.
    """
    times = text.count(fault.old)
    if times != 1 or fault.new == fault.old:
        raise ValueError(f'{fault.name}: old must be in {fault.file} just once and differ from new, '
                         f'got it {times} times')
    return text.replace(fault.old, fault.new)


def environment(copy):
    """In which the copy's package goes before an installed one, in processes that tests start too."""
    paths = [str(copy), os.environ.get('PYTHONPATH')]
    return dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths)), OMP_NUM_THREADS='1')


def run_tests(copy, tests):
    """Run tests of the copy on the copy's package, up to the first that fails."""
    options = ['-x', '-q', '--no-header', '--tb=line', '-rfE', '-p', 'no:cacheprovider', '--import-mode=importlib']
    result = subprocess.run(
        [sys.executable, '-m', 'pytest', *options, *tests], cwd=copy, env=environment(copy), timeout=SECONDS,
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    failed = re.search(r'^FAILED (.+?)(?: - .*)?$', result.stdout, re.MULTILINE)
    return Outcome(result.returncode, failed.group(1) if failed else '', result.stdout)


def check_green(faults):
    """Without a fault all tests must pass, and on the copy's package.

    Raises:
        SystemExit: They do not.
    """
    tests = sorted({test for fault in faults for test in fault.tests})
    tests = [test for test in tests if '::' not in test or test.split('::')[0] not in tests]
    with project() as copy:
        code = 'import mmacmix; print(mmacmix.__file__)'
        found = subprocess.run([sys.executable, '-c', code], cwd=copy, env=environment(copy), check=True, text=True,
                               stdout=subprocess.PIPE)
        if Path(found.stdout.strip()) != copy / 'mmacmix' / '__init__.py':
            sys.exit(f'the tests must see the package in {copy}, got {found.stdout.strip()}')
        outcome = run_tests(copy, tests)
    if outcome.code:
        sys.exit(f'without a fault the tests must be green, got\n{outcome.output}')


def main(argv=None):
    parser = argparse.ArgumentParser(description='Plant faults; tests must turn red.')
    parser.add_argument('--only', nargs='+', metavar='NAME', help='faults to plant (default: all)')
    args = parser.parse_args(argv)
    names = [fault.name for fault in FAULTS]
    unknown = sorted(set(args.only or ()) - set(names))
    if unknown:
        parser.error(f'--only must name faults of faults.py, got {", ".join(unknown)}')
    faults = [fault for fault in FAULTS if not args.only or fault.name in args.only]
    start = time.monotonic()
    check_green(faults)
    print(f'without a fault: green ({time.monotonic() - start:.0f} s)', flush=True)
    survived = []
    for number, fault in enumerate(faults, start=1):
        start = time.monotonic()
        with project(fault) as copy:
            outcome = run_tests(copy, fault.tests)
        red = outcome.code == FAILED and outcome.failed
        seconds = time.monotonic() - start
        colour = 'red  ' if red else 'GREEN'
        print(f'{number:2}/{len(faults)} {colour} {seconds:4.0f} s  {fault.name:32} {outcome.failed}', flush=True)
        if not red:
            survived.append(fault.name)
            if outcome.code:
                print(outcome.output, flush=True)
    print(f'{len(faults) - len(survived)} of {len(faults)} faults turned the tests red'
          + (f'; survived: {", ".join(survived)}' if survived else ''))
    return 1 if survived else 0


if __name__ == '__main__':
    sys.exit(main())
