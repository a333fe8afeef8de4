"""The CSV file of a finished run: what it is (without a step), and what it measured after which step."""

import csv
import os
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

from rows import Run

COLUMNS = ('step', 'name', 'value')


class RunFile(NamedTuple):
    """Content of a file.

    Attributes:
        facts: What holds for the whole run: config, versions, machine, parameters.
        series: (step, value) by name, ascending.
    """

    facts: Dict[str, str]
    series: Dict[str, List[Tuple[int, float]]]

    def last(self, name: str) -> float:
        return self.series[name][-1][1]

    def at(self, name: str, step: int) -> float:
        """The value at a step, linear between those that were recorded and constant beyond them."""
        points = self.series[name]
        for (left, a), (right, b) in zip(points, points[1:]):
            if left <= step <= right:
                return a + (b - a) * (step - left) / (right - left)
        return points[0][1] if step < points[0][0] else points[-1][1]


def path_of(folder: Path, run: Run) -> Path:
    return folder / f'{run.name}.csv'


def write(path: Path, content: RunFile) -> None:
    """Writes all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + '.tmp')
    with open(unfinished, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(COLUMNS)
        writer.writerows(('', name, value) for name, value in content.facts.items())
        for name, points in content.series.items():
            writer.writerows((step, name, f'{value:.6g}') for step, value in points)
    os.replace(unfinished, path)


def read(path: Path) -> RunFile:
    """
    Raises:
        ValueError: It is no such file.
    """
    facts: Dict[str, str] = {}
    series: Dict[str, List[Tuple[int, float]]] = {}
    with open(path, newline='', encoding='utf-8') as file:
        reader = csv.reader(file)
        head = next(reader, None)
        if head is None or tuple(head) != COLUMNS:
            raise ValueError(f'{path} must have the columns {",".join(COLUMNS)}, got {",".join(head or ())}')
        for line in reader:
            try:
                step, name, value = line
                if step:
                    series.setdefault(name, []).append((int(step), float(value)))
                else:
                    facts[name] = value
            except ValueError:
                raise ValueError(f'{path}:{reader.line_num} must have a step or none, a name and a value, got '
                                 f'{",".join(line)}') from None
    if 'config' not in facts:
        raise ValueError(f'{path} must have the fact config, got {", ".join(facts) or "none"}')
    if not series:
        raise ValueError(f'{path} must have values after steps, got facts alone')
    return RunFile(facts, series)


def finished(folder: Path, run: Run, config: str) -> Optional[RunFile]:
    """The content of a run's file, if the run is done with the config of this digest."""
    path = path_of(folder, run)
    content = read(path) if path.is_file() else None
    return content if content and content.facts['config'] == config else None
