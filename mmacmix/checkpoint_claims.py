"""Looks through the pickle of a checkpoint without making anything of it."""

import math
import pickle
from typing import BinaryIO, Callable, Dict, Optional

import torch

# What torch writes and its safe mode reads; not those that allocate what they claim, or refer to a registry.
_LEFT_OUT = {pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER, pickle.EXT1, pickle.EXT2, pickle.EXT4,
             pickle.INST, pickle.OBJ, pickle.NEWOBJ_EX, pickle.PERSID}


class Unfit(ValueError):
    """Why a file is no checkpoint."""


class _Nothing:
    """Takes the place of any object."""

    def ignore(self, *args: object) -> None:
        pass

    append = extend = add = update = __setitem__ = ignore


class _Storage(_Nothing):
    def __init__(self, numel: int) -> None:
        self.numel = numel


class Claims(pickle._Unpickler):
    """Unpickles into nothing, and refuses what would take more memory than the file has bytes.

    No name is imported and no function of the file's choice called. torch allocates what a file claims: a few bytes
    can ask for a tensor or array of any size.

    Args:
        file: The pickle, at its start.
        limit: How many bytes the file has.
        stored: Gives the bytes that are stored of a tensor by its key; None in files that keep them elsewhere.

    Raises:
        Unfit: A claim does not fit, or the pickle is not of the kind that torch writes.
    """

    dispatch = {code: load for code, load in pickle._Unpickler.dispatch.items() if bytes([code]) not in _LEFT_OUT}

    def __init__(self, file: BinaryIO, limit: int, stored: Optional[Callable[[str], int]] = None) -> None:
        super().__init__(file, encoding='bytes')
        self.limit, self.stored = limit, stored
        self.claimed: Dict[str, int] = {}

    def find_class(self, module: str, name: str) -> str:
        return f'{module}.{name}'

    def persistent_load(self, pid: tuple) -> _Storage:
        if not isinstance(pid, tuple) or len(pid) < 5:
            raise Unfit(f'a tensor must be stored under a key, got {pid!r:.80}')
        kind, key, numel = str(pid[1]).rpartition('.')[2], pid[2], pid[4]
        dtype = torch.uint8 if kind == 'UntypedStorage' else torch.serialization.StorageType(kind).dtype
        if type(numel) is not int or numel < 0:
            raise Unfit(f'a tensor must have a number of elements, got {numel!r:.80}')
        size = self.claimed[str(key)] = numel * torch.empty(0, dtype=dtype).element_size()
        if size > (self.stored(key) if self.stored else self.limit):
            raise Unfit(f'tensors must not be larger than what is stored, got {size} bytes for {key!r:.20}')
        return _Storage(numel)

    def call(self, function: object, args: object) -> _Nothing:
        if not isinstance(function, str) or not isinstance(args, tuple):
            raise Unfit(f'only functions with arguments may be called, got {type(function).__name__}')
        module, _, name = function.rpartition('.')
        if name == '_rebuild_from_type_v2':
            self.call(args[0], args[2])
        elif name.startswith(('_rebuild_tensor', '_rebuild_qtensor')):
            storage, offset, shape, stride = args[:4]
            last = offset + sum((side - 1) * step for side, step in zip(shape, stride))
            if math.prod(shape) and (min(shape + stride + (offset,), default=0) < 0 or last >= storage.numel
                                     or math.prod(shape) > storage.numel):
                raise Unfit(f'tensors must not be larger than what is stored, got shape {shape!r:.60}')
        elif name == '_reconstruct':
            if args[1] != (0,):
                raise Unfit(f'arrays must be made empty before they are filled, got shape {args[1]!r:.60}')
        elif math.prod(max(n, 1) for n in args if type(n) is int) > self.limit:
            raise Unfit(f'nothing must be larger than the file, got {function}{args!r:.60}')
        return _Nothing()

    def load_reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = self.call(self.stack[-1], args)

    def load_newobj(self) -> None:
        args = self.stack.pop()
        if args != ():
            raise Unfit(f'objects must be made without arguments, got {args!r:.60}')
        self.stack[-1] = _Nothing()

    def load_build(self) -> None:
        self.stack.pop()

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.BUILD[0]] = load_build
