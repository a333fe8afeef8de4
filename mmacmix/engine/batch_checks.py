"""Does the first batch have what the model takes?"""

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from mmacmix.engine.config_files import HOSTS, SetupError, made_by


def check_batch(model: nn.Module, batch: object, pipeline: str) -> None:
    """Checks one batch in front of a model of the hosts.

    Args:
        model: The whole model, without wrappers.
        batch: As the data loader gives it.
        pipeline: The setting of the steps that made it.

    Raises:
        SetupError: It lacks something, or has images of other channels; the message says what to change.
    """
    preprocessor = getattr(model, 'data_preprocessor', None)
    if not isinstance(batch, dict) or not made_by(preprocessor, *HOSTS):
        return
    if 'inputs' not in batch:
        raise SetupError(
            f'{pipeline} must end with a step that packs, as PackDetInputs, PackSegInputs or PackInputs, got samples '
            f'of {", ".join(map(str, list(batch)[:5]))}, ...'
        )
    check_images(model, preprocessor, batch['inputs'])
    samples = batch.get('data_samples')
    if isinstance(samples, (list, tuple)) and samples and _trains_masks(model):
        if not any('masks' in getattr(sample, 'gt_instances', ('masks',)) for sample in samples):
            raise SetupError(
                f'{pipeline} must load masks for model.roi_head.mask_head, got none: set with_mask=True in its '
                'LoadAnnotations'
            )


def check_images(model: nn.Module, preprocessor: nn.Module, images: object) -> None:
    """Checks the channels of images.

    Raises:
        SetupError: The mean or the standard deviation, or a backbone of ours, is for others.
    """
    image = images[0] if isinstance(images, (list, tuple)) and images else images
    if not isinstance(image, Tensor) or image.dim() not in (3, 4):
        return
    channels = image.size(-3)
    if channels == 1 and not made_by(preprocessor, 'mmdet'):
        # Others than mmdet make as many channels as there are means.
        numbers = [getattr(preprocessor, name, None) for name in ('mean', 'std')]
        channels = max([1, *(values.numel() for values in numbers if isinstance(values, Tensor))])
    for name in ('mean', 'std'):
        values = getattr(preprocessor, name, None)
        if isinstance(values, Tensor) and values.numel() not in (1, channels):
            raise SetupError(
                f'model.data_preprocessor.{name} must have a number for each of the {channels} channels of images, got '
                f'model.data_preprocessor.{name}={[round(x, 4) for x in torch.flatten(values).tolist()]}'
            )
    backbone = getattr(model, 'backbone', None)
    if isinstance(backbone, nn.Module) and made_by(backbone, 'mmacmix'):
        first = next((part for part in backbone.modules() if isinstance(part, _ConvNd)), None)
        if first is not None and first.in_channels != channels:
            raise SetupError(
                f'model.backbone.in_channels must be the {channels} channels of images, got '
                f'model.backbone.in_channels={first.in_channels}'
            )


def _trains_masks(model: nn.Module) -> bool:
    head = getattr(model, 'roi_head', None)
    return isinstance(getattr(head, 'mask_head', None), nn.Module) and made_by(head, 'mmdet')
