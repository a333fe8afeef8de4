"""Runs the trainings of docs/evidence.md, one after the other: `python tools/evidence/run.py --rows pass`.

A run is a row of a task with a seed. When it is finished, what it measured is one CSV file in docs/evidence/runs; runs
whose file is there, made with the config as it is now, are skipped. A run that was interrupted goes on from its last
checkpoint in --out. Several of these commands may share one --out: each takes runs that no other one works on.
"""

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import List, Optional

TOOLS = Path(__file__).resolve().parents[1]
sys.path += [str(TOOLS), *(str(TOOLS / name) for name in ('evidence', 'demo', 'benchmarks', 'analysis_tools'))]
from rows import CONFIGS, GROUPS, ROOT, ROWS, TASKS, Run, expand  # noqa: E402
from trainings import Trainings  # noqa: E402


def parse_args(argv: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog=f'Groups of rows: {", ".join(GROUPS)}. Rows: {", ".join(ROWS)}.')
    parser.add_argument('--rows', nargs='+', default=['pass'], metavar='ROW', help='rows or groups (default: pass)')
    parser.add_argument('--tasks', nargs='+', default=list(TASKS), choices=TASKS, help='default: all')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2], metavar='N', help='default: 0 1 2')
    parser.add_argument(
        '--data', type=Path, default=Path('data'), metavar='DIR', help='has the folders bccd and camvid (%(default)s)')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/evidence'), metavar='DIR',
        help='logs and checkpoints (%(default)s); of no use when all is finished')
    parser.add_argument('--runs', type=Path, default=ROOT / 'docs/evidence/runs', metavar='DIR', help='CSV files')
    parser.add_argument('--configs', type=Path, default=CONFIGS, metavar='DIR', help='configs of the rows')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='trainings at a time (default: 1)')
    parser.add_argument('--threads', type=int, metavar='N', help='of a training (default: the cores, shared out)')
    parser.add_argument('--list', action='store_true', help='say what is open, and train nothing')
    args = parser.parse_args(argv)
    for name in ('jobs', 'threads'):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name} must be positive, got {value}')
    args.threads = args.threads or max(1, (os.cpu_count() or 1) // args.jobs)
    try:
        args.rows = expand(args.rows)
    except ValueError as error:
        parser.error(f'--{error}')
    return args


def check(args: argparse.Namespace, runs: List[Run]) -> None:
    """Raises ValueError for a config or data that are not there, before hours are spent."""
    for run in runs:
        if not run.config(args.configs).is_file():
            raise ValueError(f'--configs must have {run.config(args.configs).name}, got --configs {args.configs}')
    for name in ('out', 'runs'):
        folder = getattr(args, name)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f'--{name} must be a folder, got --{name} {folder}')
    for task in args.tasks:
        if not args.list and not (args.data / task).is_dir():
            raise ValueError(f'--data must be a folder with {task} in it, got --data {args.data}')


def helpers(args: argparse.Namespace, argv: List[str]) -> List[subprocess.Popen]:
    """Further commands like this one, for --jobs."""
    command = [sys.executable, __file__, *argv, '--jobs', '1', '--threads', str(args.threads)]
    return [subprocess.Popen(command) for _ in range(args.jobs - 1)]


def end(others: List[subprocess.Popen]) -> None:
    """Ends the commands of --jobs, which end their trainings."""
    for other in others:
        other.terminate()
    for other in others:
        other.wait()


def stop(*_) -> None:
    raise KeyboardInterrupt


def main(argv: Optional[List[str]] = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    args = parse_args(argv)
    trainings = Trainings(args)
    try:
        check(args, trainings.runs)
    except ValueError as error:
        sys.exit(f'run.py: error: {error}')
    print(trainings.progress(), flush=True)
    if args.list:
        print('\n'.join(run.name for run in trainings.open()))
        return 0
    signal.signal(signal.SIGTERM, stop)  # as Ctrl-C: the training is ended too
    others = helpers(args, argv)
    try:
        trainings.work()
        for other in others:
            other.wait()
    except KeyboardInterrupt:
        end(others)
        print('run.py: interrupted; the same command goes on')
        return 130
    except OSError as error:  # none of the others can write either
        end(others)
        sys.exit(f'run.py: error: {error}; the same command goes on')
    # Another job may have finished what failed in this one.
    left = [run.name for run in trainings.open()]
    if left:
        print(f'run.py: {len(left)} failed: {", ".join(left)}', file=sys.stderr)
    return 1 if left else 0


if __name__ == '__main__':
    sys.exit(main())
