"""Train, test and picture a detector and a segmenter with ACmix backbones, on generated images.

    python tools/demo/run_demo.py

runs what a user would: `mim train mmacmix CONFIG` and `mim test mmacmix CONFIG --checkpoint FILE`
for configs/demo. At the end it prints a table and where the pictures are. An interrupted demo goes
on where it was; what is finished is not done again unless something that it depends on has changed.

Exit code: 0 if the targets are met, 1 if a target is missed or a step has failed, 2 for wrong
arguments, 130 if interrupted.
"""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from make_dataset import make_dataset
from report import draw_curves, table, test_metrics
from stages import Stage, StepFailed, find_mim, fingerprint, run, take_folder

HERE = Path(__file__).resolve().parent
DEFAULT_DATA = Path('data/demo')  # as the configs have it


@dataclass(frozen=True)
class Task:
    """One of the two models.

    Attributes:
        name (str): Of its folder, and for pictures.py.
        title (str): For people.
        config (str): Base name of its config in the installed package.
        data (str): Its format's folder in the data set.
        metrics (dict): Host's name and factor to [0, 1], by column of the table.
        targets (dict): Least value by column.
    """

    name: str
    title: str
    config: str
    data: str
    metrics: dict
    targets: dict


TASKS = (
    Task(
        'detection',
        'Mask R-CNN, ResNet-ACmix',
        'mask-rcnn_resnet-acmix_demo.py',
        'coco',
        {'box AP50': ('coco/bbox_mAP_50', 1.0), 'mask AP50': ('coco/segm_mAP_50', 1.0)},
        {'box AP50': 0.5},
    ),
    Task(
        'segmentation',
        'Semantic FPN, ResNet-ACmix',
        'fpn_resnet-acmix_demo.py',
        'ade',
        {'mIoU': ('mIoU', 0.01)},
        {'mIoU': 0.6},
    ),
)
COLUMNS = ['model', 'box AP50', 'mask AP50', 'mIoU', 'minutes']


class Demo:
    """The settings of one demo, and the steps for a task.

    Args:
        work_dir (pathlib.Path): Receives everything but the data set.
        data (pathlib.Path): The data set.
        iterations (int | None): Length of both trainings; the configs' own by default.
        pictures (int): Held-out images to draw per task.
    """

    def __init__(self, work_dir, data, iterations, pictures):
        self.work_dir = work_dir
        self.data = data
        self.iterations = iterations
        self.pictures = pictures
        self.mim = find_mim()
        self.source = package_fingerprint()

    def options(self, task):
        """What this demo overrides in a task's config, as arguments."""
        values = []
        if self.data != DEFAULT_DATA:
            root = f'{self.data / task.data}{os.sep}'
            for loader in ('train', 'val', 'test'):
                values.append(f'{loader}_dataloader.dataset.data_root={root}')
            if task.data == 'coco':
                file = f'{root}annotations/instances_val2017.json'
                values += [f'{mode}_evaluator.ann_file={file}' for mode in ('val', 'test')]
        if self.iterations is not None:
            values += [
                f'train_cfg.max_iters={self.iterations}',
                f'train_cfg.val_interval={self.iterations}',
                'default_hooks.logger.interval=1',
            ]
        return ['--cfg-options', *values] if values else []

    def run_task(self, task):
        """Train, test and picture one model.

        Returns:
            tuple[dict, list[pathlib.Path]]: A row of the table, and the pictures.

        Raises:
            StepFailed: If a step does not work.
        """
        folder = self.work_dir / task.name
        made_from = fingerprint(
            self.source, self.data / 'manifest.json', task.config, self.options(task)
        )
        train = self._train(task, folder / 'train', made_from)
        test = self._test(task, folder / 'test', train)
        pictures = self._draw(task, folder / 'pictures', train)
        found = test_metrics(test.folder / 'results')
        row = {'model': task.title}
        for column, (key, factor) in task.metrics.items():
            if key not in found:
                raise StepFailed(f'The test must report {key}, got {sorted(found)}')
            row[column] = found[key] * factor
        row['minutes'] = (train.seconds + test.seconds + pictures.seconds) / 60
        return row, [pictures.folder / name for name in ('sheet.png', 'curves.png')]

    def _train(self, task, folder, made_from):
        stage = Stage(folder, made_from)
        # Trained, but the weights are gone: train again.
        stage.finished = stage.finished and has_checkpoint(folder / 'results')
        if not announce(f'Train {task.title}', stage):
            with stage:
                results = folder / 'results'
                resume = ['--resume'] if has_checkpoint(results) else []
                command = [self.mim, 'train', 'mmacmix', task.config, '--work-dir', results]
                self._run(
                    [*command, *resume, *self.options(task)], folder, f'Training {task.title}'
                )
        return stage

    def _test(self, task, folder, train):
        checkpoint = last_checkpoint(train.folder / 'results')
        stage = Stage(folder, fingerprint(train.fingerprint, checkpoint))
        if not announce(f'Test {task.title} on held-out images', stage):
            with stage:
                command = [self.mim, 'test', 'mmacmix', task.config, '--checkpoint', checkpoint]
                command += ['--work-dir', folder / 'results', *self.options(task)]
                self._run(command, folder, f'Testing {task.title}')
        return stage

    def _draw(self, task, folder, train):
        results = train.folder / 'results'
        checkpoint = last_checkpoint(results)
        scripts = [HERE / name for name in ('pictures.py', 'report.py')]
        stage = Stage(folder, fingerprint(train.fingerprint, checkpoint, self.pictures, *scripts))
        made = [folder / name for name in ('sheet.png', 'curves.png')]
        stage.finished = stage.finished and all(file.is_file() for file in made)
        if not announce(f'Draw the pictures of {task.title}', stage):
            with stage:
                draw_curves(results, task.metrics, task.title, folder / 'curves.png')
                command = [sys.executable, HERE / 'pictures.py', task.name]
                command += [results / task.config, checkpoint]
                command += ['--out', folder, '--count', self.pictures]
                self._run(command, folder, f'Drawing the pictures of {task.title}')
        return stage

    def _run(self, command, folder, name):
        shown = ' '.join(str(part) for part in command).replace(str(self.mim), 'mim')
        print(f'  $ {shown}\n  (all output: {folder / "log.txt"})', flush=True)
        run(command, folder / 'log.txt', name, env={**os.environ, 'PYTHONUNBUFFERED': '1'})


