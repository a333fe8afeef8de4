"""Files that a stranger could hand out as checkpoints: each would run code, take all memory, or is none at all.

What runs makes the file `canary`.
"""

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

WEIGHTS = {'backbone.weight': torch.ones(4, 2), 'backbone.bias': torch.ones(4)}


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


HEAD, TAIL = b'\x80\x02', b'.'
FILES = {
    'os_system': lambda path, canary: saved(run_state(x=Call(os.system, touch(canary))), path),
    'eval': lambda path, canary: saved(run_state(x=Call(eval, f'open({str(canary)!r}, "w")')), path),
    'exec': lambda path, canary: saved(run_state(x=Call(exec, f'open({str(canary)!r}, "w")')), path),
    'open': lambda path, canary: saved(run_state(x=Call(open, str(canary), 'w')), path),
    'getattr_of_a_class': lambda path, canary: saved(run_state(x=Call(getattr, HistoryBuffer, '__init__')), path),
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
    'a_folder': lambda path, canary: path.mkdir(),
    'a_link_to_itself': lambda path, canary: path.symlink_to(path),
}
# Refused before an unpickler sees them, or of names that are allowed.
NO_PICKLE = [name for name in FILES if name.startswith(('huge', 'hollow', 'path', 'absolute', 'compressed', 'a_'))] + [
    'bare_pickle', 'config_text', 'empty', 'legacy_tar', 'npz', 'text', 'torchscript', 'web_page']
