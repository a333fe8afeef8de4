"""A queue of trainings that survives interruptions; see run.py, which has its command line."""

import argparse
import contextlib
import fcntl
import os
import shutil
import sys
from pathlib import Path
from typing import Iterator, List, Optional, Set

import run_files
from facts import facts_of, facts_of_tries, keep_weights, log_of, note_try
from mmengine.config import Config
from rows import Run, data_options, digest
from stages import Stage, StepFailed
from stages import run as run_program
from warm_start import make_start

from mmacmix.checkpoints import read_checkpoint

TRAIN = Path(__file__).resolve().parents[1] / 'train.py'
WEIGHTS = 'weights.pth'


class Trainings:
    """The runs of a command line.

    Args:
        args: From run.py.

    Attributes:
        runs: All of them, finished or not: by seed, then by task, so that there is something to compare when time
            is up.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.runs = [Run(task, row, seed) for seed in args.seeds for task in args.tasks for row in args.rows]
        self._digests = {}

    def open(self) -> List[Run]:
        """Runs without a file that was made with their config."""
        return [run for run in self.runs if not self.finished(run)]

    def finished(self, run: Run) -> Optional[run_files.RunFile]:
        return run_files.finished(self.args.runs, run, self.digest(run))

    def digest(self, run: Run) -> str:
        path = run.config(self.args.configs)
        if path not in self._digests:
            self._digests[path] = digest(path)
        return self._digests[path]

    def work(self) -> None:
        """Does what is open. Of runs that fail the messages are printed, and they stay open."""
        failed: Set[str] = set()
        for wait in (False, True):  # what others are at comes last, and is done by then
            for run in self.runs:
                if run.name in failed or self.finished(run):
                    continue
                with self._taken(run, wait) as lock:
                    if lock is None or self.finished(run):
                        continue
                    try:
                        self._do(run, lock)
                    except (StepFailed, ValueError) as error:
                        failed.add(run.name)
                        print(f'{run.name}: {error}', file=sys.stderr, flush=True)
                print(self.progress(), flush=True)

    def progress(self) -> str:
        """How many runs are finished, and how long the others may take."""
        done = {run: self.finished(run) for run in self.runs}
        hours = {}
        for run, content in done.items():
            if content:
                seconds = float(content.facts['wall_seconds'])
                for key in ((run.task, run.row), run.task):
                    hours.setdefault(key, []).append(seconds / 3600)
        left = [hours.get((run.task, run.row)) or hours.get(run.task) for run, content in done.items() if not content]
        text = f'{len(done) - len(left)} of {len(done)} runs finished'
        if not left or not all(left):
            return text
        return f'{text}, about {sum(sum(some) / len(some) for some in left) / self.args.jobs:.1f} h left'

    def _do(self, run: Run, lock: int) -> None:
        """Trains a run, writes its file, and leaves of its folder what is still of use.

        A file that is there already is replaced, so that file and weights are of the same training.
        """
        config, folder = run.config(self.args.configs), self.args.out / run.name
        weights = folder / WEIGHTS
        stage = Stage(folder, self.digest(run))
        if stage.finished and not weights.is_file():
            shutil.rmtree(folder)
            stage = Stage(folder, self.digest(run))
        start = self._start(run, folder)
        if not stage.finished:
            note_try(folder, self.args.threads)
            with stage:
                self._train(run, config, folder, lock, start)
                keep_weights(folder, weights)
        more = dict(wall_seconds=f'{stage.seconds:.3f}', **facts_of_tries(folder), **start)
        facts = facts_of(run, config, self.digest(run), more)
        last = read_checkpoint(str(weights), map_location='cpu')['meta']['iter']
        log = log_of(run.task, folder, last)
        run_files.write(run_files.path_of(self.args.runs, run), run_files.RunFile(facts, log))
        for checkpoint in folder.glob('*.pth'):
            if checkpoint != weights:
                checkpoint.unlink()

    def _train(self, run: Run, config: Path, folder: Path, lock: int, start: dict) -> None:
        options = {'randomness.seed': run.seed, **data_options(run.task, self.args.data)}
        if start:
            options['load_from'] = folder / 'start.pth'
        command = [sys.executable, TRAIN, config, '--work-dir', folder, '--resume', '--cfg-options',
                   *(f'{key}={value}' for key, value in options.items())]
        threads = str(self.args.threads)
        env = dict(os.environ, OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads)
        print(f'{run.name}: log in {folder / "log.txt"}', flush=True)
        run_program(command, folder / 'log.txt', 'the training', env,
                    show=lambda text: print(f'{run.name}: {text}', flush=True), keep=(lock,))

    def _start(self, run: Run, folder: Path) -> dict:
        """Makes start.pth for a run whose config says start_from; facts about it.

        The run that it starts from is trained first where its weights, made with today's config, are not in --out, even
        if it is finished: weights are too large to be kept with the CSV files.
        """
        cfg = Config.fromfile(run.config(self.args.configs))
        if 'start_from' not in cfg:
            return {}
        source = Run(run.task, cfg.start_from, run.seed)
        weights = self.args.out / source.name / WEIGHTS
        with self._taken(source, wait=True) as lock:
            self._do(source, lock)
        plain = Config.fromfile(source.config(self.args.configs))
        difference = make_start(plain, cfg, weights, folder / 'start.pth', run.seed, run.shape)
        return dict(start_from=source.row, start_difference=f'{difference:.1e}')

    @contextlib.contextmanager
    def _taken(self, run: Run, wait: bool) -> Iterator[Optional[int]]:
        """The lock of a run, which its training keeps while it lives; None if another command has it."""
        self.args.out.mkdir(parents=True, exist_ok=True)
        with open(self.args.out / f'{run.name}.lock', 'w') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield None
            else:
                yield file.fileno()
