"""Writes tables and curves of docs/evidence.md from the CSV files of its runs: `python tools/evidence/report.py`.

What stands between `<!-- evidence: results -->` and `<!-- evidence: end -->` is replaced, and the pictures are drawn
again. Files of runs with another config than there is now are left out, and named.
"""

import argparse
import os
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Optional, Tuple

sys.path.append(str(Path(__file__).resolve().parent))
import run_files  # noqa: E402
from results import Results, by_chance, curve, spread  # noqa: E402
from rows import CONFIGS, GROUPS, ROOT, ROWS, TASKS, Group, Run, digest, label  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEGIN, END = '<!-- evidence: results -->', '<!-- evidence: end -->'
NOTHING = 'No run is finished yet.'


def load(folder: Path, configs: Path = CONFIGS) -> Tuple[Dict[Run, run_files.RunFile], List[str]]:
    """Runs of the folder by what they are of, and the names of files that were made with another config.

    Raises:
        ValueError: A file is none of a run, or of a row that there is not.
    """
    runs, stale, digests = {}, [], {}
    for path in sorted(folder.glob('*.csv')):
        content = run_files.read(path)
        run = Run(content.facts.get('task'), content.facts.get('row'), int(content.facts.get('seed', -1)))
        if run.task not in TASKS or run.row not in ROWS or path.stem != run.name:
            raise ValueError(f'{path} must be of a task, row and seed as its name says, got {run.name}')
        config = run.config(configs)
        digests[config] = digests.get(config) or digest(config)
        if content.facts['config'] == digests[config]:
            runs[run] = content
        else:
            stale.append(path.name)
    return runs, stale


