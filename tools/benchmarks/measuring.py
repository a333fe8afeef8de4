"""Time and memory of calls: interleaved rounds, and the peak of one call in a fresh process."""

import ctypes
import gc
import resource
import sys
import time
from pathlib import Path
from typing import Callable, Dict, Iterator, Optional, Tuple

import torch

Call = Callable[[], None]
MIB = 2**20
#: Calls before the first measured one. On a GPU the first also compiles kernels and the clock has to rise.
WARM_UPS = {'cpu': 1, 'cuda': 3}
STATUS = Path('/proc/self/status')
CLEAR_REFS = Path('/proc/self/clear_refs')


def interleave(calls: Dict[str, Call], device: str, rounds: int, budget: float) -> Iterator[dict]:
    """Measures several sides in turns, A B C A B C ..., so that what disturbs the machine disturbs all.

    A side whose rounds take longer than the budget gets fewer, spread over the whole run, at least one.

    Args:
        calls: What is measured, by side.
        device: 'cpu' or 'cuda'.
        rounds: Of every side that is fast enough.
        budget: Seconds of measured calls for each side.

    Yields:
        ``{'begin': side}`` before a call, ``{'side': side, 'seconds': t}`` for a measured call, and
        ``{'side': side, 'failed': reason}`` once, after which the side is left out.
    """
    gc.collect()
    gc.freeze()  # later collections need not look at libraries and models
    spent = dict.fromkeys(calls, 0.0)
    for i in range(-WARM_UPS[device], rounds):
        for side in list(spent):
            if i > 0 and spent[side] * rounds > budget * i:
                continue
            yield {'begin': side}
            try:
                seconds = seconds_of(calls[side], device)
            except Exception as error:
                del spent[side]
                yield {'side': side, 'failed': reason_of(error)}
                continue
            if i >= 0:
                spent[side] += seconds
                yield {'side': side, 'seconds': seconds}


def seconds_of(call: Call, device: str) -> float:
    """Time of one call, by events on a GPU and by the clock elsewhere."""
    gc.collect()
    if device == 'cuda':
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_memory(call: Call, device: str, limit: Optional[float] = None) -> Tuple[float, float]:
    """Peak memory of one call, in MiB: above what was held before it, and in total.

    On a GPU it counts torch's allocations, elsewhere the resident memory of this process, which must be a
    fresh one: memory that an earlier call gave back to the C library would not be seen again.

    Args:
        limit: MiB above what is held now at which an allocation fails; Linux, CPU.
    """
    gc.collect()
    if device == 'cuda':
        call()  # what compiling and tuning take is not the call's
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated()
    else:
        if sys.platform == 'linux':
            ctypes.CDLL(None).malloc_trim(0)
        if limit is not None:
            limit_memory(limit)
        before = reset_peak()
        call()
        peak = resident('VmHWM')
    return (peak - before) / MIB, peak / MIB


def reset_peak() -> int:
    """Sets the recorded peak back to the memory held now, if the system can; returns the starting point, bytes."""
    try:
        CLEAR_REFS.write_text('5')
        return resident('VmRSS')
    except OSError:
        return resident('VmHWM')


def resident(entry: str) -> int:
    """Resident memory of this process, bytes: 'VmRSS' now, 'VmHWM' at its peak."""
    if STATUS.is_file():
        return status(entry)
    unit = 1 if sys.platform == 'darwin' else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def status(entry: str) -> int:
    """An entry of Linux's list of this process's memory, bytes."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f'{entry}:'))
    return int(line.split()[1]) * 1024


def limit_memory(extra: float) -> None:
    """Lets allocations fail that take this process more than ``extra`` MiB above what it has now."""
    bound = status('VmData') + int(extra * MIB)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def reason_of(error: BaseException) -> str:
    """'out of memory', or 'failed: ' and the error's type and first line."""
    words = str(error)
    if isinstance(error, MemoryError) or 'out of memory' in words or 'allocate memory' in words:
        return 'out of memory'
    return f'failed: {type(error).__name__}: {next(iter(words.splitlines()), "")}'
