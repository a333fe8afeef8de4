"""From cases to rows: each case in processes of its own, each finished case in the CSV at once."""

import argparse
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Sequence, Tuple

import records

WORKER = Path(__file__).with_name('worker.py')
DTYPES = ('float32', 'tf32', 'bfloat16', 'float16')
PASSES = ('forward', 'training')


def ask(job: dict) -> Iterator[dict]:
    """Does a job in a fresh process.

    Yields:
        Its messages. If the process ends before its work does: ``{'died': reason}`` as the last one.
    """
    environment = dict(os.environ, OMP_NUM_THREADS=str(job['case']['threads']), PYTHONWARNINGS='ignore')
    environment.pop('MMACMIX_BACKEND', None)  # 'auto' is to be measured as it is
    with tempfile.TemporaryFile('w+') as errors:
        command = [sys.executable, str(WORKER), json.dumps(job)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            for line in process.stdout:
                yield json.loads(line)
            code = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if code:
            errors.seek(0)
            yield {'died': reason_of_death(code, errors.read())}


def reason_of_death(code: int, errors: str) -> str:
    """Status for a process that ended before its work did."""
    if code == -signal.SIGKILL:  # how Linux ends a process when memory has run out
        return 'out of memory'
    lines = errors.strip().splitlines() or ['']
    return f'failed: {f"signal {-code}" if code < 0 else f"exit code {code}"}: {lines[-1]}'


def measure(
    module: str,
    case: dict,
    sides: Sequence[str],
    args: argparse.Namespace,
    progress: Callable[[], None] = lambda: None,
) -> Dict[str, dict]:
    """Figures of all sides of a case: memory one after the other, then time in turns in one process.

    Args:
        module, case, sides: See worker.py.
        args: Its rounds, budget and memory_limit, see :func:`add_arguments`.
        progress: Called after every figure.

    Returns:
        The columns records.FIGURES by side; a figure that could not be measured is ''.
    """
    limit = args.memory_limit and args.memory_limit * 1024
    job = dict(module=module, case=case, rounds=args.rounds, budget=args.budget, limit=limit)
    figures = {side: dict.fromkeys(records.FIGURES, '') for side in sides}
    for side in sides:
        for found in ask(dict(job, task='memory', sides=[side])):
            if 'extra' in found:
                figures[side].update(peak_extra_mib=f'{found["extra"]:.1f}', peak_total_mib=f'{found["total"]:.1f}')
            else:
                figures[side]['status'] = found.get('failed') or found['died']
            progress()
    times: Dict[str, List[float]] = {}
    left = [side for side in sides if not figures[side]['status']]
    while left:
        times = {side: [] for side in left}
        current, died = left[0], False
        for found in ask(dict(job, task='time', sides=left)):
            current = found.get('begin', current)
            if 'seconds' in found:
                times[found['side']].append(found['seconds'])
                progress()
            elif 'failed' in found:
                figures[found['side']]['status'] = found['failed']
            elif 'died' in found:
                figures[current]['status'], died = found['died'], True
        if not died:
            break
        left = [side for side in left if not figures[side]['status']]  # again, without the one it died of
    for side in sides:
        if not figures[side]['status']:
            seconds = times[side]
            figures[side].update(status='ok', rounds=len(seconds))
            for name, function in (('median_s', statistics.median), ('min_s', min), ('max_s', max)):
                figures[side][name] = f'{function(seconds):.4g}'
    return figures


def run(benchmark: str, module: str, cases: Sequence[Tuple[dict, Sequence[str]]], args: argparse.Namespace) -> int:
    """Measures cases and writes their rows; what the file has already is left out.

    Args:
        benchmark: Name for the column of that name.
        module: Has ``prepare(case, side)``, see worker.py.
        cases: Columns of the configuration and the sides to measure on it.
        args: Of :func:`add_arguments`.

    Returns:
        Exit code: 1 if a side failed for another reason than memory.
    """
    constant = dict(benchmark=benchmark, device_name=records.device_name(args.device), **records.versions())
    done = records.finished(args.out)
    script = os.path.relpath(Path(sys.argv[0]).resolve(), records.ROOT)
    command = shlex.join(['python', Path(script).as_posix(), *sys.argv[1:]])
    failed = False
    for number, (case, sides) in enumerate(cases, start=1):
        title = f'[{number}/{len(cases)}] {case["pass"]} {case["height"]}x{case["width"]}'
        row = dict(constant, **case, pixels=case['height'] * case['width'])
        if all(records.key(dict(row, side=side)) in done for side in sides):
            print(f'{title}: in {args.out} already', flush=True)
            continue
        print(f'{title}: {", ".join(sides)}', flush=True)
        start = time.monotonic()
        figures = measure(module, case, sides, args, lambda: print('.', end='', flush=True))
        print()
        date = datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%SZ')
        records.append(args.out, [dict(row, side=s, **figures[s], date=date, command=command) for s in sides])
        for side in sides:
            print(f'  {side:28}{summary(figures[side])}', flush=True)
            failed |= figures[side]['status'] not in records.FINISHED
        print(f'  ({time.monotonic() - start:.0f} s)', flush=True)
    print(f'Rows: {args.out}')
    return int(failed)


def summary(figures: dict) -> str:
    if figures['status'] != 'ok':
        return figures['status']
    return (
        f'{float(figures["median_s"]):10.4g} s ({figures["min_s"]} to {figures["max_s"]}, {figures["rounds"]} rounds)'
        f'{float(figures["peak_extra_mib"]):10.1f} MiB'
    )


def add_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """Options that the benchmarks have in common."""
    group = parser.add_argument_group('measuring')
    group.add_argument('--passes', nargs='+', choices=PASSES, default=PASSES, help='all by default')
    group.add_argument('--batch', type=positive, default=1)
    group.add_argument('--dtype', choices=DTYPES, default='float32', help="'tf32': float32 with rounded products, CUDA")
    group.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    group.add_argument('--threads', type=positive, help="of the CPU; torch's choice by default")
    group.add_argument('--rounds', type=positive, default=20, help='measured calls of each side (default 20)')
    group.add_argument(
        '--budget', type=positive_number, default=30.0, metavar='SECONDS',
        help='a slower side gets fewer rounds, at least one (default 30 for each side of a case)',
    )
    group.add_argument(
        '--memory-limit', type=positive_number, metavar='GIB',
        help='a call that takes more counts as out of memory (Linux, CPU)',
    )
    group.add_argument('--out', type=Path, default=Path(out), help=f'CSV to add rows to (default {out})')


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program with a message if options do not fit each other or this machine."""
    import torch

    if args.device == 'cuda' and not torch.cuda.is_available():
        parser.error('--device cuda needs a GPU that torch can use, got none')
    if args.dtype == 'tf32' and args.device != 'cuda':
        parser.error(f'--dtype tf32 needs --device cuda, got --device {args.device}')
    if args.memory_limit and (args.device != 'cpu' or sys.platform != 'linux'):
        parser.error(f'--memory-limit needs --device cpu on Linux, got --device {args.device} on {sys.platform}')
    if args.out.suffix != '.csv':
        parser.error(f'--out must end with .csv, got {args.out}')
    try:  # rather now than after the first case
        args.out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f'--out must be a file that can be written, got {args.out} ({error})')
    if args.out.is_dir() or not os.access(args.out if args.out.exists() else args.out.parent, os.W_OK):
        parser.error(f'--out must be a file that can be written, got {args.out}')
    if args.out.is_file():
        try:
            records.read(args.out)
        except ValueError as error:
            parser.error(f'--out: {error}')
    args.threads = args.threads or torch.get_num_threads()


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'must be a whole number of at least 1, got {text!r}')
    return int(text)


def positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0
    if not 0 < value < float('inf'):
        raise argparse.ArgumentTypeError(f'must be a number above 0, got {text!r}')
    return value


def size(text: str) -> Tuple[int, int]:
    """'224' or '800x1344'."""
    parts = text.split('x')
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f'must be N or HxW in pixels, each at least 1, got {text!r}')
    return int(parts[0]), int(parts[-1])
