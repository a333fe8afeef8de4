"""What tools/analysis_tools/benchmark.py measures: whole detectors and segmenters, on random images.

'forward' is the host's test_step, from images of uint8 to boxes, masks or labels; 'training' its loss, backward, and a
step of the optimizer of the config, whose learning rate is set to 0, so that every step is the same work.
"""

import argparse
import copy
import hashlib
import inspect
import shlex
import sys
from pathlib import Path
from typing import Callable, List, NamedTuple, Tuple

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1] / 'analysis_tools'))
from whole_models import build, load  # noqa: E402

from mmacmix.engine.config_files import CfgOptions  # noqa: E402

#: Objects of an image in training: COCO has 7.3.
OBJECTS = 7


class Side(NamedTuple):
    """A config that is measured, with the plain backbone of the host in place of its own or not."""

    path: str
    plain: bool = False
    options: Tuple[str, ...] = ()

    def name(self) -> str:
        """'CONFIG [--plain] [KEY=VALUE ...] #1a2b3c4d': the last tells contents of a config from later ones."""
        cfg = config_of(self)
        content = repr((cfg.model.to_dict(), cfg.get('optim_wrapper')))
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        return f'{shlex.join([self.path, *["--plain"] * self.plain, *self.options])} #{digest}'

    @classmethod
    def of(cls, name: str) -> 'Side':
        """The side of a name."""
        path, *words = shlex.split(name.rpartition(' #')[0])
        return cls(path, '--plain' in words, tuple(word for word in words if word != '--plain'))


def config_of(side: Side) -> Config:
    """The config of a side.

    Raises:
        ValueError: It is none of a detector or segmenter, or has a backbone without a plain counterpart.
    """
    path, plain, options = side
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, default={})
    cfg = load(path, parser.parse_args(['--cfg-options', *options] if options else []).cfg_options)
    if cfg.default_scope not in ('mmdet', 'mmseg'):
        raise ValueError(f'{path} must have default_scope=mmdet or mmseg, got default_scope={cfg.default_scope}')
    if plain:
        cfg.model.backbone = ConfigDict(plain_backbone(cfg))
    return cfg


def plain_backbone(cfg: Config) -> dict:
    """The host's backbone that an ACmix backbone is made of, with its settings where both have them.

    ResNet-ACmix and SAN-ACmix have no counterpart of their own depth: ResNet-50 has their channels.
    """
    import mmacmix.backbones

    ours = cfg.model.backbone
    kind = ours.type.split('.')[-1]
    if kind not in ('PVTACmix', 'ResNetACmix', 'SANACmix', 'SwinACmix'):
        raise ValueError(f'only ACmix backbones have a plain counterpart, got model.backbone.type={ours.type}: '
                         'use --against CONFIG or --against none')
    family = getattr(mmacmix.backbones, kind)
    settings = {name: p.default for name, p in inspect.signature(family).parameters.items()}
    settings.update(ours)

    def same(*names: str) -> dict:
        return {name: settings[name] for name in names if settings.get(name) is not None}

    if kind in ('ResNetACmix', 'SANACmix'):
        keys = ('out_indices', 'frozen_stages', 'norm_eval', 'with_cp')
        if kind == 'ResNetACmix':
            keys += ('in_channels', 'stem_channels', 'base_channels')
        return dict(type='ResNet', depth=50, **same(*keys))
    arch = settings['arch']
    arch = family.archs[arch] if isinstance(arch, str) else arch
    rates = same('in_channels', 'out_indices', 'drop_rate', 'attn_drop_rate', 'drop_path_rate')
    if kind == 'SwinACmix':
        sizes = {name: arch[name] for name in ('embed_dims', 'depths', 'num_heads')}
        rest = same('patch_size', 'window_size', 'frozen_stages', 'with_cp')
        ratio = settings['mlp_ratio']
        ratio = int(ratio) if ratio == int(ratio) else ratio  # channels are the host's ratio * dim, unrounded
        return dict(type='SwinTransformer', mlp_ratio=ratio, **sizes, **rest, **rates)
    return dict(
        type='mmdet.PyramidVisionTransformer',
        embed_dims=arch['embed_dims'][0] // arch['num_heads'][0],
        num_layers=list(arch['depths']),
        **{name: list(arch[name]) for name in ('num_heads', 'sr_ratios', 'mlp_ratios')},
        **rates,
    )


def build_side(side: Side, shape: Tuple[int, int]) -> Tuple[nn.Module, Config]:
    """Model, with random weights, and config of a side.

    Raises:
        ValueError: It cannot be built.
    """
    cfg = config_of(side)
    preprocessor = cfg.model.get('data_preprocessor') or {}
    if preprocessor.get('size') is not None:  # the crops of the config; here all images have one size
        preprocessor.size = shape
    model = build(cfg)
    for module in model.modules():  # weights of files change neither time nor memory
        if getattr(module, 'init_cfg', None) and 'Pretrained' in str(module.init_cfg):
            module.init_cfg = None
    model.init_weights()
    take_all_for_objects(model)
    return model, cfg


