"""The process in which something is measured: takes a job as JSON, writes what it finds as lines of JSON.

Started by runs.py, never by hand.
"""

import contextlib
import gc
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Iterator

TINY = 128  # pixels: of the call that loads libraries and settles caches before memory is measured


def answer(job: dict) -> Iterator[dict]:
    """Does a job.

    Args:
        job: 'task' ('memory' or 'time'); 'module', whose ``prepare(case, side)`` gives a function from (height, width)
            to the call to measure; 'case'; 'sides' (one for memory); for time also 'rounds' and 'budget' in
            seconds; 'limit' in MiB or None.

    Yields:
        The messages of :func:`measuring.interleave`; for memory one with 'extra' and 'total' in MiB, or 'failed'.
    """
    import torch
    from measuring import interleave, limit_memory, peak_memory, reason_of

    case = job['case']
    prepare = importlib.import_module(job['module']).prepare
    size = (case['height'], case['width'])
    torch.set_num_threads(case['threads'])
    set_precision(case['dtype'])
    if job['task'] == 'memory':
        (side,) = job['sides']
        try:
            at = prepare(case, side)
            at(min(TINY, size[0]), min(TINY, size[1]))()
            extra, total = peak_memory(at(*size), case['device'], job['limit'])
            yield {'side': side, 'extra': extra, 'total': total}
        except Exception as error:
            yield {'side': side, 'failed': reason_of(error)}
        return
    calls = {}
    for side in job['sides']:
        yield {'begin': side}
        try:
            calls[side] = prepare(case, side)(*size)
        except Exception as error:
            yield {'side': side, 'failed': reason_of(error)}
    if job['limit'] is not None and case['device'] == 'cpu':
        limit_memory(job['limit'])
    yield from interleave(calls, case['device'], job['rounds'], job['budget'])


def set_precision(dtype: str) -> None:
    """Products of float32 matrices are rounded to TF32 for 'tf32' alone."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = dtype == 'tf32'
    torch.backends.cudnn.allow_tf32 = dtype == 'tf32'


def main() -> None:
    # Whatever libraries print goes elsewhere than the messages.
    channel = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    with contextlib.suppress(OSError):  # if the system runs short, it should end this process before others
        Path('/proc/self/oom_score_adj').write_text('1000')
    gc.disable()  # measuring collects between calls
    for message in answer(json.loads(sys.argv[1])):
        print(json.dumps(message), file=channel)


if __name__ == '__main__':
    main()
