"""What a checkpoint may refer to beside tensors: what mmengine's own checkpoints hold, and nothing else.

From torch 2.6 on, ``torch.load`` refuses every global that is not on a list. The checkpoints of mmengine's runner
hold its message hub, whose history buffers refer to functions, numpy arrays and the builtin ``getattr``. Allowing
the real ``getattr`` would let a crafted file reach any function, so its place is taken by one that resolves
nothing but the statistics of a history buffer.
"""

import pickle
from typing import Dict

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

# What a metric's best value can be, and others in the message hub: the plain numbers of numpy, by its own codes.
PLAIN_DTYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')
STATISTICS = ('current', 'max', 'mean', 'min', 'statistics')


def history_buffer_getattr(owner: object, name: str) -> object:
    """Stands for ``getattr`` while a checkpoint is unpickled.

    Raises:
        pickle.UnpicklingError: Anything but a statistic of ``HistoryBuffer`` is asked for.
    """
    if owner is HistoryBuffer and name in STATISTICS:
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(
        f'a checkpoint may only refer to the statistics {STATISTICS} of HistoryBuffer, '
        f'got getattr({owner!r}, {name!r})'
    )


def mmengine_globals() -> Dict[str, object]:
    """Everything that mmengine's checkpoints refer to beside tensors, by the names that are in them."""
    array, number = np.zeros(1), np.float64(0)
    types = (HistoryBuffer, np.ndarray, np.dtype, *(type(np.dtype(code)) for code in PLAIN_DTYPES))
    allowed = {f'{kind.__module__}.{kind.__qualname__}': kind for kind in types}
    allowed['builtins.getattr'] = history_buffer_getattr
    # Taken from the objects themselves, as numpy 1 and 2 keep these functions in modules of different names;
    # a file may name either.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed[f'{module}._reconstruct'] = array.__reduce__()[0]
        allowed[f'{module}.scalar'] = number.__reduce__()[0]
    return allowed


def allow_mmengine_globals() -> None:
    """Adds what mmengine's checkpoints need to torch's list of safe globals; does nothing on older torch.

    Named pairs (function, 'builtins.getattr') are understood by the same torch versions that load safely by
    default.
    """
    if torch.__version__ >= (2, 6):
        torch.serialization.add_safe_globals([(value, name) for name, value in mmengine_globals().items()])
