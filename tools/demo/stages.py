"""Steps of the demo that survive an interruption, and the programs that they run."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 10  # seconds that a program has to end when it is asked to

_lock = None  # the open lock file of take_folder


class StepFailed(RuntimeError):
    """A step of the demo did not work; the message says which, and what its program said last."""


class Stage:
    """A step with a folder of its own, redone only when what it was made from has changed.

    Args:
        folder (pathlib.Path): Holds what the step writes, and ``stage.json``.
        fingerprint (str): Of everything that the result depends on. A folder made with another one
            is emptied, and the step starts over.

    Attributes:
        seconds (float): Spent in this step so far, over all runs.
        finished (bool): Whether there is nothing left to do.
    """

    def __init__(self, folder, fingerprint):
        self.folder = folder
        self.fingerprint = fingerprint
        found = _read(folder)
        if found is None or found['fingerprint'] != fingerprint:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            found = {'seconds': 0.0, 'finished': False}
        self.seconds, self.finished = found['seconds'], found['finished']
        self._write()

    def __enter__(self):
        self._start = time.monotonic()
        return self

    def __exit__(self, kind, error, trace):
        # The time of a failed or interrupted try counts as well.
        self.seconds += time.monotonic() - self._start
        self.finished = kind is None
        self._write()

    def _write(self):
        content = {
            'fingerprint': self.fingerprint,
            'seconds': self.seconds,
            'finished': self.finished,
        }
        part = self.folder / 'stage.json.part'
        part.write_text(json.dumps(content))
        part.replace(self.folder / 'stage.json')


def finished_fingerprint(folder):
    """The fingerprint that a finished stage of this folder was made with, or None."""
    found = _read(folder)
    return found['fingerprint'] if found and found['finished'] else None


def _read(folder):
    """What a stage wrote of itself, or None where there is nothing whole."""
    try:
        found = json.loads((folder / 'stage.json').read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found if {'fingerprint', 'seconds', 'finished'} <= set(found) else None


def fingerprint(*parts):
    """A short digest of texts and of files (given as ``pathlib.Path``)."""
    digest = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else str(part).encode()
        digest.update(len(content).to_bytes(8, 'little') + content)
    return digest.hexdigest()[:16]


def find_mim():
    """The ``mim`` of the environment that runs this script.

    Not ``python -m mim``: that puts the current folder first on the path, where a checkout would
    hide the installed package.

    Raises:
        StepFailed: If openmim is not installed beside this Python.
    """
    mim = Path(sys.executable).with_name('mim')
    if not mim.is_file():
        raise StepFailed(f'mim must be installed beside {sys.executable}, but there is no {mim}')
    return mim


def take_folder(folder):
    """Wait until no other demo works in this folder; what ``run`` starts keeps it taken while it lives.

    So a training whose demo was killed is waited for, instead of a second one joining it.

    Args:
        folder (pathlib.Path): Made if there is none.

    Raises:
        StepFailed: If it is no folder.
    """
    global _lock
    if folder.exists() and not folder.is_dir():
        raise StepFailed(f'--work-dir must be a folder, got the file {folder}')
    folder.mkdir(parents=True, exist_ok=True)
    _lock = open(folder / 'lock', 'w')
    try:
        fcntl.flock(_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f'Waiting for another demo, or for a program that one left behind, in {folder}', flush=True)
        fcntl.flock(_lock, fcntl.LOCK_EX)


def run(command, log, name, env=None, show=None, keep=()):
    """Run a program: everything it prints goes to a file, its progress to the terminal.

    Args:
        command (list): The program and its arguments.
        log (pathlib.Path): Receives the output; earlier content is kept.
        name (str): Of the step, for messages.
        env (dict | None): Environment; that of this process by default.
        show (Callable[[str], None] | None): Called with every line of progress; by default it is printed.
        keep (Iterable[int]): File descriptors, of locks, that the program inherits.

    Raises:
        StepFailed: If the program fails; the message ends with the last lines of its output.
    """
    tail = []
    show = show or _print
    with open(log, 'a', encoding='utf-8') as file:
        file.write(f'$ {" ".join(map(str, command))}\n')
        # A session of its own, so that mim's children can be ended together with it.
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding='utf-8',
            errors='replace',
            env=env,
            start_new_session=True,
            pass_fds=(*keep, _lock.fileno()) if _lock else tuple(keep),
        )
        try:
            for line in process.stdout:
                file.write(line)
                tail = [*tail[-29:], line.rstrip()]
                short = progress(line)
                if short:
                    show(short)
            code = process.wait()
        except BaseException:
            _end(process)
            raise
    if code != 0:
        said = '\n'.join(f'  | {line}' for line in tail)
        raise StepFailed(
            f'{name} failed with exit code {code}. It ended with\n{said}\nAll of it: {log}'
        )


def progress(line):
    """What a line of an mmengine log tells about the progress, or None.

    >>> progress('... - INFO - Iter(train) [ 20/600]  lr: 1e-3  eta: 0:04:10  time: 0.4  loss: 2.5')
    'train  20/600   loss 2.5   left 0:04:10'
    """
    found = re.search(r'(?:Iter|Epoch)\((train|val|test)\)\s*(?:\[\s*(\d+)\])?\s*\[\s*(\d+)/(\d+)\](.*)', line)
    if not found:
        return None
    mode, epoch, step, total, rest = found.groups()
    values = dict(re.findall(r'(\S+): +(\S+)', rest))
    parts = [f'{mode:5} {f"epoch {epoch}, " if epoch else ""}{step:>4}/{total}']
    if 'loss' in values:
        parts.append(f'loss {float(values["loss"]):.3f}')
    names = {'coco/bbox_mAP_50': 'box AP50', 'coco/segm_mAP_50': 'mask AP50', 'mIoU': 'mIoU'}
    metrics = [f'{short} {values[key]}' for key, short in names.items() if key in values]
    # While it evaluates, mmengine reports every few images: only the result is of interest.
    if mode != 'train' and not metrics:
        return None
    parts += metrics
    if 'eta' in values:
        parts.append(f'left {values["eta"]}')
    return '   '.join(parts)


def _print(text):
    print(f'  {text}', flush=True)


def _end(process):
    """End a program and its children, gently at first."""
    deadline = time.monotonic() + PATIENCE
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
