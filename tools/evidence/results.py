"""Figures over the seeds of a row, and the tables that they make."""

import statistics
from typing import Dict, List, NamedTuple, Sequence, Tuple

from rows import ROWS, TASKS, Group, Run, label
from run_files import RunFile

HINT, NO_DIFFERENCE = 'a hint that it is', 'no difference'
#: Share of comparisons that are hints where nothing differs: three seeds each, normally distributed.
CHANCE = 0.215
#: Seeds of the protocol; runs with others do not count.
SEEDS = (0, 1, 2)


class Spread(NamedTuple):
    mean: float
    deviation: float  # of the sample; 0 of one value
    least: float
    most: float
    count: int

    def __str__(self) -> str:
        if self.count == 1:
            return f'{self.mean:.1f}'
        return f'{self.mean:.1f} ± {self.deviation:.1f} ({self.least:.1f} to {self.most:.1f})'


def spread(values: Sequence[float]) -> Spread:
    """Mean, standard deviation, least and most of some values.

    >>> str(spread([1.0, 2.0, 3.0]))
    '2.0 ± 1.0 (1.0 to 3.0)'
    """
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return Spread(statistics.fmean(values), deviation, min(values), max(values), len(values))


def curve(runs: Sequence[RunFile], name: str) -> Tuple[List[int], List[List[float]]]:
    """Steps that all of some runs have, and their values at each."""
    points = [dict(content.series[name]) for content in runs]
    steps = sorted(set.intersection(*(set(p) for p in points)))
    return steps, [[p[step] for p in points] for step in steps]


