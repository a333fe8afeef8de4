"""What a checkpoint may refer to beside tensors: what mmengine's own checkpoints hold, and nothing else.

From torch 2.6 on, ``torch.load`` refuses every global that is not on a list. The checkpoints of mmengine's runner
hold its message hub, whose history buffers refer to functions, numpy arrays and the builtin ``getattr``, and the
state of OneCycleLR, which refers to its curve in the same way. Allowing the real ``getattr`` would let a crafted file
reach any function, so its place is taken by one that resolves nothing but the statistics of a history buffer and
these curves.
"""

import pickle
from typing import Dict

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

# What a metric's best value can be, and others in the message hub: the plain numbers of numpy, by its own codes.
PLAIN_DTYPES = ('b1', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')
STATISTICS = ('current', 'max', 'mean', 'min', 'statistics')


CURVES = ('_annealing_cos', '_annealing_linear')


class OneCycle:
    """Stands for mmengine's OneCycleParamScheduler, of which a checkpoint wants a curve and no more."""

    _annealing_cos = staticmethod(OneCycleParamScheduler._annealing_cos)
    _annealing_linear = staticmethod(OneCycleParamScheduler._annealing_linear)


def getattr_of_few(owner: object, name: str) -> object:
    """Stands for ``getattr`` while a checkpoint is unpickled.

    Raises:
        pickle.UnpicklingError: Anything but a statistic of ``HistoryBuffer`` or a curve of ``OneCycle`` is asked for.
    """
    if owner is HistoryBuffer and name in STATISTICS or owner is OneCycle and name in CURVES:
        return getattr(owner, name)
    raise pickle.UnpicklingError(
        f'a checkpoint may only refer to the statistics {STATISTICS} of HistoryBuffer and to the curves {CURVES} of '
        f'OneCycleParamScheduler, got getattr({owner!r}, {name!r})'
    )


def name_of(kind: type) -> str:
    """As a pickle refers to it."""
    return f'{kind.__module__}.{kind.__qualname__}'


def mmengine_globals() -> Dict[str, object]:
    """Everything that mmengine's checkpoints refer to beside tensors, by the names that are in them."""
    array, number = np.zeros(1), np.float64(0)
    types = (HistoryBuffer, np.ndarray, np.dtype, *(type(np.dtype(code)) for code in PLAIN_DTYPES))
    allowed = {name_of(kind): kind for kind in types}
    allowed[name_of(OneCycleParamScheduler)] = OneCycle
    allowed['builtins.getattr'] = getattr_of_few
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
