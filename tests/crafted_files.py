"""Files that a stranger could hand out as checkpoints: each would run code, take all memory, or is none at all.

What runs makes the file `canary`. FILES[name](path, canary) makes a file.
"""

import _codecs
import bz2
import functools
import io
import os
import pickle
import struct
import tarfile
import tempfile
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Tuple

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler

WEIGHTS = {'backbone.weight': torch.ones(4, 2), 'backbone.bias': torch.ones(4)}


def once(make):
    """For what takes seconds to make and does not run: a process makes it just once."""

    @functools.lru_cache(None)
    def content():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'made.pth')
            make(path)
            return path.read_bytes()

    return lambda path, canary: path.write_bytes(content())


class Call:
    """Is pickled as a call."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def run_state(**more):
    """What a checkpoint of a run holds."""
    return dict(
        state_dict=dict(WEIGHTS), meta=dict(epoch=1, iter=2, seed=0), optimizer={}, param_schedulers=[],
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}), **more,
    )


def saved(content, path, **options):
    torch.save(content, path, **options)


def rewritten(path, change=lambda name, data: data, more=(), method=zipfile.ZIP_STORED):
    """A checkpoint with other parts: change(name, data) and (name, data) of `more`."""
    source = io.BytesIO()
    torch.save(run_state(), source)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, 'w', method) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, data in more:
            new.writestr(name, data)


def pickle_of(text):
    """A change of rewritten: this pickle is in the file."""
    return lambda name, data: text if name.endswith('data.pkl') else data


def touch(canary):
    return f'touch {canary}'


def jit_archive(path, canary):
    class Module(torch.nn.Module):
        def forward(self, x):
            return x

    torch.jit.script(Module()).save(str(path))


def legacy_tar(path, canary):
    with tarfile.open(path, 'w') as archive:
        for name in ('sys_info', 'storages', 'tensors', 'pickle'):
            data = pickle.dumps(Call(os.system, touch(canary)))
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def huge_storage(path, canary):
    """The 8 numbers of the first weight become 2^40: K and one byte, \\x8a and as many bytes as the next one says."""

    def change(name, data):
        if not name.endswith('data.pkl'):
            return data
        start = data.index(b'K\x08', data.index(b'cpu'))
        return data[:start] + b'\x8a\x06' + struct.pack('<Q', 2**40)[:6] + data[start + 2:]

    rewritten(path, change)


SCALAR, RECONSTRUCT = np.float64(0).__reduce__()[0], np.zeros(1).__reduce__()[0]


def record(canary):
    """A meta that is a record of numpy: it has a config as a dict has one."""
    text = f'open({str(canary)!r}, "w")\ndata = dict()\n'
    kinds = [('epoch', '<i8'), ('iter', '<i8'), ('x', '<U6'), ('config', f'<U{len(text)}')]
    made = np.zeros((), kinds)
    made['x'], made['config'] = 'config', text
    return Call(SCALAR, Call(np.dtype, kinds), made.tobytes())


def hex_chain(links=20):
    """Text that is twice as long with every link."""
    content = b'x' * 1000
    for _ in range(links):
        content = Call(_codecs.encode, content, 'hex')
    return content


def compressed_tar(path):
    """1 GiB of a name in 800 bytes."""
    entry = tarfile.TarInfo('././@LongLink')
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 2**30
    packer = bz2.BZ2Compressor()
    with path.open('wb') as file:
        file.write(packer.compress(entry.tobuf(tarfile.GNU_FORMAT)))
        for _ in range(2**10):
            file.write(packer.compress(bytes(2**20)))
        file.write(packer.flush())


# Archives with two directories: Python reads the one before the end, torch the one that the end names.


def archive(content):
    """The parts of a checkpoint, or of a module of TorchScript, by name."""
    memory = io.BytesIO()
    torch.jit.save(content, memory) if isinstance(content, torch.jit.ScriptModule) else torch.save(content, memory)
    with zipfile.ZipFile(memory) as old:
        return {'archive/' + name.split('/', 1)[1]: old.read(name) for name in old.namelist()}


def zipped(parts, count, method):
    """Contents, and the directory, of an archive with so many parts."""
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, 'w', method) as made:
        for name, data in parts.items():
            made.writestr(name, data)
        for i in range(count - len(parts)):
            made.writestr(f'archive/more{i}', b'')
    data = memory.getvalue()
    length, start = struct.unpack('<II', data[-10:-2])
    return data[:start], data[start : start + length]


def longer(directory, length):
    """With a comment on its last entry."""
    last, more = directory.rindex(b'PK\x01\x02'), length - len(directory)
    return directory[: last + 32] + struct.pack('<H', more) + directory[last + 34 :] + bytes(more)


def moved(directory, by):
    """Its parts lie elsewhere."""
    made, place = bytearray(directory), 0
    while made[place : place + 4] == b'PK\x01\x02':
        start, = struct.unpack('<I', made[place + 42 : place + 46])
        made[place + 42 : place + 46] = struct.pack('<I', start + by)
        place += 46 + sum(struct.unpack('<HHH', made[place + 28 : place + 34]))
    return bytes(made)


def two_directories(path, hidden, method=zipfile.ZIP_STORED):
    shown, hidden = archive(run_state()), archive(hidden)
    count = max(len(shown), len(hidden))
    (seen, first), (unseen, second) = zipped(shown, count, zipfile.ZIP_STORED), zipped(hidden, count, method)
    length = max(len(first), len(second))
    first, second = longer(first, length), longer(second, length)
    end = struct.pack('<4s4H2IH', b'PK\5\6', 0, 0, count, count, length, len(unseen) + len(seen), 0)
    # Python adds `length` to all places, as if so much had been put before the archive.
    path.write_bytes(unseen + seen + second + moved(first, len(unseen) - length) + end)


def script(canary):
    """A module of TorchScript that makes a file when it is loaded."""

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.path, self.x = str(canary), torch.zeros(1)

        @torch.jit.export
        def __getstate__(self):
            return self.path, self.training

        @torch.jit.export
        def __setstate__(self, state: Tuple[str, bool]):
            self.path, self.training = state[0], state[1]
            self.x = torch.from_file(self.path, True, 16) + 1

        def forward(self, x):
            return x

    return torch.jit.script(Module())


def changed(path, change):
    """A checkpoint as torch writes it, with other bytes."""
    memory = io.BytesIO()
    torch.save(run_state(), memory)
    path.write_bytes(change(memory.getvalue()))


def put_between(data, more=bytes(64)):
    """Bytes between the parts and their directory: its place, in three ends, is later."""
    start = data.index(b'PK\x01\x02')
    old, new = struct.pack('<I', start), struct.pack('<I', start + len(more))
    end64 = data.index(b'PK\x06\x06')
    tail = data[end64:].replace(old, new).replace(struct.pack('<I', end64), struct.pack('<I', end64 + len(more)))
    return data[:start] + more + data[start:end64] + tail


def other_end(data):
    """The long end names other parts than the short one."""
    place = data.index(b'PK\x06\x06') + 48
    return data[:place] + struct.pack('<Q', 0) + data[place + 8 :]


def other_name(data):
    """A part that has another name than in the directory."""
    return data.replace(b'archive/data/0', b'archive/data/7', 1)


# Pickles by hand.


def nested(depth, last):
    """Tuples of two times the tuple before; the last one goes through `last`."""
    made = b'K\x01\x85'
    for i in range(depth):
        made += b'q' + bytes([i]) + b'h' + bytes([i]) + b'\x86'
    return last(made)


def text(value):
    return b'X' + struct.pack('<I', len(value)) + value


def equal_hashes(count=10**5):
    """Numbers as keys whose hashes are all the same."""
    numbers = (i * (2**61 - 1) for i in range(count))
    return b'}(' + b''.join(b'\x8a\x0a' + n.to_bytes(10, 'little') + b'N' for n in numbers) + b'u'


def weights_twice(path, canary):
    """Under one key as text and as a number: torch would read the same 160 MiB twice."""
    memory = io.BytesIO()
    torch.save(dict(state_dict={'backbone.weight': torch.zeros(40 * 2**20), 'x': torch.zeros(2)}), memory)
    with zipfile.ZipFile(memory) as old, zipfile.ZipFile(path, 'w') as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith('data.pkl'):
                place = data.index(text(b'1'))
                data = data[:place] + b'K\x00' + data[place + 6 :]
                data = data.replace(b'K\x02tq', struct.pack('<cI', b'J', 40 * 2**20) + b'tq')
            new.writestr(name, data)


def wider_tensor(path, canary):
    """16 bytes for each byte that is stored."""
    stored = torch.zeros(2**25, dtype=torch.uint8)
    saved(run_state(x=Call(torch._utils._rebuild_tensor_v3, stored.untyped_storage(), 0, (2**25,), (1,), False,
                           OrderedDict(), torch.complex128)), path)


HEAD, TAIL = b'\x80\x02', b'.'
GET_MEAN = b'c__builtin__\ngetattr\ncmmengine.logging.history_buffer\nHistoryBuffer\n' + text(b'mean') + b'\x86R'
FILES = {
    'os_system': lambda path, canary: saved(run_state(x=Call(os.system, touch(canary))), path),
    'eval': lambda path, canary: saved(run_state(x=Call(eval, f'open({str(canary)!r}, "w")')), path),
    'exec': lambda path, canary: saved(run_state(x=Call(exec, f'open({str(canary)!r}, "w")')), path),
    'open': lambda path, canary: saved(run_state(x=Call(open, str(canary), 'w')), path),
    'getattr_of_a_class': lambda path, canary: saved(run_state(x=Call(getattr, HistoryBuffer, '__init__')), path),
    'getattr_of_a_scheduler': lambda path, canary: saved(
        run_state(x=Call(getattr, OneCycleParamScheduler, 'build_iter_from_epoch')), path),
    'called_scheduler': lambda path, canary: saved(run_state(x=Call(OneCycleParamScheduler)), path),
    'made_scheduler': lambda path, canary: saved(
        run_state(x=object.__new__(OneCycleParamScheduler)), path),
    'called_curve': lambda path, canary: saved(
        run_state(x=Call(OneCycleParamScheduler._annealing_cos, 0, 1, 0.5)), path),
    'getattr_chain': lambda path, canary: saved(run_state(x=Call(
        getattr, Call(getattr, Call(getattr, HistoryBuffer, 'mean'), '__globals__'), 'clear')), path),
    'nested_reduce': lambda path, canary: saved(
        run_state(x=[Call(OrderedDict, [('x', Call(OrderedDict, [('x', Call(os.system, touch(canary)))]))])]), path),
    'in_the_message_hub': lambda path, canary: saved(dict(run_state(), message_hub=dict(
        log_scalars={'loss': Call(os.system, touch(canary))}, runtime_info={}, resumed_keys={})), path),
    'through_a_rebuild': lambda path, canary: saved(run_state(x=Call(
        torch._tensor._rebuild_from_type_v2, os.system, torch.Tensor, (touch(canary),), {})), path),
    'renamed_class': lambda path, canary: rewritten(path, pickle_of(
        HEAD + b'cmmengine.logging.history_buffer\nHistoryBuffers\n)R' + TAIL)),
    'module_behind_a_class': lambda path, canary: rewritten(path, pickle_of(
        HEAD + b'cmmengine.logging.history_buffer\nnp.testing._private.utils.runstring\nU\x01x}\x86R' + TAIL)),
    'bare_pickle': lambda path, canary: path.write_bytes(pickle.dumps(Call(os.system, touch(canary)))),
    'legacy_pickle': lambda path, canary: saved(
        run_state(x=Call(os.system, touch(canary))), path, _use_new_zipfile_serialization=False),
    'legacy_tar': legacy_tar,
    'torchscript': jit_archive,
    'config_text': lambda path, canary: saved(dict(run_state(), meta=dict(
        epoch=1, iter=2, config=f'open({str(canary)!r}, "w")')), path),
    'huge_storage': huge_storage,
    'huge_shape': lambda path, canary: saved(run_state(x=Call(
        torch._utils._rebuild_tensor_v2, torch.zeros(1).untyped_storage(), 0, (2**40,), (1,), False, {})), path),
    'hollow_tensor': lambda path, canary: saved(run_state(x=torch.zeros(1).expand(2**40)), path),
    'huge_bytearray': lambda path, canary: saved(run_state(x=Call(bytearray, 2**38)), path),
    'huge_tensor_class': lambda path, canary: saved(run_state(x=Call(torch.FloatTensor, 2**20, 2**20)), path),
    'huge_array': lambda path, canary: saved(run_state(x=Call(
        np.zeros(1).__reduce__()[0], np.ndarray, (2**38,), b'b')), path),
    'path_escape': lambda path, canary: rewritten(path, more=[(f'../../../..{canary}', b'here')]),
    'absolute_path': lambda path, canary: rewritten(path, more=[(str(canary), b'here')]),
    'compressed_bomb': lambda path, canary: rewritten(
        path, more=[('archive/data/9', bytes(2**26))], method=zipfile.ZIP_DEFLATED),
    'npz': lambda path, canary: np.savez(path.open('wb'), weight=np.ones(3)),
    'text': lambda path, canary: path.write_text('not a checkpoint\n'),
    'web_page': lambda path, canary: path.write_text('<html></html>'),
    'empty': lambda path, canary: path.write_bytes(b''),
    # Kinds that mmengine takes for dicts, and a text that it would run.
    'record_as_meta': lambda path, canary: saved(dict(run_state(), meta=record(canary)), path),
    'meta_is_a_list': lambda path, canary: saved(dict(run_state(), meta=['config']), path),
    'hub_is_a_list': lambda path, canary: saved(dict(run_state(), message_hub=['log_scalars']), path),
    'optimizer_is_text': lambda path, canary: saved(dict(run_state(), optimizer='state'), path),
    'a_list': lambda path, canary: saved([torch.ones(3)], path),
    'a_count': lambda path, canary: saved(Counter({'backbone.weight': 1}), path),
    'function_as_a_value': lambda path, canary: saved(run_state(x=dict(step=torch._utils._rebuild_tensor_v2)), path),
    'function_with_a_state': lambda path, canary: rewritten(path, pickle_of(
        HEAD + b'ctorch._utils\n_rebuild_tensor_v2\n}' + text(b'x') + b'K\x01sb' + TAIL)),
    'statistic_of_another_name': lambda path, canary: rewritten(path, pickle_of(
        HEAD + b'cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81}' + text(b'statistics_methods') + b'}'
        + text(b'max') + GET_MEAN + b'ssb' + TAIL)),
    # Archives that readers understand differently.
    'two_directories': lambda path, canary: two_directories(path, script(canary)),
    'two_directories_compressed': once(lambda path: two_directories(
        path, dict(state_dict={'a': torch.zeros(2**28)}), zipfile.ZIP_DEFLATED)),
    'something_before': lambda path, canary: changed(path, lambda data: b'PK\x03\x04' + bytes(60) + data),
    'something_between': lambda path, canary: changed(path, put_between),
    'something_behind': lambda path, canary: changed(path, lambda data: data[:-2] + b'\x04\x00here'),
    'other_end': lambda path, canary: changed(path, other_end),
    'other_name': lambda path, canary: changed(path, other_name),
    'same_name_in_capitals': lambda path, canary: rewritten(path, more=[('archive/DATA.PKL', b'N.')]),
    # Memory.
    'void_scalar': lambda path, canary: saved(run_state(x=Call(SCALAR, Call(np.dtype, 'V1500000000'))), path),
    'array_of_objects': lambda path, canary: saved(run_state(x=Call(np.ndarray, (2**27,), 'O')), path),
    'array_of_2_to_the_48': lambda path, canary: saved(run_state(x=Call(np.ndarray, (2**48,), 'f8')), path),
    'tensor_of_a_size': lambda path, canary: saved(run_state(x=Call(torch.FloatTensor, torch.Size((2**33,)))), path),
    'hex_chain': lambda path, canary: saved(run_state(x=hex_chain()), path),
    'compressed_tar': once(compressed_tar),
    'many_copies': lambda path, canary: rewritten(path, pickle_of(
        HEAD + b'](c_codecs\nencode\nq\x00' + text(b'x' * 2**20) + text(b'latin1') + b'\x86q\x01R'
        + b'h\x00h\x01R' * 2000 + b'e' + TAIL)),
    'many_sets': lambda path, canary: rewritten(path, pickle_of(HEAD + b'](' + b'\x8f' * 2**22 + b'e' + TAIL)),
    'far_memo': lambda path, canary: rewritten(path, pickle_of(HEAD + b'}r\x00\x00\x00\x08' + TAIL)),
    'weights_twice': weights_twice,
    'wider_tensor': wider_tensor,
    # What never ends.
    'nested_key_of_a_tensor': lambda path, canary: rewritten(path, pickle_of(
        HEAD + nested(26, lambda made: made + b'Q') + TAIL)),
    'nested_key': lambda path, canary: rewritten(path, pickle_of(
        HEAD + b'}' + nested(40, lambda made: made + b'K\x01s') + TAIL)),
    'nested_seed': lambda path, canary: rewritten(path, pickle_of(
        HEAD + b'}' + text(b'seed') + nested(40, lambda made: made + b's') + TAIL)),
    'deep_lists': lambda path, canary: rewritten(path, pickle_of(
        HEAD + b']' * 10**5 + b'a' * (10**5 - 1) + TAIL)),
    'list_in_itself': lambda path, canary: rewritten(path, pickle_of(HEAD + b']q\x00h\x00a' + TAIL)),
    'equal_hashes': lambda path, canary: rewritten(path, pickle_of(HEAD + equal_hashes() + TAIL)),
    # Weights that no layer has.
    'sparse_weights': lambda path, canary: saved(dict(state_dict=dict(
        WEIGHTS, **{'backbone.weight': torch.eye(4, 2).to_sparse()})), path),
    'sparse_rows': lambda path, canary: saved(dict(state_dict=dict(
        WEIGHTS, **{'backbone.weight': torch.eye(4, 2).to_sparse_csr()})), path),
    'nested_weights': lambda path, canary: saved(dict(state_dict=dict(
        WEIGHTS, **{'backbone.weight': torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])})), path),
    'complex_weights': lambda path, canary: saved(dict(state_dict=dict(
        WEIGHTS, **{'backbone.weight': torch.full((4, 2), 1 + 2j)})), path),
    'numbers_as_names': lambda path, canary: saved(dict(state_dict={1: torch.ones(4, 2), **WEIGHTS}), path),
    'bytes_as_names': lambda path, canary: saved(dict(state_dict={b'backbone.weight': torch.ones(4, 2)}), path),
    'a_folder': lambda path, canary: path.mkdir(),
    'a_link_to_itself': lambda path, canary: path.symlink_to(path),
}
# Those that an unpickler refuses whose names are restricted.
UNKNOWN_NAMES = [
    'os_system', 'eval', 'exec', 'open', 'getattr_of_a_class', 'getattr_of_a_scheduler', 'getattr_chain',
    'nested_reduce', 'in_the_message_hub', 'through_a_rebuild', 'renamed_class', 'module_behind_a_class',
    'legacy_pickle']
