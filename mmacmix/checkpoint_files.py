"""Reading of checkpoint files: whole ones only, nothing larger than the file, and no code from it."""

import os
import os.path as osp
import pickle
import re
import tarfile
import zipfile
from _codecs import encode
from collections import Counter, OrderedDict
from glob import escape as glob_escape
from glob import glob
from types import SimpleNamespace
from typing import BinaryIO, List, Mapping, Optional

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.runner.checkpoint import CheckpointLoader
from mmengine.utils import mkdir_or_exist

from mmacmix.checkpoint_claims import Claims
from mmacmix.checkpoint_stand_ins import Budget, Unfit
from mmacmix.checkpoint_zip import check_form
from mmacmix.safe_globals import mmengine_globals
from mmacmix.state_dicts import check_tensors

ZIP, LEGACY_MAGIC = b'PK\x03\x04', 0x1950A86A20F9469CFC6C
MAPPINGS = (dict, OrderedDict)
OF_MMENGINE = dict(message_hub=MAPPINGS, optimizer=MAPPINGS, param_schedulers=(*MAPPINGS, list))
# Before, torch's own safe mode takes no names in other places than their own.
SAFE_MODE = torch.__version__ >= (2, 6)
# What torch's safe mode came to know after its version 2.0; mmengine's MultiStepLR counts its milestones.
LATER = {'collections.Counter': Counter, '_codecs.encode': encode, 'builtins.set': set}


def load_file(path: str, map_location: object = None, names: Optional[Mapping[str, object]] = None) -> object:
    """What a checkpoint file holds; reads it twice, first to see whether it is whole.

    Args:
        path: A local file, as ``torch.save`` writes them since version 0.4.
        map_location: As for ``torch.load``.
        names: More that the file may refer to, by name, and what stands for it (torch 2.6 and later).

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or no checkpoint, or it holds more than data; the message names it.
    """
    path = osp.expanduser(path)
    check_file(path)
    try:
        if SAFE_MODE:
            with torch.serialization.safe_globals([(value, name) for name, value in (names or {}).items()]):
                loaded = torch.load(path, map_location=map_location, weights_only=True)
        else:
            loaded = torch.load(path, map_location=map_location, pickle_module=_allowing_few(), weights_only=False)
    except torch.cuda.OutOfMemoryError:
        raise
    except MemoryError as error:
        raise MemoryError(f'cannot read {path} as a checkpoint: there is not enough memory') from error
    except Exception as error:  # a damaged or crafted file can make torch raise anything
        raise ValueError(f'cannot read {path} as a checkpoint: {_reason(error)}') from error
    check_contents(loaded, path)
    return loaded


def check_file(path: str) -> None:
    """Reads a checkpoint file to its end without loading it.

    The sums of its parts are compared with those that torch stored; files that torch wrote before version 1.6 have
    none.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, no checkpoint, or asks for more memory than it has bytes; the message names it.
    """
    if not osp.isfile(path):
        raise FileNotFoundError(f'the checkpoint must be an existing file, got {path}')
    try:
        with open(path, 'rb') as file:
            start = file.read(len(ZIP))
            file.seek(0)
            if start == ZIP:
                _check_zip(file, osp.getsize(path))
            else:
                _check_legacy(file, osp.getsize(path))
    except PermissionError:
        raise
    except Exception as error:  # a damaged or crafted file can make the readers raise anything
        reason = str(error) if isinstance(error, Unfit) else f'it is damaged, or no checkpoint ({type(error).__name__})'
        raise ValueError(f'cannot read {path} as a checkpoint: {reason}') from error


def whole_files(folder: str) -> List[str]:
    """Checkpoint files of a folder that are whole, the newest first."""
    whole = []
    for path in sorted(glob(osp.join(glob_escape(folder), '*.pth')), key=osp.getmtime, reverse=True):
        try:
            check_file(path)
        except ValueError:
            continue
        whole.append(path)
    return whole


def check_contents(checkpoint: object, path: str) -> None:
    """Refuses what mmengine would take for something else, or run; old files of mmcv lose a text.

    Raises:
        ValueError: The checkpoint or its ``meta`` is no plain dict, nor are the parts of mmengine's own where it
            expects them; it has ``meta['config']``, which mmengine would run as Python when it resumes and never
            writes itself; a parameter has no name, or is no dense tensor of real numbers.
    """
    try:
        _check_parts(checkpoint)
        check_tensors(checkpoint)
    except ValueError as error:
        raise ValueError(f'cannot read {path} as a checkpoint: {error}') from error


