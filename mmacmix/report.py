"""What a bug report needs: `python -m mmacmix.report`.

Versions of what mmacmix runs with, the devices, which implementations of local attention can run and why the others
cannot, and whether the hosts find the backbones. Nothing has to be installed for it but torch.
"""

import importlib
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

import torch

import mmacmix
from mmacmix.ops.backends import BACKENDS, ENVIRONMENT_VARIABLE, why_not

#: Import name, and the distributions that bring it.
PACKAGES = (
    ('mmengine', ('mmengine', 'mmengine-lite', 'onedl-mmengine')),
    ('mmcv', ('mmcv', 'mmcv-lite', 'onedl-mmcv')),
    ('mmdet', ('mmdet', 'onedl-mmdetection')),
    ('mmseg', ('mmsegmentation', 'onedl-mmsegmentation')),
    ('mmpretrain', ('mmpretrain', 'onedl-mmpretrain')),
    ('mim', ('openmim', 'onedl-mim')),
    ('numpy', ('numpy',)),
    ('triton', ('triton', 'pytorch-triton', 'triton-windows')),
    ('onnx', ('onnx',)),
    ('onnxruntime', ('onnxruntime', 'onnxruntime-gpu')),
    ('torchvision', ('torchvision',)),
)
MIM_PARTS = ('configs', 'tools', 'model-index.yml')


def version_of(distributions: Tuple[str, ...]) -> Optional[str]:
    """Versions of those of the distributions that are installed, with their names; None without any."""
    found = []
    for name in distributions:
        try:
            found.append(f'{name} {metadata.version(name)}')
        except metadata.PackageNotFoundError:
            continue
    return ' and '.join(found) or None


def trouble_with(module: str) -> Optional[str]:
    """Why a module cannot be imported; None if it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a broken installation raises is what the report is for
        return f'{type(error).__name__}: {first_line(error)}'
    return None


def first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ''


def packages() -> Iterator[Tuple[str, str]]:
    for module, distributions in PACKAGES:
        version = version_of(distributions)
        if version is None:
            yield module, 'not installed'
            continue
        trouble = trouble_with('mmcv.ops' if module == 'mmcv' else module)
        if trouble and module == 'mmcv' and trouble_with('mmcv') is None:
            trouble = f'its compiled operators cannot be imported ({trouble})'
        yield module, version + (f', BROKEN: {trouble}' if trouble else '')


def devices() -> Iterator[Tuple[str, str]]:
    built = 'CUDA ' + torch.version.cuda if torch.version.cuda else 'no CUDA'
    if getattr(torch.version, 'hip', None):
        built = f'ROCm {torch.version.hip}'
    yield 'torch', f'{torch.__version__}, built with {built}, {torch.get_num_threads()} threads'
    if not torch.cuda.is_available():
        yield 'GPU', 'none that torch can use'
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        yield f'GPU {index}', f'{properties.name}, {memory:.1f} GiB, capability {properties.major}.{properties.minor}'


def backends() -> Iterator[Tuple[str, str]]:
    """Each implementation of local attention, on the GPU if there is one, for 4 heads of 64 channels in float32."""
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    for name in BACKENDS:
        reason = why_not(name, torch.float32, device, 16)
        yield name, f'cannot run: {reason}' if reason else f'runs on {device}'
    yield ENVIRONMENT_VARIABLE, os.environ.get(ENVIRONMENT_VARIABLE) or 'not set: the fastest that can run is taken'


def integration() -> Iterator[Tuple[str, str]]:
    """Whether the hosts find the backbones, and mim the configs."""
    trouble = trouble_with('mmacmix.backbones')
    if trouble:
        yield 'backbones', f'cannot be imported: {trouble}'
    else:
        registry = importlib.import_module('mmengine.registry').MODELS
        names = ('ResNetACmix', 'SANACmix', 'PVTACmix', 'SwinACmix')
        missing = [name for name in names if registry.get(f'mmacmix.{name}') is None]
        yield 'backbones', f'not in the registry: {", ".join(missing)}' if missing else ', '.join(names)
    folder = Path(mmacmix.__file__).parent / '.mim'
    absent = [part for part in MIM_PARTS if not (folder / part).exists()]
    reason = f'{folder} lacks {", ".join(absent)}: mim finds configs only after pip install (a wheel or -e)'
    yield 'mim', reason if absent else str(folder)


def report() -> List[str]:
    """The lines of the report."""
    lines = [f'mmacmix {mmacmix.__version__} in {Path(mmacmix.__file__).parent}']
    lines.append(f'Python {platform.python_version()} ({sys.executable}), {platform.platform()}')
    for title, rows in (
        ('devices', devices()),
        ('packages', packages()),
        ('implementations of local attention', backends()),
        ('integration', integration()),
    ):
        lines += ['', f'{title}:']
        lines += [f'  {name:18} {text}' for name, text in rows]
    return lines


if __name__ == '__main__':
    print('\n'.join(report()))
