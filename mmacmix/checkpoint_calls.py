"""What the pickle of a checkpoint may call, and with which arguments: as torch, numpy and mmengine write it.

Nothing is called here. Each form looks at arguments and says what would come of them, and how many bytes it takes.
"""

import math
from collections import OrderedDict
from typing import Callable, Dict, Optional

import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

from mmacmix.checkpoint_stand_ins import Budget, Made, Name, Unfit, is_key, refers, shown
from mmacmix.safe_globals import CURVES, PLAIN_DTYPES, STATISTICS, name_of

BUFFER, ONE_CYCLE = name_of(HistoryBuffer), name_of(OneCycleParamScheduler)
ARRAY, DTYPE, MAPPING, COUNTER = 'numpy.ndarray', 'numpy.dtype', 'collections.OrderedDict', 'collections.Counter'
# Bytes of an object of torch, and of an entry of a mapping, about.
OBJECT, ENTRY = 1000, 100


def call(name: object, args: object, budget: Budget) -> object:
    """What a call would make.

    Raises:
        Unfit: The function is not on the list, or torch, numpy and mmengine never call it so.
    """
    if type(name) is not Name or type(args) is not tuple:
        raise Unfit(f'only functions with arguments may be called, got {shown(name)}')
    if name not in FORMS:
        raise refers(name)
    made = FORMS[name](budget, *args) if len(args) < 9 else None
    if made is None:
        raise Unfit(f'{name} must be called as torch, numpy and mmengine do, got {", ".join(map(shown, args[:8]))}')
    budget.spend(OBJECT if made.__class__ is Made and made.kind == 'tensor' else ENTRY)
    return made


def new(name: object, args: object) -> Made:
    """What comes of a class without its ``__init__``.

    Raises:
        Unfit: It has arguments, or has to be made in another way.
    """
    if type(name) is not Name or args != ():
        raise Unfit(f'objects must be made of a class, without arguments, got {shown(name)}')
    closed = name == ONE_CYCLE or name.split('.')[0] in ('torch', 'numpy', 'builtins', 'collections', '_codecs')
    if closed and name not in (BUFFER, MAPPING):
        raise refers(name)
    return Made(name)


def build(made: object, state: object, budget: Budget) -> None:
    """Gives an object its state.

    Raises:
        Unfit: The state is not one that numpy, torch or mmengine give such an object.
    """
    if type(made) is not Made or not STATES.get(made.kind, _attributes_of_mapping)(made, state):
        raise Unfit(f'{shown(made)} must have a state as torch, numpy and mmengine give it, got {shown(state)}')
    if made.kind == ARRAY:
        budget.spend(state[4].size)
    made.parts.append(state)


def _form(count: int, most: Optional[int] = None) -> Callable:
    """A form with so many arguments; anything else fits none."""

    def wrap(form: Callable) -> Callable:
        return lambda budget, *args: form(budget, *args) if count <= len(args) <= (most or count) else None

    return wrap


def _sizes(value: object) -> bool:
    return type(value) is tuple and len(value) <= 64 and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _is(value: object, kind: str) -> bool:
    return type(value) is Made and value.kind == kind


def _hooks(value: object) -> bool:
    return value is None or _is(value, MAPPING) and not value.parts


def _attributes(state: object, owner: type) -> bool:
    """A state that hides nothing that objects of the class have."""
    return type(state) is dict and all(type(key) is str and not hasattr(owner, key) for key in state)


def _dense(storage: object, offset: object, shape: object, stride: object, width: Optional[int]) -> Optional[Made]:
    if not (_is(storage, 'storage') and _sizes((offset,)) and _sizes(shape) and _sizes(stride)) or width is None:
        return None
    numbers = storage.size // width
    last = offset + sum((side - 1) * step for side, step in zip(shape, stride))
    if len(shape) != len(stride) or math.prod(shape) and (last >= numbers or math.prod(shape) > numbers):
        raise Unfit(f'tensors must not be larger than what is stored, got shape {shown(shape)}')
    return Made('tensor')


@_form(4)
def _tensor(budget: Budget, storage: object, offset: object, shape: object, stride: object) -> Optional[Made]:
    return _dense(storage, offset, shape, stride, getattr(storage, 'width', None))


