"""What visualize_attention.py draws: the image as the backbone sees it, and what its ACmix layers make of it."""

from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import MODELS as HOST_MODELS
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from mmacmix.checkpoints import load_pretrained, read_checkpoint, unwrap
from mmacmix.engine.config_files import type_name
from mmacmix.engine.data_paths import datasets
from mmacmix.engine.image_files import read_image
from mmacmix.registry import MODELS


class Image(NamedTuple):
    """One image on its way into the backbone.

    Attributes:
        inputs: (1, 3, H, W), normalised and padded.
        picture: What of it is image, resized as the config says, (h, w, 3) in RGB.
        scale: Factors in x and y from pixels of the file to pixels of ``picture``.
    """

    inputs: Tensor
    picture: np.ndarray
    scale: Tuple[float, float]


class Layer(NamedTuple):
    """An ACmix layer and what it was given.

    Attributes:
        name: In the backbone.
        module: The layer.
        x: Its input for the image.
        size: Rows and columns of its input.
        out_size: Rows and columns of its output.
    """

    name: str
    module: nn.Module
    x: Tensor
    size: Tuple[int, int]
    out_size: Tuple[int, int]


def build_backbone(cfg: Config, checkpoint: str) -> nn.Module:
    """The backbone of a config with the weights of a checkpoint: a whole model's, or a backbone's own.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: The backbone is none of ours, or the weights do not fit it.
    """
    kind = cfg.model.backbone.get('type')
    if not (kind.__module__ if isinstance(kind, type) else str(kind)).startswith('mmacmix.'):
        raise ValueError(f'the config must have a backbone of mmacmix, got model.backbone.type={kind}')
    backbone = MODELS.build(dict(cfg.model.backbone, init_cfg=None))
    whole = any(key.startswith('backbone.') for key in unwrap(read_checkpoint(checkpoint)))
    load_pretrained(backbone, checkpoint, 'backbone.' if whole else None, optional_keys=backbone.optional_keys)
    return backbone.eval()


def load_image(cfg: Config, path: Path) -> Image:
    """Reads an image through the test pipeline and the preprocessor of a config, without cropping and padding.

    Raises:
        ValueError: The file is no image, or none that the test pipeline takes; or the config has no such pipeline.
    """
    try:
        read_image(str(path))
    except ValueError as error:
        raise ValueError(f'{path} cannot be read as an image: it {error}') from error
    pipeline = next((dataset['pipeline'] for _, dataset in datasets(cfg, 'test') if 'pipeline' in dataset), None)
    if pipeline is None:
        raise ValueError('the config must say by test_dataloader.dataset.pipeline how images are prepared, got none')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    # Backbones take any size, and points are those of the whole image.
    steps = [step for step in pipeline if type_name(step) not in ('LoadAnnotations', 'CenterCrop', 'Pad')]
    try:
        sample = Compose(steps)(dict(img_path=str(path), img_id=0, seg_fields=[], reduce_zero_label=False))
    except (AssertionError, cv2.error) as error:  # of a size or kind that a step refuses
        reason = ' '.join(str(error).split())
        raise ValueError(f'{path} cannot be prepared by the test pipeline ({reason})') from error
    preprocessor = HOST_MODELS.build(cfg.model.get('data_preprocessor') or cfg.data_preprocessor)
    inputs = preprocessor(pseudo_collate([sample]), False)['inputs']
    height, width = sample['inputs'].shape[1:]
    original = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    picture = cv2.resize(original, (width, height), interpolation=cv2.INTER_AREA)
    return Image(inputs, picture, (width / original.shape[1], height / original.shape[0]))


def run_layers(backbone: nn.Module, inputs: Tensor) -> Dict[str, Layer]:
    """The ACmix layers of a backbone, with what each is given for the image, in the order in which they run."""
    layers: Dict[str, Layer] = {}

    def keep(name: str):
        def hook(module: nn.Module, arguments: tuple) -> None:
            x = arguments[0].clone()
            sizes = [s[1:3] if module.channels_last else s[2:] for s in (x.shape, module.output_shape(x.shape))]
            layers[name] = Layer(name, module, x, *(tuple(size) for size in sizes))

        return hook

    hooks = [
        module.register_forward_pre_hook(keep(name))
        for name, module in backbone.named_modules()
        if hasattr(module, 'attention_weights')
    ]
    try:
        with torch.no_grad():
            backbone(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return layers


def choose_layers(layers: Dict[str, Layer], names: Sequence[str]) -> List[Layer]:
    """The layers of these names, or the last one of each resolution.

    Raises:
        ValueError: There is no layer of a name, or none at all.
    """
    if not layers:
        raise ValueError('the backbone must have ACmix layers, got none')
    unknown = [name for name in names if name not in layers]
    if unknown:
        raise ValueError(f'--layers must be of {", ".join(layers)}, got {", ".join(unknown)}')
    if names:
        return [layers[name] for name in names]
    return list({layer.out_size: layer for layer in layers.values()}.values())


def weights_at(layer: Layer, image: Image, x: float, y: float) -> np.ndarray:
    """Weights with which the layer's pixel at (x, y) of ``image.picture`` attends, by head: (heads, rows, cols)."""
    height, width = image.inputs.shape[2:]
    row, col = (int(place * n / length) for place, n, length in zip((y, x), layer.out_size, (height, width)))
    return layer.module.attention_weights(layer.x, row, col)[0].numpy()


@torch.no_grad()
def summands(layer: Layer) -> Dict[str, np.ndarray]:
    """Length of the vectors that each path adds to every pixel of the output, by path: (rows, cols).

    What both share, an offset of the convolution path for one, counts as the convolution's.
    """
    module = layer.module
    whole = module(layer.x)
    axis = 3 if module.channels_last else 1
    parts = {module.paths[0]: whole}
    if len(module.paths) == 2:
        rate = module.rate1.clone()
        module.rate1.zero_()
        convolution = module(layer.x)
        module.rate1.copy_(rate)
        parts = dict(attention=whole - convolution, convolution=convolution)
    return {path: part.norm(dim=axis)[0].numpy() for path, part in parts.items()}