class Results:
    """The finished runs of a task, by row.

    Args:
        task: A key of TASKS.
        runs: Of all tasks.
    """

    def __init__(self, task: str, runs: Dict[Run, RunFile]) -> None:
        self.task = TASKS[task]
        self.rows: Dict[str, List[RunFile]] = {}
        for run in sorted(runs, key=lambda run: (ROWS.index(run.row), run.seed)):
            if run.task == task and run.seed in SEEDS:
                self.rows.setdefault(run.row, []).append(runs[run])

    def final(self, row: str, metric: str) -> Spread:
        """Percent, of the last evaluation."""
        return spread([content.last(metric) * self.task.factor for content in self.rows[row]])

    def on(self, row: str, machine: Tuple[str, str]) -> List[RunFile]:
        """Runs of a row that were trained on that device with so many threads."""
        return [content for content in self.rows[row] if _machine(content) == machine]

    def machine(self, rows: Sequence[str]) -> Tuple[str, str]:
        """Device and threads of most runs of these rows."""
        return statistics.mode([_machine(content) for row in rows for content in self.rows[row]])

    def table(self, rows: Sequence[str]) -> str:
        """Rows with metrics, costs, time and memory."""
        names = list(self.task.metrics.values())
        machine = self.machine(rows)
        head = ['backbone', 'seeds', *(f'{name} (%)' for name in names), 'parameters (M)', 'of the backbone (M)',
                'multiply-adds (G)', 'of the backbone (G)', 'minutes', 'peak MiB']
        lines = [head, ['---'] * len(head)]
        for row in rows:
            runs = self.rows[row]
            facts = runs[0].facts
            costs = [f'{int(facts[name]) / unit:.2f}' for name, unit in (
                ('parameters', 1e6), ('backbone_parameters', 1e6),
                ('multiply_adds', 1e9), ('backbone_multiply_adds', 1e9))]
            here = self.on(row, machine)
            minutes = [content.last('seconds') / 60 for content in here]
            memory = [content.last('peak_memory_mib') for content in here]
            metrics = [str(self.final(row, metric)) for metric in self.task.metrics]
            lines.append([label(row), str(len(runs)), *metrics, *costs, str(spread(minutes)) if here else '',
                          f'{spread(memory).mean:.0f}' if here else ''])
        where = f'{machine[0]}, {machine[1]} thread(s) each'
        return f'{markdown(lines)}\n\nMinutes and memory are those of runs on {where}.{self.elsewhere(rows, machine)}'

    def elsewhere(self, rows: Sequence[str], machine: Tuple[str, str]) -> str:
        """Runs of other machines, or with other threads, where rounding differs too; empty if there are none."""
        others = []
        for row in rows:
            runs = self.rows[row]
            seeds: Dict[str, List[str]] = {}
            for content in runs:
                device, threads = _machine(content)
                if device == machine[0] and threads != machine[1]:
                    device += f' with {threads} thread(s)'
                if _machine(content) != machine:
                    seeds.setdefault(device, []).append(content.facts['seed'])
            others += [f'of {label(row)} {len(some)} of {len(runs)} (seed {", ".join(some)}) on {device}'
                       for device, some in seeds.items()]
        return f' Trained elsewhere, where rounding differs: {"; ".join(others)}.' if others else ''

    def by_class(self, rows: Sequence[str]) -> str:
        """Mean of every class."""
        begin, end = self.task.per_class
        first = self.rows[rows[0]][0]
        names = [name for name in first.series if name.startswith(begin) and name.endswith(end)
                 and name not in self.task.metrics]
        lines = [['backbone', 'seeds', *(name[len(begin):len(name) - len(end)] for name in names)]]
        lines.append(['---'] * len(lines[0]))
        for row in rows:
            lines.append([label(row), str(len(self.rows[row])), *(
                f'{self.final(row, name).mean:.1f}' for name in names)])
        return markdown(lines)

    def rates(self, rows: Sequence[str]) -> str:
        """Rates at the end, over all layers and seeds; empty if no row has any."""
        lines = [['backbone', 'rate of attention at the end', 'rate of convolution at the end'], ['---'] * 3]
        for row in rows:
            ends = {path: [content.last(name) for content in self.rows[row] for name in content.series
                           if name.startswith('mixing_rates/') and name.endswith(f'.{path}')]
                    for path in ('attention', 'convolution')}
            if all(ends.values()):
                lines.append([label(row), *(
                    f'{_hundredths(s.mean)} ({_hundredths(s.least)} to {_hundredths(s.most)})'
                    for s in map(spread, ends.values()))])
        return markdown(lines) if len(lines) > 2 else ''

    def comparison(self, group: Group) -> str:
        """The first row against others, by the rule of the protocol; those with all seeds."""
        first, lines = group.rows[0], []
        for other in group.compared:
            if min(len(self.rows.get(row, ())) for row in (first, other)) < len(SEEDS):
                continue
            metric, name = next(iter(self.task.metrics.items()))
            a, b = self.final(first, metric), self.final(other, metric)
            apart, allowed = a.mean - b.mean, max(a.deviation, b.deviation)
            better = 'better' if apart > 0 else 'worse'
            answer = f'{HINT} {better}' if abs(apart) > allowed else NO_DIFFERENCE
            lines.append(f'* {label(first)} against {label(other)}: {apart:+.2f} {name}, the larger deviation is '
                         f'{allowed:.2f}: {answer}')
        return '\n'.join(lines)

    def start(self, rows: Sequence[str]) -> str:
        """How far the maps of models that started from a trained one were from its own; empty if none did."""
        apart = [float(content.facts['start_difference']) for row in rows for content in self.rows[row]
                 if 'start_difference' in content.facts]
        if not apart:
            return ''
        return (f'* Backbones that start from trained weights gave the maps of the trained one, in float32: they '
                f'differed by {max(apart):.1e} of the largest entry at most.')

    def verdict(self) -> str:
        """Whether ResNet-ACmix-26 passes, by the rule of the protocol."""
        ours, plain = 'resnet-acmix-26', 'resnet-26'
        counts = {row: len(self.rows.get(row, ())) for row in (ours, plain)}
        if min(counts.values()) < len(SEEDS):
            return (f'No verdict yet: of {len(SEEDS)} seeds, {counts[ours]} of {label(ours)} and {counts[plain]} of '
                    f'{label(plain)} are finished.')
        metric, name = next(iter(self.task.metrics.items()))
        a, b = self.final(ours, metric), self.final(plain, metric)
        allowed = max(a.deviation, b.deviation)
        answers = [a.mean >= b.mean - allowed]
        lines = [f'* {name} {a.mean:.2f} against {b.mean:.2f} of {label(plain)}, which may be at most {allowed:.2f} '
                 f'(the larger deviation) more: {_yes(answers[0])}']
        for key, least in self.task.anchor.items():
            mean = self.final(ours, key).mean
            answers.append(mean >= least)
            lines.append(f'* {self.task.metrics[key]} {mean:.2f} against {least} of the first ResNet-18: '
                         f'{_yes(answers[-1])}')
        return '\n'.join([*lines, f'* all of it: **{_yes(all(answers))}**'])


def _machine(content: RunFile) -> Tuple[str, str]:
    return content.facts['device'], content.facts['threads']


def by_chance(text: str) -> str:
    """How many comparisons of a text are hints, and how many would be by chance; empty if there are none."""
    hints = text.count(f': {HINT} ')
    count = hints + text.count(f': {NO_DIFFERENCE}')
    if not count:
        return ''
    return f'Of {count} comparisons {hints} are hints; if nothing differed, about {CHANCE * count:.1f} would be.'


def _hundredths(value: float) -> str:
    return f'{round(value, 2) + 0.:.2f}'  # no -0.00


def _yes(value: bool) -> str:
    return 'passed' if value else 'not passed'


def markdown(lines: Sequence[Sequence[str]]) -> str:
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)