def _check_parts(checkpoint: object) -> None:
    if type(checkpoint) not in MAPPINGS:
        raise Unfit(f'it must hold a dict, got {type(checkpoint).__name__}')
    parts = dict(meta=MAPPINGS, state_dict=MAPPINGS, **(OF_MMENGINE if 'message_hub' in checkpoint else {}))
    wrong = [key for key in parts if key in checkpoint and type(checkpoint[key]) not in parts[key]]
    if wrong:
        raise Unfit(f'its {wrong[0]} must be a dict, got {type(checkpoint[wrong[0]]).__name__}')
    meta = checkpoint.get('meta', {})
    if 'config' not in meta:
        return
    if 'message_hub' in checkpoint:
        raise Unfit("its meta['config'] would be run as Python by --resume, and mmengine writes none")
    del meta['config']


def register_loaders() -> None:
    """Has mmengine read local files and downloads by :func:`load_file`, whoever asks for them."""

    @CheckpointLoader.register_scheme(prefixes='', force=True)
    def load_from_local(filename: str, map_location: object = None) -> object:
        return load_file(filename, map_location)

    @CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), force=True)
    def load_from_http(filename: str, map_location: object = None) -> object:
        cached = osp.join(torch.hub.get_dir(), 'checkpoints', osp.basename(filename.split('?')[0]))
        _download(filename, cached)
        return load_file(cached, map_location)


def _download(url: str, path: str) -> None:
    """By the main process, and then by the first one of every other machine, if the folder is not shared with it."""
    first = all(os.environ.get(name, '0') == '0' for name in ('LOCAL_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK'))
    for turn in (is_main_process(), first):
        if turn and not osp.exists(path):
            mkdir_or_exist(osp.dirname(path))
            torch.hub.download_url_to_file(url, path)
        barrier()


def _reason(error: Exception) -> str:
    """Not torch's own words where they advise to load the file unsafely."""
    refused = re.search(r'(?i)unsupported global:? (?:GLOBAL )?(\S+)|got (getattr\(.*\))', str(error))
    if refused:
        return f'it refers to {refused[1] or refused[2]}, and nothing but data is loaded from a file'
    words = str(error).split('. ')[0] if type(error) is RuntimeError and 'weights_only' not in str(error) else ''
    return words or f'it is damaged, or holds more than data ({type(error).__name__})'


def _check_zip(file: BinaryIO, size: int) -> None:
    check_form(file, size)
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        folder = names[0].split('/')[0]
        if f'{folder}/data.pkl' not in names or f'{folder}/constants.pkl' in names:
            raise Unfit('it is an archive, but not of torch.save')
        broken = archive.testzip()
        if broken is not None:
            raise Unfit(f'it is damaged: {broken} is not what was written')
        with archive.open(f'{folder}/data.pkl') as pickled:
            Claims(pickled, size, lambda key: archive.getinfo(f'{folder}/data/{key}').file_size).load()


def _check_legacy(file: BinaryIO, size: int) -> None:
    """The form of torch before 1.6: five pickles, and then every storage: 8 bytes of its size, and its content."""
    if _is_tar(file.read(tarfile.BLOCKSIZE)):
        raise Unfit('it has the form of torch before version 0.4, which may run code')
    file.seek(0)
    budget = Budget(size)
    if Claims(file, size, budget=budget).load() != LEGACY_MAGIC:
        raise Unfit('it is no file of torch.save')
    claims = [Claims(file, size, budget=budget) for _ in range(4)]
    for claim in claims:
        claim.load()
    if any(claim.claimed for claim in claims if claim is not claims[2]) or claims[2].claims() > size - file.tell():
        raise Unfit('it is damaged: its end is missing')


def _is_tar(block: bytes) -> bool:
    """Whether torch would take a file for an archive of tar; compressed ones it does not."""
    try:
        tarfile.TarInfo.frombuf(block, 'utf-8', 'surrogateescape')
    except tarfile.HeaderError:
        return False
    return True


def _allowing_few() -> SimpleNamespace:
    """A pickle module that finds what torch's safe mode and mmengine's checkpoints need."""
    allowed = {**LATER, **torch._weights_only_unpickler._get_allowed_globals(), **mmengine_globals()}

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            full = f'{"builtins" if module == "__builtin__" else module}.{name}'
            if full not in allowed:
                raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {full}')
            return allowed[full]

    return SimpleNamespace(__name__='pickle', Unpickler=Unpickler, load=lambda *a, **kw: Unpickler(*a, **kw).load())