@_form(6, 7)
def _tensor_v2(budget: Budget, storage: object, offset: object, shape: object, stride: object, gradient: object,
               hooks: object, metadata: object = None) -> Optional[Made]:
    fits = type(gradient) is bool and _hooks(hooks) and type(metadata) in (dict, type(None))
    return _dense(storage, offset, shape, stride, getattr(storage, 'width', None)) if fits else None


@_form(7, 8)
def _tensor_v3(budget: Budget, storage: object, offset: object, shape: object, stride: object, gradient: object,
               hooks: object, dtype: object, metadata: object = None) -> Optional[Made]:
    fits = type(gradient) is bool and _hooks(hooks) and type(metadata) in (dict, type(None)) and is_dtype(dtype)
    return _dense(storage, offset, shape, stride, width_of(dtype)) if fits else None


@_form(3, 4)
def _parameter(budget: Budget, data: object, gradient: object, hooks: object, *state: object) -> Optional[Made]:
    fits = _is(data, 'tensor') and type(gradient) is bool and _hooks(hooks)
    return Made('tensor', parts=list(state)) if fits and all(_attributes(x, torch.Tensor) for x in state) else None


@_form(4)
def _from_type(budget: Budget, function: object, kind: object, args: object, state: object) -> Optional[Made]:
    if type(function) is not Name or FORMS.get(function) not in (_tensor, _tensor_v2, _tensor_v3, _parameter):
        raise refers(function if type(function) is Name else shown(function))
    made = call(function, args, budget)
    fits = kind in ('torch.Tensor', 'torch.nn.parameter.Parameter') if type(kind) is Name else False
    made.parts.append(state)
    return made if fits and (state is None or _attributes(state, torch.Tensor)) else None


@_form(2)
def _encoded(budget: Budget, text: object, code: object) -> Optional[Made]:
    """Bytes, which the second protocol of pickle writes as text."""
    if type(text) is not str or type(code) is not str or code not in ('latin1', 'latin-1'):
        return None
    budget.spend(len(text))
    return Made('bytes', len(text))


@_form(0, 2)
def _bytearray(budget: Budget, *content: object) -> Optional[Made]:
    if len(content) == 2:
        return _encoded(budget, *content)
    if content and not _is(content[0], 'bytes'):
        return None
    budget.spend(content[0].size if content else 0)
    return Made('bytearray')


@_form(0, 1)
def _mapping(budget: Budget, items: object = ()) -> Optional[Made]:
    """Python 2 gave its items at once, as a list of lists."""
    if type(items) not in (list, tuple) or not all(
            type(item) in (list, tuple) and len(item) == 2 and is_key(item[0]) for item in items):
        return None
    budget.spend(2 * ENTRY * len(items))
    return Made(MAPPING, parts=[x for item in items for x in item])


@_form(0, 1)
def _counter(budget: Budget, counts: object = None) -> Optional[Made]:
    if type(counts) not in (dict, type(None)):
        return None
    budget.spend(ENTRY * len(counts or ()))
    return Made(COUNTER, parts=[counts])


@_form(1)
def _set(budget: Budget, items: object) -> Optional[Made]:
    if type(items) is not list or not all(map(is_key, items)):
        return None
    budget.spend(2 * ENTRY * (1 + len(items)))
    return Made('set', parts=list(items))


@_form(2)
def _complex(budget: Budget, real: object, imaginary: object) -> Optional[complex]:
    return complex(real, imaginary) if type(real) is type(imaginary) is float else None


@_form(1)
def _size(budget: Budget, sides: object) -> Optional[tuple]:
    return sides if _sizes(sides) else None


@_form(1, 2)
def _device(budget: Budget, kind: object, index: object = 0) -> Optional[Made]:
    return Made('device') if type(kind) is str and type(index) is int else None


@_form(1)
def _layout(budget: Budget, name: object) -> Optional[Made]:
    return Made('layout') if type(name) is str else None


