"""Does a built model fit its data and its own parts?"""

import re
from typing import Dict, Iterator, List, Sequence, Tuple

import torch
from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from mmacmix.engine.config_files import SetupError, type_name
from mmacmix.engine.level_checks import check_levels
from mmacmix.state_dicts import listing

# Heads whose labels are the classes of the data; others (RPN, things, stuff, text) count otherwise.
DETECTION = re.compile(r'(?:roi_head\.)?(?:bbox_head|mask_head)(?:\.\d+)?$')
SEGMENTATION = re.compile(r'(?:decode_head|auxiliary_head)(?:\.\d+)?$')
# Necks that take one map for each of in_channels.
LISTED = ('FPN', 'PAFPN', 'ChannelMapper', 'MultiLevelNeck')


def unwrapped(model: nn.Module) -> nn.Module:
    """The detector, segmenter or classifier inside wrappers for several GPUs or for test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def check_classes(model: nn.Module, classes: Sequence[str], setting: str) -> None:
    """Checks that the heads have the classes of a data set.

    Raises:
        SetupError: A head has another number of them.
    """
    wrong = [
        f'model.{name}.num_classes={head.num_classes}'
        for name, head in model.named_modules()
        if _scores_classes(model, name, head) and head.num_classes != len(classes)
    ]
    if wrong:
        raise SetupError(
            f'heads must have the {len(classes)} classes of {setting}.metainfo.classes ({listing(classes, 5)}), '
            f'got {", ".join(wrong)}'
        )


def check_order(trained: Dict[str, Sequence[str]], classes: Sequence[str], setting: str) -> None:
    """Checks that a data set numbers its classes as the one that is trained on does.

    Args:
        trained: The classes of the training, each list with the setting of its data set.
        classes: Those of the data set.
        setting: Where it stands in the config.

    Raises:
        SetupError: They are the same in another order.
    """
    for where, order in trained.items():
        if list(order) != list(classes) and sorted(order) == sorted(classes):
            raise SetupError(
                f'{setting}.metainfo.classes must have the order of {where}.metainfo.classes ({listing(order, 5)}), '
                f'got ({listing(classes, 5)}): heads count them in that order'
            )


def check_frozen(model: nn.Module, loaded: bool) -> None:
    """Checks that what a backbone of ours freezes comes from a checkpoint: random weights would stay as they are.

    Args:
        model: The whole model.
        loaded: Whether the run loads a checkpoint.

    Raises:
        SetupError: Nothing loads weights.
    """
    backbone = getattr(model, 'backbone', None)
    stages = getattr(backbone, 'frozen_stages', -1)
    ours = any(base.__module__.startswith('mmacmix.') for base in type(backbone).__mro__)
    if not ours or not isinstance(stages, int) or stages < 0 or loaded:
        return
    if not any(_pretrained(getattr(part, 'init_cfg', None)) for part in (model, backbone)):
        raise SetupError(
            'frozen stages must have weights to keep: nothing loads any, and random ones would stay as they are; '
            f"set model.backbone.init_cfg=dict(type='Pretrained', checkpoint=...) or load_from, or "
            f'model.backbone.frozen_stages=-1, got model.backbone.frozen_stages={stages}'
        )


class ChannelWatch:
    """Compares the maps that the layers of a model are given with those they take, until it is removed.

    A model whose parts do not fit would end in an error of torch that names no setting.

    Raises:
        SetupError: In the forward pass: the parts do not fit; the message names the setting.
    """

    def __init__(self, model: nn.Module) -> None:
        self.maps: Dict[str, List[int]] = {}
        self.handles = []
        for part in ('backbone', 'neck'):
            module = getattr(model, part, None)
            if isinstance(module, nn.Module):
                self.handles.append(module.register_forward_hook(self._remember(part, model)))
        for name, module in model.named_modules():
            # A backbone chooses its own parts; ours computes otherwise where hooks look at its layers.
            if 'backbone' not in name.split('.') and isinstance(module, (_ConvNd, nn.Linear, _BatchNorm)) \
                    and _of_torch(module):
                self.handles.append(module.register_forward_pre_hook(self._compare(name)))

    def remove(self) -> None:
        for handle in self.handles:
            handle.remove()
        self.handles = []

    def _remember(self, part: str, model: nn.Module):
        def hook(module: nn.Module, args: tuple, outputs: object) -> None:
            maps = outputs if isinstance(outputs, (list, tuple)) else [outputs]
            if all(isinstance(x, Tensor) and x.dim() == 4 for x in maps):
                self.maps[part] = [x.size(1) for x in maps]
                neck = getattr(model, 'neck', None) if part == 'backbone' else None
                if isinstance(neck, nn.Module):
                    check_neck(neck, self.maps[part])
                else:
                    check_levels(model, self.maps[part], part)
                    for name in ('decode_head', 'auxiliary_head'):
                        for where, head in _listed(getattr(model, name, None), f'model.{name}'):
                            check_segmentation_head(head, where, self.maps[part], part)

        return hook

    def _compare(self, name: str):
        def hook(module: nn.Module, args: tuple) -> None:
            x = args[0] if args else None
            if not isinstance(x, Tensor):
                return
            taken, axis = _taken(module)
            if taken and x.dim() > 1 and x.size(axis) != taken:
                seen = ', '.join(f'{part} {channels}' for part, channels in self.maps.items())
                raise SetupError(
                    f'channels must fit: model.{name} takes {taken}, and is given {x.size(axis)}; set in_channels of '
                    f'model.{_owner(name)}{" (channels of maps: " + seen + ")" if seen else ""}'
                )

        return hook


def check_neck(neck: nn.Module, maps: List[int]) -> None:
    """Checks a neck that lists channels, as FPN does, against the channels of the backbone's maps."""
    channels = getattr(neck, 'in_channels', None)
    if type(neck).__name__ in LISTED and isinstance(channels, (list, tuple)) and list(channels) != maps:
        raise SetupError(
            f'model.neck.in_channels must be the channels of the maps of the backbone, {maps}, '
            f'got model.neck.in_channels={list(channels)}; model.backbone.out_indices tells which maps there are'
        )