def write(text: str, body: str) -> str:
    """A document with another body between the markers.

    Raises:
        ValueError: A marker is not there exactly once.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f'the document must have {BEGIN} and then {END}, each once')
    return re.sub(f'(?s){BEGIN}.*{END}', lambda _: f'{BEGIN}\n\n{body}\n\n{END}', text)


def body_of(runs: Dict[Run, run_files.RunFile], stale: List[str], pictures: Dict[str, str]) -> str:
    """All tables.

    Args:
        runs: What is finished.
        stale: Names of files that do not count.
        pictures: Links by task and group, 'bccd_pass', and 'bccd_predictions' of draw_predictions.py.
    """
    parts = []
    for task, known in TASKS.items():
        results = Results(task, runs)
        if not results.rows:
            continue
        parts.append(f'### {known.title}')
        for name, group in GROUPS.items():
            rows = rows_of(results, group)
            if not rows:
                continue
            parts += [f'#### {known.title.split(",")[0]}: {group.title}', results.table(rows)]
            said = [results.verdict() if name == 'pass' else '', results.comparison(group), results.start(rows)]
            parts.append('\n'.join(text for text in said if text))
            if name == 'start' or name.endswith('-warm'):
                parts.append(results.rates(rows))
            if f'{task}_{name}' in pictures:
                parts.append(f'![{group.title}: loss, and {next(iter(known.metrics.values()))} on held-out images, '
                             f'against steps and minutes]({pictures[f"{task}_{name}"]})')
        for small, of in ((False, 'by class'), (True, 'by class, of the smaller groups')):
            rows = [row for row in results.rows if Run(task, row, 0).small == small]
            if rows:
                parts += [f'#### {known.title.split(",")[0]}: {of}', results.by_class(rows)]
        if f'{task}_predictions' in pictures:
            parts.append(f'![Truth, and predictions of seed 0, on held-out images]({pictures[f"{task}_predictions"]})')
    if not parts:
        parts.append(NOTHING)
    else:
        parts += [by_chance('\n'.join(parts)), provenance(runs)]
    if stale:
        parts.append(f'Left out, because their configs have changed since: {", ".join(stale)}.')
    return '\n\n'.join(part for part in parts if part)


def rows_of(results: Results, group: Group) -> List[str]:
    """Rows of a group that have runs; none where the first one has none, or nothing to be compared with."""
    rows = [row for row in group.rows if row in results.rows]
    return rows if len(rows) > 1 and rows[0] == group.rows[0] else []


def provenance(runs: Dict[Run, run_files.RunFile]) -> str:
    """On what, and with what, the runs were made."""
    def values(name: str) -> str:
        return ', '.join(sorted({content.facts.get(name, '') for content in runs.values()} - {''}))

    return (f'{len(runs)} runs; commit {values("commit")}; torch {values("torch")}, mmcv {values("mmcv")}, '
            f'mmdet {values("mmdet")}, mmseg {values("mmseg")}; on {values("device")}, with {values("threads")} '
            f'thread(s) each; {values("date")}.')


def figure_of(results: Results, rows: List[str], title: str) -> 'Figure':
    """Loss against steps, metric against steps and minutes: mean of the seeds, and from the least to the most.

    Against minutes are those seeds alone that were trained on the machine of most runs.
    """
    from matplotlib import pyplot as plt

    metric, name = next(iter(results.task.metrics.items()))
    machine = results.machine(rows)
    figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), constrained_layout=True)
    for color, row in enumerate(rows):
        style = dict(color=f'C{color}', label=label(row))
        runs, here = results.rows[row], results.on(row, machine)
        steps, losses = curve(runs, 'loss')
        axes[0].plot(steps, [spread(values).mean for values in losses], **style)
        for axis, some in ((axes[1], runs), (axes[2], here)):
            if not some:  # trained elsewhere
                continue
            places, values = curve(some, metric)
            figures = [spread([value * results.task.factor for value in at_step]) for at_step in values]
            if axis is axes[2]:
                places = [spread([run.at('seconds', step) for run in some]).mean / 60 for step in places]
            axis.plot(places, [f.mean for f in figures], marker='o', ms=4, **style)
            axis.fill_between(
                places, [f.least for f in figures], [f.most for f in figures], color=f'C{color}', alpha=0.2, lw=0)
    axes[0].set(xlabel='step', ylabel='training loss')
    axes[1].set(xlabel='step', ylabel=f'{name} on held-out images (%)')
    axes[2].set(xlabel=textwrap.fill(f'minutes of training on {machine[0]}', 50), ylabel=axes[1].get_ylabel())
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.set_ylim(bottom=0)
    axes[1].legend(fontsize=8)
    figure.suptitle(title)
    return figure


def draw_all(runs: Dict[Run, run_files.RunFile], folder: Path) -> Dict[str, Path]:
    """Pictures of all groups with two rows or more, by task and group."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    pictures = {}
    for task, known in TASKS.items():
        results = Results(task, runs)
        for name, group in GROUPS.items():
            rows = rows_of(results, group)
            if rows:
                pictures[f'{task}_{name}'] = path = folder / f'{task}_{name}.png'
                figure = figure_of(results, rows, f'{known.title}: {group.title}')
                path.parent.mkdir(parents=True, exist_ok=True)
                figure.savefig(path, dpi=90)
                plt.close(figure)
    return pictures


def main(argv: Optional[List[str]] = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=Path, default=ROOT / 'docs/evidence/runs', metavar='DIR', help='CSV files')
    parser.add_argument('--configs', type=Path, default=CONFIGS, metavar='DIR', help='configs of the rows')
    parser.add_argument('--into', type=Path, default=ROOT / 'docs/evidence.md', metavar='FILE', help='the document')
    parser.add_argument('--pictures', type=Path, default=ROOT / 'docs/evidence', metavar='DIR', help='of the curves')
    args = parser.parse_args(argv)
    try:
        runs, stale = load(args.runs, args.configs)
        text = args.into.read_text(encoding='utf-8')
        write(text, '')  # before anything is drawn
        pictures = draw_all(runs, args.pictures)
        drawn = {f'{task}_predictions': args.pictures / f'{task}_predictions.png' for task in TASKS}
        pictures.update({name: path for name, path in drawn.items() if path.is_file()})
        links = {name: Path(os.path.relpath(path, args.into.parent)).as_posix() for name, path in pictures.items()}
        args.into.write_text(write(text, body_of(runs, stale, links)), encoding='utf-8')
    except (OSError, ValueError) as error:
        sys.exit(f'report.py: error: {error}')
    print(f'{len(runs)} runs: {args.into}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
