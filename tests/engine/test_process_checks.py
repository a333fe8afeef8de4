"""Processes that start from different places are stopped, in each of them."""

import re

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from mmengine import Config

from mmacmix.engine import SetupError, check_same_start, process_checks

ANEW, FIRST = dict(), dict(resume=True, load_from='https://example.org/iter_10.pth')
SECOND = dict(FIRST, load_from='https://example.org/iter_20.pth')


def test_one_process():
    for start in (ANEW, FIRST, dict(resume=True), dict(load_from='weights.pth')):
        check_same_start(Config(dict(work_dir='work', **start)))


@pytest.mark.parametrize('starts, words', [
    ((FIRST, FIRST, ANEW), 'from https://example.org/iter_10.pth in process 0 and anew in process 2'),
    ((ANEW, FIRST, FIRST), 'anew in process 0 and from https://example.org/iter_10.pth in process 1'),
    ((FIRST, SECOND), 'iter_10.pth in process 0 and from https://example.org/iter_20.pth in process 1'),
    ((FIRST, FIRST), None),
    ((dict(load_from='a.pth'), dict(load_from='other/a.pth')), None),
])
def test_processes_are_compared(monkeypatch, starts, words):
    gathered = []
    monkeypatch.setattr(process_checks, 'all_gather_object', lambda start: gathered.append(start) or [start])
    for start in starts:
        check_same_start(Config(dict(work_dir='work', **start)))
    monkeypatch.setattr(process_checks, 'all_gather_object', lambda start: gathered)
    for start in starts if words else ():
        with pytest.raises(SetupError, match=re.escape(words) + ': work_dir=work must be a folder that all machines'):
            check_same_start(Config(dict(work_dir='work', **start)))
    if not words:
        check_same_start(Config(dict(work_dir='work', **starts[0])))


def test_checkpoints_are_told_apart_by_what_they_hold(tmp_path):
    starts = []
    for folder, value in (('a', 1.), ('b', 1.), ('c', 2.)):
        path = tmp_path / folder / 'iter_10.pth'
        path.parent.mkdir()
        # Larger than what is read of it.
        torch.save(dict(first=torch.full((100,), value), rest=torch.zeros(10**5)), path)
        starts.append(process_checks.start_of(Config(dict(resume=True, load_from=str(path)))))
    assert starts[0] == starts[1] != starts[2] and starts[0].startswith('from iter_10.pth (')


def compare(rank, folder):
    dist.init_process_group('gloo', init_method=f'file://{folder}/joined', rank=rank, world_size=2)
    try:
        check_same_start(Config(dict(work_dir='work', **(FIRST if rank == 0 else ANEW))))
        said = 'nothing'
    except SetupError as error:
        said = str(error)
    (folder / str(rank)).write_text(said)
    dist.barrier()  # torch 2.0 may hang in destroy_process_group after a fork


def test_two_processes(tmp_path):
    torch.multiprocessing.start_processes(compare, (tmp_path,), nprocs=2, start_method='fork')
    said = [(tmp_path / name).read_text() for name in '01']
    assert said[0] == said[1] and 'iter_10.pth in process 0 and anew in process 1' in said[0]