def check_segmentation_head(head: nn.Module, setting: str, maps: List[int], part: str) -> None:
    """Checks a decode head of mmseg, which takes maps by in_index, against the channels of what is in front of it."""
    index, channels = getattr(head, 'in_index', None), getattr(head, 'in_channels', None)
    if index is None or not hasattr(head, 'input_transform'):
        return
    several = isinstance(index, (list, tuple))
    indices = list(index) if several else [index]
    if any(not -len(maps) <= i < len(maps) for i in indices):
        raise SetupError(
            f'{setting}.in_index must count the {len(maps)} maps of the {part} from 0, got {setting}.in_index={index}'
        )
    given = [maps[i] for i in indices]
    if head.input_transform == 'resize_concat':
        given, several = [sum(given)], False
    taken = list(channels) if isinstance(channels, (list, tuple)) else [channels]
    if given != taken:
        raise SetupError(
            f'{setting}.in_channels must be the channels of the maps of the {part} that it takes, '
            f'{given if several else given[0]}, got {setting}.in_channels={channels}'
        )


def check_labels(model: nn.Module, batch: object) -> None:
    """Checks the label maps of one batch of mmseg, on the CPU: on a GPU a wrong label kills the process.

    Raises:
        SetupError: A map has another size than its image, or a label that is no class.
    """
    head = getattr(model, 'decode_head', None)
    if not isinstance(batch, dict) or head is None:
        return
    head = head[-1] if isinstance(head, nn.ModuleList) else head
    number, ignored = getattr(head, 'num_classes', None), getattr(head, 'ignore_index', 255)
    for image, sample in zip(batch.get('inputs', ()), batch.get('data_samples', ())):
        if not isinstance(image, Tensor) or not hasattr(sample, 'gt_sem_seg'):
            continue
        labels = sample.gt_sem_seg.data
        path = sample.metainfo.get('seg_map_path') or sample.metainfo.get('img_path')
        if labels.shape[-2:] != image.shape[-2:]:
            sizes = ' and '.join(f'{x.shape[-1]}x{x.shape[-2]}' for x in (labels, image))
            raise SetupError(f'a label map must have the size of its image, got {sizes} after the pipeline for {path}')
        if isinstance(number, int) and labels.numel() and labels.device.type == 'cpu' and _strict(head):
            wrong = labels[(labels >= number) & (labels != ignored)]
            if wrong.numel():
                raise SetupError(
                    f'labels must be below model.decode_head.num_classes={number}, or {ignored} (ignored), got '
                    f'{listing(torch.unique(wrong).tolist(), 5)} (as the loss is given them) in {path}; see '
                    'train_dataloader.dataset.metainfo.classes and .reduce_zero_label'
                )


def _scores_classes(model: nn.Module, name: str, head: nn.Module) -> bool:
    """Whether a module is a head whose num_classes must be that of the data."""
    if not isinstance(getattr(head, 'num_classes', None), int):
        return False
    if SEGMENTATION.match(name):
        return _strict(head)  # others may score depths, boundaries, ...
    if DETECTION.match(name):
        if any('RPNHead' in kind.__name__ for kind in type(head).__mro__):
            return False  # things or background; the model RPN has it as its bbox_head
        # Classes of panoptic data are things and stuff; heads of a model of language score words.
        others = hasattr(model, 'semantic_head') or hasattr(model, 'language_model')
        return not others and not getattr(head, 'class_agnostic', False)
    return name == 'head' and type(model).__name__ == 'ImageClassifier'


def _strict(head: nn.Module) -> bool:
    """Whether the loss of a head refuses labels that are no class; those by sigmoid take them as background."""
    losses = [loss for _, loss in _listed(getattr(head, 'loss_decode', None), '')]
    return any(type(loss).__name__ == 'CrossEntropyLoss' and not getattr(loss, 'use_sigmoid', False)
               for loss in losses)


def _taken(module: nn.Module) -> Tuple[int, int]:
    """How many channels a layer takes, and along which axis."""
    if isinstance(module, nn.Linear):
        return module.in_features, -1
    if isinstance(module, _ConvNd):
        return module.in_channels, -1 - len(module.kernel_size)
    return module.num_features, 1


def _of_torch(module: nn.Module) -> bool:
    """Whether a layer computes as torch's does; others, as CoordConv, may add channels to what they are given."""
    return str(getattr(module.forward, '__module__', '')).startswith(('torch.nn.', 'mmcv.cnn.bricks.wrappers'))


def _owner(name: str) -> str:
    """The part of a model, as configs have it, that a layer belongs to."""
    parts = name.split('.')
    heads = [i for i, part in enumerate(parts) if part in ('neck', 'backbone') or part.endswith('_head')]
    if not heads:
        return parts[0]
    last = heads[-1] + 1
    while last < len(parts) and parts[last].isdigit():
        last += 1
    return '.'.join(parts[:last])


def _listed(module: object, setting: str) -> Iterator[Tuple[str, nn.Module]]:
    if isinstance(module, nn.ModuleList):
        for i, part in enumerate(module):
            yield f'{setting}.{i}', part
    elif isinstance(module, nn.Module):
        yield setting, module


def _pretrained(init_cfg: object) -> bool:
    configs = init_cfg if isinstance(init_cfg, (list, tuple)) else [init_cfg]
    return any(isinstance(c, dict) and type_name(c).startswith('Pretrained') for c in configs)
