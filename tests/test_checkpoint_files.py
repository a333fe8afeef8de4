"""A checkpoint file is loaded as it was written, or refused with its name."""

import io
import random
import struct
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OneCycleLR
from mmengine.runner.checkpoint import CheckpointLoader

from mmacmix import checkpoint_files
from mmacmix.checkpoint_files import check_contents, check_file, load_file, whole_files
from mmacmix.engine.checkpoint_guard import CheckpointGuardHook


def content():
    """Most of what checkpoints hold: views, halves, scalars, parameters, history buffers, plain values."""
    hub = MessageHub('checkpoint_files')
    hub.update_scalar('loss', np.float64(1.5))
    weight = torch.arange(200.0)
    state = dict(weight=weight, view=weight[3:50:2], half=weight.half(), count=torch.tensor(3), none=torch.zeros(0, 4))
    return dict(meta=dict(epoch=1, seed=0), state_dict=state, model=torch.nn.Parameter(weight.reshape(10, 20).t()),
                message_hub=hub.state_dict())


def bytes_of(loaded):
    memory = io.BytesIO()
    torch.save(loaded, memory)
    return memory.getvalue()


@pytest.fixture(params=[True, False], ids=['zip', 'legacy'])
def file(request, tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(content(), path, _use_new_zipfile_serialization=request.param)
    return path


def test_whole_files_load(file):
    assert bytes_of(load_file(str(file))) == bytes_of(content())


def test_truncated_files_are_refused(file):
    data = file.read_bytes()
    for length in [0, 1, 4, len(data) - 1, *random.Random(0).sample(range(len(data)), 60)]:
        file.write_bytes(data[:length])
        with pytest.raises(ValueError, match='cannot read .*epoch_1.pth as a checkpoint: '):
            load_file(str(file))


def test_no_turned_bit_is_loaded(tmp_path):
    """In the padding between the parts, or in dates, a turned bit changes nothing; anywhere else it is refused."""
    path, rng, refused = tmp_path / 'epoch_1.pth', random.Random(0), 0
    torch.save(content(), path)
    data, expected = path.read_bytes(), bytes_of(load_file(str(path)))
    for _ in range(300):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        try:
            assert bytes_of(load_file(str(path))) == expected
        except ValueError as error:
            assert f'cannot read {path} as a checkpoint: ' in str(error)
            refused += 1
    assert refused > 150


def long_form(data):
    """As torch writes files of more than 4 GiB: numbers of 8 bytes are elsewhere, and sizes after a part long."""
    start, end64, parts = data.index(b'PK\x01\x02'), data.index(b'PK\x06\x06'), []
    while data[start : start + 4] == b'PK\x01\x02':
        fields = list(struct.unpack('<4s6H3I5H2I', data[start : start + 46]))
        parts.append((fields, data[start + 46 : start + 46 + fields[10]]))
        start += 46 + fields[10]
    made, directory = b'', b''
    for fields, name in parts:
        size, place = fields[9], fields[16]
        named, more = struct.unpack('<2H', data[place + 26 : place + 30])
        content = place + 30 + named + more
        directory += struct.pack('<4s6H3I5H2I', *fields[:8], 2**32 - 1, 2**32 - 1, len(name), 28, *fields[12:16],
                                 2**32 - 1) + name + struct.pack('<2H3Q', 1, 24, size, size, len(made))
        made += data[place : content + size]
        if fields[3] & 8:  # torch leaves them out after a part without content
            made += struct.pack('<4sI2Q', b'PK\x07\x08', fields[7], size, size)
    long = struct.pack('<4sQ2H2I4Q', b'PK\x06\x06', *struct.unpack('<Q2H2I2Q', data[end64 + 4 : end64 + 40]),
                       len(directory), len(made))
    locator = struct.pack('<4sIQI', b'PK\x06\x07', 0, len(made) + len(directory), 1)
    short = struct.pack('<4s4H2IH', b'PK\x05\x06', 0, 0, len(parts), len(parts), len(directory), 2**32 - 1, 0)
    return made + directory + long + locator + short


def test_the_form_of_large_files(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    torch.save(content(), path)
    path.write_bytes(long_form(path.read_bytes()))
    assert bytes_of(load_file(str(path))) == bytes_of(content())


def odd_values():
    """Kinds that a checkpoint may hold beside tensors."""
    return dict(
        state_dict=dict(a=torch.ones(3, dtype=torch.bfloat16), b=torch.ones(2, dtype=torch.bool)),
        meta=dict(a={1, 2}, b=b'xyz', c=bytearray(b'abc'), d=1 + 2j, e=torch.Size((1, 2)), f=torch.float32, g=2**70,
                  h=None, i=(1, (2, (3,))), j=-1.5, k=torch.device('cpu'), l=OrderedDict(a=1), m=Counter([1, 2, 1]),
                  n=torch.ones(2, dtype=torch.complex64)),
        arrays=[np.ones((3, 4), np.float32), np.array(3.0), np.asfortranarray(np.ones((2, 3)))],
        optimizer=torch.optim.AdamW(torch.nn.Linear(2, 3).parameters()).state_dict())


@pytest.mark.parametrize('safe_mode', [True, False])
@pytest.mark.parametrize('form', [True, False], ids=['zip', 'legacy'])
def test_odd_values_load(tmp_path, monkeypatch, form, safe_mode):
    if safe_mode and not checkpoint_files.SAFE_MODE:
        pytest.skip('torch has no safe mode that takes our names')
    monkeypatch.setattr(checkpoint_files, 'SAFE_MODE', safe_mode)
    torch.save(odd_values(), tmp_path / 'x.pth', _use_new_zipfile_serialization=form)
    assert repr(load_file(str(tmp_path / 'x.pth'))) == repr(odd_values())


@pytest.mark.parametrize('safe_mode', [True, False])
@pytest.mark.parametrize('curve', ['cos', 'linear'])
def test_one_cycle_goes_on(tmp_path, monkeypatch, curve, safe_mode):
    """The state of OneCycleLR holds a function."""
    monkeypatch.setattr(checkpoint_files, 'SAFE_MODE', safe_mode and checkpoint_files.SAFE_MODE)

    def rates(steps, state=None):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)
        schedule = OneCycleLR(optimizer, eta_max=0.5, total_steps=6, anneal_strategy=curve)
        if state is not None:
            schedule.load_state_dict(state['param_schedulers'][0])
            optimizer.load_state_dict(state['optimizer'])
        values = []
        for _ in range(steps):
            optimizer.step()
            schedule.step()
            values.append(optimizer.param_groups[0]['lr'])
        torch.save(dict(meta={}, param_schedulers=[schedule.state_dict()], optimizer=optimizer.state_dict()), path)
        return values

    path = tmp_path / 'epoch_1.pth'
    whole = rates(5)
    assert rates(2) + rates(3, load_file(str(path))) == whole and len(set(whole)) == 5


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='the checkpoint must be an existing file, got .*gone.pth'):
        check_file(str(tmp_path / 'gone.pth'))


