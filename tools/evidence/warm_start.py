"""The start of an ACmix model from a trained plain one: the same function at step 0."""

import contextlib
import logging
from pathlib import Path
from typing import Iterator, Tuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmacmix.checkpoints import read_checkpoint
from mmacmix.converters import convert_with_report

SOURCES = dict(PVTACmix='pvt', SANACmix='san', SwinACmix='swin')
#: Largest difference of the maps, relative to their size, that counts as rounding.
TOLERANCE = 1e-4


def make_start(plain_cfg: Config, cfg: Config, weights: Path, out: Path, seed: int, shape: Tuple[int, int]) -> float:
    """Writes a checkpoint for ``load_from``: the trained weights in the model of ``cfg``.

    Args:
        plain_cfg: What the weights are of, a model with attention alone.
        cfg: The model to start, of the same family; it may be that of the weights itself.
        weights: Checkpoint of the plain model.
        out: File to write.
        seed: Of what the plain model does not have.
        shape: Height and width of an image that both are compared on.

    Returns:
        The largest difference of their maps, relative to the largest entry.

    Raises:
        ValueError: The weights do not fit, or the function is not preserved.
    """
    state = read_checkpoint(str(weights), map_location='cpu')['state_dict']
    plain = _build(plain_cfg, seed)
    try:
        plain.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f'{weights} must be of {plain_cfg.filename}: {error}') from error
    model = _build(cfg, seed)
    converted = state
    if tuple(cfg.model.backbone.get('paths', ())) != tuple(plain_cfg.model.backbone.get('paths', ())):
        backbone = {key: value for key, value in state.items() if key.startswith('backbone.')}
        source = SOURCES[cfg.model.backbone.type.split('.')[-1]]
        rest = {key: value for key, value in state.items() if key not in backbone}
        started = convert_with_report(backbone, source).state
        converted = {**rest, **{f'backbone.{key}': value for key, value in started.items()}}
    own = model.state_dict()
    wrong = [key for key, value in converted.items() if key not in own or own[key].shape != value.shape]
    if wrong:
        raise ValueError(f'{weights} must fit {cfg.filename}, got {", ".join(wrong[:3])} on top or of another shape')
    model.load_state_dict(converted, strict=False)  # what it lacks starts fresh
    difference = _difference(plain, model, shape)
    if not difference <= TOLERANCE:
        raise ValueError(f'the start must preserve the function of {weights}, got maps that differ by {difference:.1e}')
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(difference=difference)), out)
    return difference


def _build(cfg: Config, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    with _quiet():
        model.init_weights()
    return model.eval()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps mmengine from listing how every parameter was initialised."""
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@torch.no_grad()
def _difference(plain: nn.Module, model: nn.Module, shape: Tuple[int, int]) -> float:
    image = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(0))
    pairs = list(zip(plain.backbone(image), model.backbone(image)))
    return max(((a - b).abs().max() / a.abs().max()).item() for a, b in pairs)
