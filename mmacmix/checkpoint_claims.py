"""Looks through the pickle of a checkpoint without making anything of it."""

import pickle
import struct
import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from typing import BinaryIO, Callable, Dict, Optional, Tuple

import torch

from mmacmix.checkpoint_calls import COUNTER, ENTRY, FIXED, MAPPING, OBJECT, build, call, is_dtype, new
from mmacmix.checkpoint_stand_ins import Budget, Made, Name, Unfit, is_key, refers, shown

# How deep lists, dicts and so on may lie in each other, and how many bytes a name may have.
DEEPEST = 100
LONGEST = 1000
SMALL, CONTAINER, SET = 10, 70, 230


class Claims:
    """Unpickles into nothing, and refuses what would take more memory than the file has bytes.

    No name is imported and nothing of the file's choice called. torch allocates what a file claims: a few bytes can
    ask for a tensor or array of any size, or for one whose description never ends.

    Args:
        file: The pickle, at its start.
        limit: How many bytes the file has.
        stored: Gives the bytes that are stored of a tensor by its key; None in files that keep them elsewhere.
        budget: Of the file, if it has several pickles.

    Raises:
        Unfit: A claim does not fit, or the pickle is not of the kind that torch writes.
    """

    def __init__(self, file: BinaryIO, limit: int, stored: Optional[Callable[[str], int]] = None,
                 budget: Optional[Budget] = None) -> None:
        self.file, self.limit, self.stored = file, limit, stored
        self.budget = budget or Budget(limit)
        self.stack: list = []
        self.marks: list = []
        self.memo: Dict[int, object] = {}
        self.claimed: Dict[str, Tuple[int, int]] = {}

    def load(self) -> object:
        """What the pickle holds, with stand-ins for objects."""
        while True:
            code = self.take(1)
            if code == pickle.STOP:
                result = self.stack.pop()
                _check_extent(result, self.limit)
                return result
            if code not in STEPS:
                raise Unfit('it is damaged, or no file of torch.save')
            cost, step = STEPS[code]
            self.budget.spend(cost)
            step(self)

    def claims(self) -> int:
        """Bytes of all storages."""
        return sum(size for size, _ in self.claimed.values())

    def take(self, length: int) -> bytes:
        if length > self.limit:
            raise Unfit('it is damaged: its end is missing')
        data = self.file.read(length)
        if len(data) < length:
            raise Unfit('it is damaged: its end is missing')
        return data

    def number(self, form: str) -> int:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def push(self, value: object) -> None:
        self.stack.append(value)

    def above_mark(self) -> list:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def mark(self) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def text(self) -> None:
        text = str(self.take(self.number('<I')), 'utf-8', 'surrogatepass')
        self.budget.spend(sys.getsizeof(text))
        self.push(text)

    def name(self) -> None:
        lines = [self.file.readline(LONGEST) for _ in range(2)]
        if any(line[-1:] != b'\n' for line in lines):
            raise Unfit('it is damaged, or no file of torch.save')
        module, name = (line[:-1].decode('utf-8') for line in lines)
        module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
        self.push(Name(f'{module}.{name}'))

    def put(self, form: str) -> None:
        place = self.number(form)
        # A list of all places is kept by the unpickler that is written in C.
        if place > len(self.memo) + 2**8:
            raise Unfit('it is damaged, or no file of torch.save')
        self.memo[place] = self.stack[-1]

    def tuple(self, length: Optional[int] = None) -> None:
        items = self.above_mark() if length is None else [self.stack.pop() for _ in range(length)][::-1]
        self.push(tuple(items))

    def append(self, items: list) -> None:
        if type(self.stack[-1]) is not list:
            raise Unfit(f'only lists may be added to, got {shown(self.stack[-1])}')
        self.budget.spend(SMALL * len(items))
        self.stack[-1].extend(items)

    def set_items(self, items: list) -> None:
        target = self.stack[-1]
        for key in items[::2]:
            if not is_key(key):
                raise Unfit(f'keys must be text or small numbers, got {shown(key)}')
        self.budget.spend(ENTRY * len(items))
        if type(target) is dict and len(items) % 2 == 0:
            target.update(zip(items[::2], items[1::2]))
        elif type(target) is Made and (target.kind in (MAPPING, COUNTER) or type(target.kind) is Name
                                       and target.kind not in FIXED):
            target.parts.extend(items)
        else:
            raise Unfit(f'only mappings may have keys, got {shown(target)}')

    def reduce(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = call(self.stack[-1], args, self.budget)

    def new(self) -> None:
        args = self.stack.pop()
        self.stack[-1] = new(self.stack[-1], args)

    def build(self) -> None:
        state = self.stack.pop()
        build(self.stack[-1], state, self.budget)

    def storage(self) -> None:
        pid = self.stack.pop()
        self.push(self._storage(*pid) if type(pid) is tuple and len(pid) == (5 if self.stored else 6) else None)
        if self.stack[-1] is None:
            raise Unfit(f'a tensor must be stored under a key, got {shown(pid)}')

    def _storage(self, word: object, kind: object, key: object, location: object, numel: object,
                 view: object = None) -> Optional[Made]:
        key, location, word = (x.decode('ascii') if type(x) is bytes else x for x in (key, location, word))
        if any(type(x) is not str or len(x) > 64 for x in (key, location, word)) or word != 'storage':
            return None
        if type(kind) is not Name or type(numel) is not int or not 0 <= numel < 2**60:
            return None
        kind = kind.rpartition('.')[2]
        dtype = torch.uint8 if kind == 'UntypedStorage' else torch.serialization.StorageType(kind).dtype
        width = torch.empty(0, dtype=dtype).element_size()
        claim = numel * width, width
        if claim[0] > (self.stored(key) if self.stored else self.limit):
            raise Unfit(f'tensors must not be larger than what is stored, got {claim[0]} bytes for {shown(key)}')
        if self.claimed.setdefault(key, claim) != claim:
            raise Unfit(f'a tensor must be stored in one size, got two for {shown(key)}')
        if view is not None:
            return self._view(view, numel, width)
        return Made('storage', claim[0], width)

    def _view(self, view: object, numel: int, width: int) -> Optional[Made]:
        """A part of a storage, as torch wrote it before version 0.4."""
        if type(view) is not tuple or tuple(map(type, view)) != (str, int, int):
            return None
        _, offset, length = view
        return Made('storage', length * width, width) if 0 <= offset <= offset + length <= numel else None


def _check_extent(root: object, limit: int) -> None:
    """Refuses what could not be written out, hashed or compared: parts can hold each other, or be shared over and over.

    Raises:
        Unfit: Written out it would be longer than the file, it lies deeper than ``DEEPEST``, or it holds a function.
    """
    extents: Dict[int, Tuple[int, int]] = {}
    open_, todo = set(), [root]
    while todo:
        value = todo[-1]
        if id(value) in extents:
            todo.pop()
            continue
        inside = _inside(value)
        if id(value) not in open_:
            open_.add(id(value))
            missing = [x for x in inside if id(x) not in extents]
            if any(id(x) in open_ for x in missing):
                raise Unfit('nothing in it may hold itself')
            if missing:
                todo.extend(missing)
                continue
        open_.discard(id(value))
        todo.pop()
        known = [extents[id(x)] for x in inside]
        own = len(value) if type(value) in (str, bytes) else 1
        extent = own + sum(length for length, _ in known), 1 + max((depth for _, depth in known), default=0)
        if extent[0] > limit + 2**20 or extent[1] > DEEPEST:
            raise Unfit(f'its parts must not lie deeper in each other than {DEEPEST}, nor be longer than the file')
        extents[id(value)] = extent


def _inside(value: object) -> list:
    if type(value) is Name and not is_dtype(value):
        raise refers(value)
    if type(value) is dict:
        return [*value, *value.values()]
    return value.parts if type(value) is Made else list(value) if type(value) in (list, tuple) else []


# All that torch's safe mode reads: bytes of memory that each takes, about, and what it does.
STEPS: Dict[bytes, Tuple[int, Callable[[Claims], object]]] = {
    pickle.PROTO: (0, lambda x: x.take(1)),
    pickle.GLOBAL: (ENTRY, Claims.name),
    pickle.REDUCE: (SMALL, Claims.reduce),
    pickle.NEWOBJ: (2 * ENTRY, Claims.new),
    pickle.BUILD: (ENTRY, Claims.build),
    pickle.BINPERSID: (OBJECT // 2, Claims.storage),
    pickle.MARK: (CONTAINER, Claims.mark),
    pickle.APPEND: (SMALL, lambda x: x.append([x.stack.pop()])),
    pickle.APPENDS: (SMALL, lambda x: x.append(x.above_mark())),
    pickle.SETITEM: (SMALL, lambda x: x.set_items([x.stack.pop() for _ in range(2)][::-1])),
    pickle.SETITEMS: (SMALL, lambda x: x.set_items(x.above_mark())),
    pickle.TUPLE: (CONTAINER, Claims.tuple),
    pickle.TUPLE1: (CONTAINER, lambda x: x.tuple(1)),
    pickle.TUPLE2: (CONTAINER, lambda x: x.tuple(2)),
    pickle.TUPLE3: (CONTAINER, lambda x: x.tuple(3)),
    pickle.NONE: (SMALL, lambda x: x.push(None)),
    pickle.NEWFALSE: (SMALL, lambda x: x.push(False)),
    pickle.NEWTRUE: (SMALL, lambda x: x.push(True)),
    pickle.EMPTY_TUPLE: (SMALL, lambda x: x.push(())),
    pickle.EMPTY_LIST: (CONTAINER, lambda x: x.push([])),
    pickle.EMPTY_DICT: (CONTAINER, lambda x: x.push({})),
    pickle.EMPTY_SET: (SET, lambda x: x.push(Made('set'))),
    pickle.BININT: (4 * SMALL, lambda x: x.push(x.number('<i'))),
    pickle.BININT1: (SMALL, lambda x: x.push(x.number('<B'))),
    pickle.BININT2: (4 * SMALL, lambda x: x.push(x.number('<H'))),
    pickle.LONG1: (4 * SMALL, lambda x: x.push(pickle.decode_long(x.take(x.number('<B'))))),
    pickle.BINFLOAT: (4 * SMALL, lambda x: x.push(x.number('>d'))),
    pickle.BINUNICODE: (SMALL, Claims.text),
    pickle.SHORT_BINSTRING: (CONTAINER, lambda x: x.push(x.take(x.number('<B')))),
    pickle.BINGET: (SMALL, lambda x: x.push(x.memo[x.number('<B')])),
    pickle.LONG_BINGET: (SMALL, lambda x: x.push(x.memo[x.number('<I')])),
    pickle.BINPUT: (ENTRY, lambda x: x.put('<B')),
    pickle.LONG_BINPUT: (ENTRY, lambda x: x.put('<I')),
}
