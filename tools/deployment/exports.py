"""A backbone as an ONNX model or as a program of torch.export, with open sizes."""

import json
import time
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple, Tuple

import torch
from comparing import Refused, in_channels
from torch import nn

import mmacmix
from mmacmix.layers import WindowACmix

MIN_SIDE = 64  # pixels; below, the last map can have one row, and torch ties the record to that
MAX_SIDE, MAX_BATCH = 2**14, 2**10
STANDARD = {'', 'ai.onnx'}


class Format(NamedTuple):
    suffix: str
    packages: Tuple[str, ...]
    runtime: str


FORMATS = {
    'onnx': Format('.onnx', ('onnx', 'onnxscript', 'onnxruntime'), 'ONNX Runtime'),
    'torch': Format('.pt2', (), 'exported program'),
}


def export(model: nn.Module, path: Path, args: Namespace) -> None:
    """Writes the backbone, in its deploy form, to ``path``.

    Raises:
        Refused: torch cannot record the model, or the record has operators that are not standard ones.
    """
    start = time.time()
    height, width = args.shape
    least = least_side(model)
    if not args.fixed_size and min(args.shape) < least:
        raise Refused(f'--shape must be at least {least} x {least} for this backbone, got {height} x {width}; '
                      'with --fixed-size it may be smaller')
    print(f'recording at {height} x {width}: some minutes', flush=True)
    program = record(model, height, width, args.fixed_size)
    if args.format == 'torch':
        torch.export.save(program, path)
    else:
        write_onnx(program, model, path, args)
    print(f'done in {time.time() - start:.0f} s', flush=True)


def record(model: nn.Module, height: int, width: int, fixed_size: bool) -> torch.export.ExportedProgram:
    sizes = {0: torch.export.Dim('batch', min=1, max=MAX_BATCH)}
    if not fixed_size:
        least = least_side(model)
        for dim, name in ((2, 'height'), (3, 'width')):
            sizes[dim] = torch.export.Dim(name, min=least, max=MAX_SIDE)
    image = torch.randn(2, in_channels(model), height, width)
    try:
        with torch.no_grad():
            return torch.export.export(model, (image,), dynamic_shapes=(sizes,), strict=False)
    except Exception as error:  # of many classes, most of them private
        advice = '' if fixed_size else '; with --fixed-size it may be possible'
        raise Refused(f'torch cannot record this backbone{advice}: {type(error).__name__}: {error}') from error


def least_side(model: nn.Module) -> int:
    """Pixels from which a record with open sizes holds; the last map of Swin-ACmix must have two windows a side."""
    windows = [layer.window_size for layer in model.modules() if isinstance(layer, WindowACmix)]
    return model.patch_size * 2 ** model.out_indices[-1] * max(windows) + 1 if windows else MIN_SIDE


def write_onnx(program: torch.export.ExportedProgram, model: nn.Module, path: Path, args: Namespace) -> None:
    names = [f'stage{i}' for i in model.out_indices]
    try:
        result = torch.onnx.export(
            program, (), dynamo=True, input_names=['image'], output_names=names, opset_version=args.opset,
            optimize=True, verbose=False)
    except Exception as error:
        raise Refused(f'torch cannot translate this backbone to ONNX: {type(error).__name__}: {error}') from error
    foreign = sorted({f'{node.domain}.{node.op_type}' for node in result.model.graph if node.domain not in STANDARD})
    if foreign:
        raise Refused(f'the ONNX model must have standard operators only, got {", ".join(foreign)}')
    result.model.metadata_props.update(metadata(model, args))
    result.save(path, external_data=False)


def metadata(model: nn.Module, args: Namespace) -> dict:
    """What somebody who has only the file wants to know."""
    height, width = args.shape
    return dict(
        mmacmix=mmacmix.__version__,
        backbone=type(model).__name__,
        model=' '.join([Path(args.model).name, *args.options]),
        checkpoint=Path(args.checkpoint).name if args.checkpoint else 'random weights',
        outputs=json.dumps([f'stage{i}' for i in model.out_indices]),
        image='float32, normalised as in training, '
        + (f'{height} x {width}' if args.fixed_size else f'{MIN_SIDE} to {MAX_SIDE} pixels a side'),
    )