def announce(what, stage):
    """Say what comes next; whether it is there already."""
    print(f'\n{what}{": already done" if stage.finished else ""}', flush=True)
    return stage.finished


def package_fingerprint():
    """Of all code and configs of the installed package.

    Raises:
        StepFailed: If mmacmix is not installed, or not in a way in which mim finds its configs.
    """
    # The tools import it too; here it only tells where it is.
    import mmacmix

    root = Path(mmacmix.__file__).parent
    configs = root / '.mim' / 'configs'
    if not (configs / 'demo' / TASKS[0].config).is_file():
        raise StepFailed(
            f'mmacmix must be installed with its configs (pip install . in the checkout), '
            f'but there is no {configs / "demo" / TASKS[0].config}'
        )
    files = [file for file in root.rglob('*.py') if '.mim' not in file.relative_to(root).parts]
    files += [file for name in ('_base_', 'demo') for file in (configs / name).rglob('*.py')]
    return fingerprint(*sorted(files))


def has_checkpoint(folder):
    """Whether a training can go on from what is in its work folder."""
    note = folder / 'last_checkpoint'
    # By name: the note has a whole path, from before the folder was moved or copied.
    return note.is_file() and (folder / Path(note.read_text().strip()).name).is_file()


def last_checkpoint(folder):
    """The checkpoint that a training ended with.

    Raises:
        StepFailed: If there is none.
    """
    if not has_checkpoint(folder):
        raise StepFailed(f'The training must leave a checkpoint, got none in {folder}')
    return folder / Path((folder / 'last_checkpoint').read_text().strip()).name


def missed_targets(rows, tasks=TASKS):
    """Sentences about the targets that are not met; an empty list if all are."""
    missed = []
    for row, task in zip(rows, tasks):
        for column, least in task.targets.items():
            if not row[column] >= least:
                missed.append(f'{task.title}: {column} {row[column]:.3f} is below {least}')
    return missed


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/demo'))
    parser.add_argument('--data', type=Path, default=DEFAULT_DATA, help='folder of the data set')
    parser.add_argument('--train', type=int, default=600, help='training images')
    parser.add_argument('--val', type=int, default=100, help='held-out images')
    parser.add_argument('--seed', type=int, default=0, help='of the data set')
    parser.add_argument('--iterations', type=int, help="instead of the configs' own number")
    parser.add_argument('--pictures', type=int, default=8, help='held-out images to draw')
    parser.add_argument('--fresh', action='store_true', help='throw earlier results away')
    args = parser.parse_args(argv)
    for name in ('iterations', 'pictures'):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name} must be at least 1, got {value}')
    # Options of a config cannot hold them.
    if re.search(r'[\s,\[\]()"\'=]', str(args.data)):
        parser.error(f'--data must be a path without blanks, commas, quotes and brackets, got {args.data}')
    return args


def run_demo(args):
    """Run all steps and print the results.

    Returns:
        int: The exit code.
    """
    take_folder(args.work_dir)
    if args.fresh:
        for task in TASKS:
            shutil.rmtree(args.work_dir / task.name, ignore_errors=True)
    demo = Demo(args.work_dir, args.data, args.iterations, args.pictures)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    try:
        make_dataset(args.data, args.train, args.val, seed=args.seed)
    except ValueError as error:
        print(f'run_demo.py: error: {error}', file=sys.stderr)
        return 2
    drawing = (time.monotonic() - start) / 60

    rows, pictures = [], []
    for task in TASKS:
        row, paths = demo.run_task(task)
        rows.append(row)
        pictures += paths
    total = {'model': 'total, with data', 'minutes': drawing + sum(row['minutes'] for row in rows)}
    missed = missed_targets(rows)
    print('\n' + table([*rows, total], COLUMNS))
    print('\nPictures:\n' + '\n'.join(f'  {path}' for path in pictures))
    print('\n' + ('\n'.join(['Targets missed:', *missed]) if missed else 'All targets are met.'))
    (args.work_dir / 'results.json').write_text(json.dumps({'rows': rows, 'missed': missed}))
    return 1 if missed else 0


def main(argv=None):
    args = parse_args(argv)
    # A polite end asked for from outside takes the same way as Ctrl-C, which ends the children too.
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.default_int_handler)
    try:
        return run_demo(args)
    except StepFailed as error:
        print(f'\n{error}\nTo start over: {Path(__file__).name} --fresh', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nInterrupted. The next run goes on from here.', file=sys.stderr)
        return 130


if __name__ == '__main__':
    sys.exit(main())
