"""Trains a config undisturbed, and again with SIGKILL and --resume.

python killed_training.py CONFIG FOLDER SEED KIND...

Each KIND is one kill: 'any' comes at a random moment, 'write' when half of a checkpoint is written, 'name' when half of
last_checkpoint is. A training that ends before its kill is compared, and the next one begins. All trainings are
children of this process, which imports once. The last line is JSON: what is wrong, and how many kills and finished
runs there were.
"""
import importlib
import importlib.util
import json
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend

import mmacmix.backbones  # noqa: F401
from mmacmix.checkpoint_files import check_file, load_file

ROOT = Path(__file__).resolve().parents[2]


def pause(kind, number, marker):
    """Have the `number`-th write of a checkpoint, or of last_checkpoint, stop in the middle and say so by a file."""
    ending, left = dict(write='.pth', name='last_checkpoint')[kind], [number]

    def halved(put):
        def slow(self, content, filepath, *args, **kwargs):
            if ending in str(filepath):
                left[0] -= 1
                if left[0] == 0:
                    put(self, content[:len(content) // 2], filepath, *args, **kwargs)
                    marker.touch()
                    time.sleep(60)
            put(self, content, filepath, *args, **kwargs)
        return slow

    LocalBackend.put, LocalBackend.put_text = halved(LocalBackend.put), halved(LocalBackend.put_text)


def train(tool, config, work_dir, kind=None, number=1):
    """Start a training in a child; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        log = os.open(f'{work_dir}.log', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        if kind in ('write', 'name'):
            pause(kind, number, Path(f'{work_dir}.marker'))
        tool.main([config, '--work-dir', str(work_dir), '--resume'])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child):
    done, status = os.waitpid(child, os.WNOHANG)
    return None if done == 0 else os.waitstatus_to_exitcode(status)


def kill(child, moment):
    """Kill the child once moment() is true; returns its exit code, if it ended before."""
    while True:
        code = ended(child)
        if code is not None:
            return code
        if moment():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.005)


def last(work_dir):
    return load_file((work_dir / 'last_checkpoint').read_text())


def broken(work_dir):
    """What a kill has left that is not whole."""
    found = []
    named = work_dir / 'last_checkpoint'
    for path in [*work_dir.glob('*.pth'), *([Path(named.read_text())] if named.exists() else [])]:
        try:
            check_file(str(path))
        except (FileNotFoundError, ValueError) as error:
            found.append(str(error))
    return found


def differences(a, b, name=''):
    """Names of what is not the same, to the last bit."""
    if isinstance(a, torch.Tensor):
        return [] if torch.equal(a, b) else [name]
    if isinstance(a, dict):
        here = [f'{name}.{key}' for key in set(a) ^ set(b)]
        return here + [x for k in set(a) & set(b) for x in differences(a[k], b[k], f'{name}.{k}')]
    if isinstance(a, (list, tuple)):
        return [x for i, (p, q) in enumerate(zip(a, b)) for x in differences(p, q, f'{name}.{i}')] + (
            [name] if len(a) != len(b) else [])
    return [] if a == b else [name]


def main(config, folder, seed, kinds):
    torch.set_num_threads(1)
    host = Config.fromfile(config).default_scope
    for part in ('datasets', 'engine', 'evaluation', 'models', 'visualization'):
        importlib.import_module(f'{host}.{part}')
    spec = importlib.util.spec_from_file_location('tool_train', ROOT / 'tools' / 'train.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    rng, folder = random.Random(seed), Path(folder)
    reference, start = folder / 'reference', time.monotonic()
    code = os.waitstatus_to_exitcode(os.waitpid(train(tool, config, reference), 0)[1])
    result = dict(wrong=[] if code == 0 else [f'undisturbed: exit code {code}'], kills=0, finished=0)
    duration, wanted = time.monotonic() - start, list(kinds)
    expected = {} if code else last(reference)
    while wanted and not result['wrong']:
        work_dir = folder / f'run{result["finished"]}'
        marker = Path(f'{work_dir}.marker')
        while True:
            kind = wanted[0] if wanted else None
            child, begun, when = train(tool, config, work_dir, kind, rng.choice((1, 2))), time.monotonic(), rng.random()
            moment = dict(any=lambda: time.monotonic() - begun > when * duration).get(kind, marker.exists)  # noqa: B023
            code = kill(child, moment)
            if code is not None:
                break
            result['kills'] += 1
            result['wrong'] += broken(work_dir)
            wanted.pop(0)
            marker.unlink(missing_ok=True)
        result['finished'] += 1
        if code:
            result['wrong'].append(f'{work_dir}: exit code {code}: {Path(f"{work_dir}.log").read_text()[-2000:]}')
            break
        actual = last(work_dir)
        for part in ('state_dict', 'optimizer', 'param_schedulers'):
            result['wrong'] += [f'{work_dir.name}: {name}' for name in differences(expected[part], actual[part], part)]
    result['seconds'] = round(time.monotonic() - start, 1)
    print(json.dumps(result))


if __name__ == '__main__':
    main(*sys.argv[1:3], int(sys.argv[3]), sys.argv[4:])
