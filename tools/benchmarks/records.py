"""Rows of figures in CSV files: what a row says, and which rows are there already."""

import csv
import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Dict, Iterable, List, Tuple

#: What was measured; two rows that agree in these are of the same configuration.
CONFIGURATION = (
    'benchmark', 'side', 'pass', 'device', 'device_name', 'threads', 'dtype', 'memory_format', 'batch', 'channels',
    'heads', 'kernel', 'stride', 'dilation', 'height', 'width', 'pixels',
)
#: Of which code; a finished row is not measured again until one of these changes.
VERSIONS = ('torch', 'mmacmix', 'mmcv', 'mmdet', 'commit', 'source')
FIGURES = ('status', 'rounds', 'median_s', 'min_s', 'max_s', 'peak_extra_mib', 'peak_total_mib')
COLUMNS = (*CONFIGURATION, *FIGURES, *VERSIONS, 'date', 'command')
#: Statuses of rows that need not be tried again.
FINISHED = ('ok', 'out of memory')
ROOT = Path(__file__).resolve().parents[2]


def read(path: Path) -> List[Dict[str, str]]:
    """Rows of a file in the order in which they were written; an unfinished last line is left out.

    Raises:
        ValueError: The file has other columns.
    """
    with open(path, newline='') as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            got = ','.join(reader.fieldnames or ())
            raise ValueError(f'{path} must have the columns {",".join(COLUMNS)}, got {got}')
        return [row for row in reader if None not in row.values() and None not in row]


def append(path: Path, rows: Iterable[dict]) -> None:
    """Adds rows at the end of a file, which is made with its folder if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a+', newline='') as file:
        if file.tell() == 0:
            csv.writer(file, lineterminator='\n').writerow(COLUMNS)
        else:
            file.seek(0)
            text = file.read()
            if not text.endswith('\n'):  # a run that was killed while it wrote
                file.truncate(len(text[: text.rfind('\n') + 1].encode()))
        csv.DictWriter(file, COLUMNS, lineterminator='\n').writerows(rows)
        file.flush()
        os.fsync(file.fileno())


def key(row: dict) -> Tuple[str, ...]:
    """Configuration and versions of a row, as the file has them."""
    return tuple(str(row[name]) for name in (*CONFIGURATION, *VERSIONS))


def finished(path: Path) -> set:
    """Keys of the rows that need not be measured again."""
    return {key(row) for row in read(path) if row['status'] in FINISHED} if path.is_file() else set()


def device_name(device: str) -> str:
    """Name of the processor or of the GPU."""
    if device == 'cuda':
        import torch

        return torch.cuda.get_device_name()
    info = Path('/proc/cpuinfo')
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith('model name'):
                return line.partition(':')[2].strip()
    return platform.processor() or platform.machine()


def versions() -> Dict[str, str]:
    """The columns VERSIONS: empty where a package or git is missing.

    'commit' is that of this checkout, with '+dirty' if the package or the benchmarks differ from it, also when an
    installed package is not the one of the checkout; 'source' is a digest of the package that is measured.
    """
    import torch

    import mmacmix

    source = digest(Path(mmacmix.__file__).parent)
    commit = git('rev-parse', '--short=10', 'HEAD')
    changed = git('status', '--porcelain', '--', 'mmacmix', 'tools/benchmarks') or source != digest(ROOT / 'mmacmix')
    commit += '+dirty' if commit and changed else ''
    return dict(
        torch=torch.__version__,
        mmacmix=mmacmix.__version__,
        mmcv=installed('mmcv', 'onedl-mmcv'),
        mmdet=installed('mmdet', 'onedl-mmdetection'),
        commit=commit,
        source=source,
    )


def digest(package: Path) -> str:
    """Eight digits that change with any Python file of a package."""
    found = hashlib.sha256()
    for path in sorted(package.rglob('*.py')):
        name = path.relative_to(package)
        if '.mim' not in name.parts:
            found.update(name.as_posix().encode() + b'\0' + path.read_bytes() + b'\0')
    return found.hexdigest()[:8]


def git(*args: str) -> str:
    """What git says about this checkout; '' without git, or where this file is not git's."""
    try:
        for command in (['ls-files', '--error-unmatch', 'mmacmix/__init__.py'], args):
            done = subprocess.run(['git', '-C', str(ROOT), *command], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ''
    return done.stdout.strip()


def installed(*names: str) -> str:
    """Version of the first of these distributions that is installed, or ''."""
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ''