@_form(2)
def _function(budget: Budget, owner: object, name: object) -> Made:
    """One of those that belong to a class."""
    if type(owner) is Name and type(name) is str:
        if owner == BUFFER and name in STATISTICS:
            return Made('statistic', parts=[name])
        if owner == ONE_CYCLE and name in CURVES:
            return Made('curve')
    raise refers(f'getattr({owner if type(owner) is Name else shown(owner)}, {shown(name)})')


@_form(3)
def _dtype(budget: Budget, code: object, align: object, copy: object) -> Optional[Made]:
    """Numbers only: records and objects could hold anything, and void any number of bytes."""
    fits = type(code) is str and code in PLAIN_DTYPES and type(align) in (bool, int) and type(copy) in (bool, int)
    # Without the copy its state would be given to the one that numpy itself works with.
    return Made(DTYPE, int(code[1:])) if fits and (align, copy) == (0, 1) else None


@_form(2)
def _scalar(budget: Budget, dtype: object, content: object) -> Optional[Made]:
    return Made('number') if _is(dtype, DTYPE) and _is(content, 'bytes') and content.size == dtype.size else None


@_form(3)
def _array(budget: Budget, kind: object, shape: object, code: object) -> Optional[Made]:
    """Made empty; its state fills it."""
    fits = type(kind) is Name and kind == ARRAY and _sizes(shape) and shape == (0,) and _is(code, 'bytes')
    return Made(ARRAY) if fits and code.size == 1 else None


def _state_of_dtype(made: Made, state: object) -> bool:
    simple = (int, str) + (type(None),) * 3 + (int,) * 3
    return (type(state) is tuple and tuple(map(type, state)) == simple and state[0] == 3 and state[1] in tuple('<>|=')
            and state[5:] == (-1, -1, 0))


def _state_of_array(made: Made, state: object) -> bool:
    if type(state) is not tuple or len(state) != 5:
        return False
    version, shape, dtype, fortran, content = state
    return (type(version) is int and version == 1 and _sizes(shape) and _is(dtype, DTYPE) and type(fortran) is bool
            and _is(content, 'bytes') and content.size == math.prod(shape) * dtype.size)


def _state_of_buffer(made: Made, state: object) -> bool:
    """Its statistics go to all buffers: each under its own name."""
    if type(state) is not dict or set(state) != {'max_length', '_log_history', '_count_history', 'statistics_methods'}:
        return False
    methods = state['statistics_methods']
    return (type(state['max_length']) is int and _is(state['_log_history'], ARRAY)
            and _is(state['_count_history'], ARRAY) and type(methods) is dict
            and all(_is(method, 'statistic') and method.parts == [name] for name, method in methods.items()))


def _attributes_of_mapping(made: Made, state: object) -> bool:
    """Of an OrderedDict, or of a class for which one stands."""
    ours = made.kind == MAPPING or made.kind not in FIXED and isinstance(made.kind, Name)
    return ours and _attributes(state, OrderedDict)


def is_dtype(name: object) -> bool:
    """Whether the file refers to a dtype of torch."""
    return type(name) is Name and name[:6] == 'torch.' and isinstance(getattr(torch, name[6:], None), torch.dtype)


def width_of(name: str) -> int:
    return torch.empty(0, dtype=getattr(torch, name[6:])).element_size()


FIXED = (COUNTER, ARRAY, DTYPE, BUFFER)
STATES = {DTYPE: _state_of_dtype, ARRAY: _state_of_array, BUFFER: _state_of_buffer}
FORMS: Dict[str, Callable] = {
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor_v2,
    'torch._utils._rebuild_tensor_v3': _tensor_v3,
    'torch._utils._rebuild_parameter': _parameter,
    'torch._utils._rebuild_parameter_with_state': _parameter,
    'torch._tensor._rebuild_from_type_v2': _from_type,
    'torch.Size': _size,
    'torch.device': _device,
    'torch.serialization._get_layout': _layout,
    '_codecs.encode': _encoded,
    'builtins.bytearray': _bytearray,
    'builtins.set': _set,
    'builtins.complex': _complex,
    'builtins.getattr': _function,
    MAPPING: _mapping,
    COUNTER: _counter,
    DTYPE: _dtype,
    **{f'numpy.{core}.multiarray.{name}': form for core in ('core', '_core')
       for name, form in (('_reconstruct', _array), ('scalar', _scalar))},
}
