"""Rows that belong together: one benchmark on one machine with one setting, the newest rows of every case."""

from pathlib import Path
from typing import Dict, List, Sequence, Tuple

import records

#: What is the same in a group; sizes, passes and sides vary in it.
SETTING = tuple(c for c in records.CONFIGURATION if c not in ('side', 'pass', 'height', 'width', 'pixels'))
#: What is the same in a case; the commit may differ where the source does not.
VERSIONS = tuple(c for c in records.VERSIONS if c != 'commit')
Case = Tuple[str, int, int]  # pass, height, width


class Group:
    """Figures of one setting.

    Attributes:
        setting: The columns SETTING.
        cases: Rows by side, by case: the newest of each side. All rows of a case are of the same source and versions,
            those of the newest.
    """

    def __init__(self, setting: Dict[str, str], rows: Sequence[Dict[str, str]]) -> None:
        self.setting = setting
        self.cases: Dict[Case, Dict[str, Dict[str, str]]] = {}
        versions: Dict[Case, Tuple[str, ...]] = {}
        for row in sorted(rows, key=lambda row: row['date']):
            case = (row['pass'], int(row['height']), int(row['width']))
            measured = tuple(row[name] for name in VERSIONS)
            if versions.setdefault(case, measured) != measured:
                self.cases[case] = {}
                versions[case] = measured
            self.cases.setdefault(case, {})[row['side']] = row

    @property
    def benchmark(self) -> str:
        return self.setting['benchmark']

    def sides(self) -> set:
        return {side for rows in self.cases.values() for side in rows}

    def sizes(self, name: str) -> List[Tuple[int, int]]:
        """Sizes of a pass, small ones first."""
        found = [(height, width) for case, height, width in self.cases if case == name]
        return sorted(found, key=lambda size: (size[0] * size[1], size))

    def values(self, column: str) -> List[str]:
        """What the rows have in a column, each once."""
        return sorted({row[column] for rows in self.cases.values() for row in rows.values() if row[column]})


def load(paths: Sequence[Path]) -> List[Group]:
    """Groups of the rows of several files.

    Raises:
        ValueError: A file has other columns, or no rows.
    """
    found: Dict[Tuple[str, ...], List[Dict[str, str]]] = {}
    for path in paths:
        rows = records.read(path)
        if not rows:
            raise ValueError(f'{path} must have rows, got none')
        for row in rows:
            found.setdefault(tuple(row[name] for name in SETTING), []).append(row)
    return [Group(dict(zip(SETTING, setting)), rows) for setting, rows in sorted(found.items())]


def file_names(groups: Sequence[Group]) -> List[str]:
    """A name for a picture of each group: the benchmark, the device, and what else it takes to tell them apart."""
    names = []
    for group in groups:
        parts = [group.benchmark, group.setting['device']]
        rivals = [g for g in groups if [g.benchmark, g.setting['device']] == parts]
        for column in SETTING:
            if len({g.setting[column] for g in rivals}) > 1:
                parts.append(''.join(c if c.isalnum() else '-' for c in group.setting[column]))
        names.append('_'.join(parts) + '.png')
    return names


def describe(group: Group) -> str:
    """The setting in words, for a title."""
    setting = group.setting
    words = [setting['device_name']]
    if setting['device'] == 'cpu':
        words.append(f'{setting["threads"]} thread{"" if setting["threads"] == "1" else "s"}')
    words += [setting['dtype'], f'batch {setting["batch"]}']
    if group.benchmark == 'operator':
        words += [f'{setting["channels"]} channels', f'{setting["heads"]} heads']
        words.append(f'{setting["kernel"]} x {setting["kernel"]} window')
        words += [f'{name} {setting[name]}' for name in ('stride', 'dilation') if setting[name] != '1']
        words += ['channels_last'] if setting['memory_format'] == 'channels_last' else []
    return ', '.join(words)