def test_whole_files_of_a_folder(tmp_path):
    for name in ('a.pth', 'b.pth', 'c.pth'):
        torch.save({}, tmp_path / name)
    (tmp_path / 'b.pth').write_bytes(b'PK')
    assert sorted(whole_files(str(tmp_path))) == [str(tmp_path / 'a.pth'), str(tmp_path / 'c.pth')]


def test_downloads_go_the_same_way(tmp_path, monkeypatch):
    def download(url, path):
        torch.save(dict(meta=dict(config='x = 1'), message_hub={}), path)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    with pytest.raises(ValueError, match=r"epoch_1.pth as a checkpoint: its meta\['config'\] would be run as Python"):
        CheckpointLoader.load_checkpoint('https://example.com/epoch_1.pth?x=1', 'cpu')


@pytest.mark.parametrize('main, local_rank, shared, downloads', [
    (True, '0', False, ['before']), (False, '0', False, ['after']), (False, '0', True, []), (False, '1', True, []),
    (False, '1', False, []), (False, 'OMPI_COMM_WORLD_LOCAL_RANK=1', False, []), (False, None, False, ['after']),
])
def test_every_machine_downloads_once(tmp_path, monkeypatch, main, local_rank, shared, downloads):
    """Processes wait twice: for the main one, and for the first of their own machine."""
    path, done, waits = tmp_path / 'checkpoints' / 'epoch_1.pth', [], []
    whole = dict(meta={}, state_dict={})

    def download(url, target):
        done.append('after' if waits else 'before')
        torch.save(whole, target)

    def barrier():
        waits.append(len(done))
        # What others did meanwhile: the main process in a shared folder, the first process of this machine in its own.
        if shared or len(waits) == 2 and local_rank in ('1', 'OMPI_COMM_WORLD_LOCAL_RANK=1'):
            path.parent.mkdir(exist_ok=True)
            torch.save(whole, path)

    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(checkpoint_files, 'is_main_process', lambda: main)
    monkeypatch.setattr(checkpoint_files, 'barrier', barrier)
    monkeypatch.delenv('LOCAL_RANK', raising=False)
    monkeypatch.delenv('OMPI_COMM_WORLD_LOCAL_RANK', raising=False)
    if local_rank is not None:
        monkeypatch.setenv(*local_rank.split('=') if '=' in local_rank else ('LOCAL_RANK', local_rank))
    CheckpointLoader.load_checkpoint('https://example.com/epoch_1.pth', 'cpu')
    assert done == downloads and len(waits) == 2


def test_text_of_old_checkpoints_is_left_out():
    """mmcv wrote its config there; such files are starts, and cannot be resumed."""
    old = dict(state_dict={}, meta=dict(config='x = 1', CLASSES=('a',)))
    check_contents(old, 'old.pth')
    assert old['meta'] == dict(CLASSES=('a',))


def test_the_guard_looks_too(monkeypatch):
    """At checkpoints from other places than files and downloads."""

    class Runner:
        _load_from = 's3://bucket/epoch_1.pth'

    with pytest.raises(ValueError, match='cannot read s3://bucket/epoch_1.pth as a checkpoint'):
        CheckpointGuardHook().after_load_checkpoint(Runner(), dict(message_hub={}, meta=dict(config='x = 1')))