def take_all_for_objects(model: nn.Module) -> None:
    """Gives every region, or anchor, a high score of the first class.

    With random weights no score would pass the threshold of test_cfg, and NMS and mask head would have nothing to do;
    so they have what test_cfg lets through at most, as tools/analysis_tools/get_flops.py counts.
    """
    for head in model.modules():
        if isinstance(getattr(head, 'fc_cls', None), nn.Linear):
            nn.init.constant_(head.fc_cls.bias[:1], 10)
        if isinstance(getattr(head, 'retina_cls', None), nn.Conv2d):
            nn.init.constant_(head.retina_cls.bias[:: head.cls_out_channels], 10)


def prepare(case: dict, side: str) -> Callable[[int, int], Callable[[], None]]:
    """Function from the size of images to the call that is measured."""
    torch.manual_seed(0)
    model, cfg = build_side(Side.of(side), (case['height'], case['width']))
    model.to(case['device'])
    training = case['pass'] == 'training'
    model.train(training)
    half = case['dtype'] in ('bfloat16', 'float16')
    autocast = dict(device_type=case['device'], dtype=getattr(torch, case['dtype']) if half else None, enabled=half)
    wrapper = optimizer_of(model, cfg) if training else None
    samples_of = segmentation_samples if cfg.default_scope == 'mmseg' else detection_samples
    classes = classes_of(cfg.model)

    def at(height: int, width: int) -> Callable[[], None]:
        images = [torch.randint(256, (3, height, width), dtype=torch.uint8) for _ in range(case['batch'])]
        truth = [sample for _ in images for sample in samples_of(height, width, classes if training else 0)]

        def infer() -> None:
            with torch.inference_mode(), torch.autocast(**autocast):
                model.test_step(dict(inputs=images, data_samples=copy.deepcopy(truth)))

        def train() -> None:
            data = model.data_preprocessor(dict(inputs=images, data_samples=truth), True)
            with torch.autocast(**autocast):
                losses = model(**data, mode='loss')
            wrapper.update_params(model.parse_losses(losses)[0])

        return train if training else infer

    return at


def optimizer_of(model: nn.Module, cfg: Config):
    """The optimizer of the config with a learning rate of 0; mixed precision is the benchmark's own."""
    settings = copy.deepcopy(cfg.optim_wrapper)
    settings['type'] = 'OptimWrapper'
    for name in ('dtype', 'loss_scale', 'use_fsdp'):
        settings.pop(name, None)
    wrapper = build_optim_wrapper(model, settings)
    for group in wrapper.optimizer.param_groups:
        group['lr'] = 0.0
    return wrapper


def classes_of(model: dict) -> int:
    """The number of classes of the first head that says it; 1 where none does."""
    for name, part in model.items():
        if name == 'num_classes':
            return part
        parts = part if isinstance(part, (list, tuple)) else [part]
        for inner in (p for p in parts if isinstance(p, dict)):
            if 'num_classes' in str(inner):
                return classes_of(inner)
    return 1


def detection_samples(height: int, width: int, classes: int) -> List:
    """One sample of mmdet, with boxes and masks of 5 to 50 % of the sides where there are classes."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    shape = (height, width)
    sample = DetDataSample(metainfo=dict(img_id=0, img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0)))
    if classes:
        boxes = random_boxes(height, width)
        masks = np.zeros((OBJECTS, height, width), np.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
            mask[y1:y2, x1:x2] = 1
        sample.gt_instances = InstanceData(
            bboxes=boxes, labels=torch.randint(classes, (OBJECTS,)), masks=BitmapMasks(masks, height, width))
        # What the crops of some configs ignore.
        sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
    return [sample]


def random_boxes(height: int, width: int) -> Tensor:
    """(OBJECTS, 4) x1, y1, x2, y2 in pixels"""
    sides = 0.05 + 0.45 * torch.rand(OBJECTS, 2)
    corner = torch.rand(OBJECTS, 2) * (1 - sides)
    return torch.cat([corner, corner + sides], 1) * torch.tensor([width, height, width, height])


def segmentation_samples(height: int, width: int, classes: int) -> List:
    """One sample of mmseg, with a label for every pixel where there are classes."""
    from mmseg.structures import SegDataSample

    shape = (height, width)
    sample = SegDataSample(metainfo=dict(img_shape=shape, ori_shape=shape, pad_shape=shape, scale_factor=(1.0, 1.0)))
    if classes:
        sample.gt_sem_seg = PixelData(data=torch.randint(classes, (1, height, width)))
    return [sample]
