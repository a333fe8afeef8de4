"""ResNet-ACmix: ResNet bottlenecks whose 3x3 convolution is ACmix.

Paper: "On the Integration of Self-Attention and Convolution", CVPR 2022, arXiv 2111.14556. Parameters have the
names of the released code, which are also those of mmdet's ResNet. What differs from the release: the shift
kernels survive initialisation, outputs of all stages, no classifier.
"""

from typing import Iterable, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule, Sequential
from mmengine.model.weight_init import constant_init
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from mmacmix.backbones.base import Backbone, channels_last_gradient, check_norm_cfg, run_checkpointed
from mmacmix.backbones.fold import affine_of, conv_norm, conv_norm_add, has_hooks, merge
from mmacmix.layers import ACmix
from mmacmix.layers.strided_conv import StridedConv2d
from mmacmix.ops.checks import PATHS, check_paths, check_positive_integers
from mmacmix.registry import MODELS

EXPANSION = 4


class Bottleneck(BaseModule):
    """1x1 convolution, ACmix (which has the stride), 1x1 convolution, and the identity."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int,
        dilation: int,
        norm_cfg: dict,
        zero_init_residual: bool,
        with_cp: bool,
        **acmix,
    ) -> None:
        super().__init__()
        self.zero_init_residual = zero_init_residual
        self.with_cp = with_cp
        out_channels = EXPANSION * channels
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.norm1_name = _add_norm(self, norm_cfg, channels, 1)
        self.conv2 = ACmix(channels, channels, stride=stride, dilation=dilation, **acmix)
        self.norm2_name = _add_norm(self, norm_cfg, channels, 2)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.norm3_name = _add_norm(self, norm_cfg, out_channels, 3)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False),
                build_norm_layer(norm_cfg, out_channels)[1],
            )

    def init_weights(self) -> None:
        super().init_weights()
        if self.zero_init_residual:
            constant_init(getattr(self, self.norm3_name), 0)

    def switch_to_deploy(self) -> None:
        self.conv1, norm1 = merge(self.conv1, getattr(self, self.norm1_name))
        setattr(self, self.norm1_name, norm1)
        self.conv3, norm3 = merge(self.conv3, getattr(self, self.norm3_name))
        setattr(self, self.norm3_name, norm3)
        if self.downsample is not None:
            self.downsample = nn.Sequential(*merge(*self.downsample))
        affine = self._affine()
        self.conv2.switch_to_deploy(affine)
        if affine is not None:
            setattr(self, self.norm2_name, nn.Identity())

    def forward(self, x: Tensor, overwrite: bool = False) -> Tensor:
        """
        Args:
            x: (B, in_channels, H, W).
            overwrite: Whether the result may be written over x.
        """
        return run_checkpointed(lambda x: self._forward(x, overwrite), x, self.with_cp)

    def _forward(self, x: Tensor, overwrite: bool) -> Tensor:
        out = F.relu(conv_norm(self.conv1, getattr(self, self.norm1_name), x), inplace=True)
        norm = getattr(self, self.norm2_name)
        affine = None if has_hooks(self.conv2, norm) else self._affine()
        out = norm(self.conv2(out)) if affine is None else self.conv2(out, affine)
        out = F.relu(out, inplace=True)
        if self.downsample is not None:
            x, overwrite = conv_norm(*self.downsample, x), True
        out = conv_norm_add(self.conv3, getattr(self, self.norm3_name), out, x, overwrite)
        return F.relu(out, inplace=True)

    def _affine(self) -> Optional[Tuple[Tensor, Tensor]]:
        """The second normalisation as ACmix can take it over, if it can."""
        if self.conv2.merged is not None:  # somebody deployed the layer alone
            return None
        return affine_of(getattr(self, self.norm2_name))


class Stage(Sequential):
    """Blocks at one resolution. In inference each writes its map over that of the one before it."""

    def forward(self, x: Tensor) -> Tensor:
        seen = True  # x is the caller's
        for block in self:
            if type(block).forward is not Bottleneck.forward or 'forward' in vars(block):
                x, seen = block(x), True  # put there by somebody, activation checkpointing say: it may keep its maps
                continue
            hooked = _hooks_everywhere() or has_hooks(*block.modules())
            x = block(x, overwrite=not (seen or hooked))
            seen = hooked
        return x


def _hooks_everywhere() -> bool:
    """Whether hooks look at the maps of all modules."""
    return bool(hooks._global_forward_hooks or hooks._global_forward_pre_hooks)


@MODELS.register_module()
class ResNetACmix(Backbone):
    """ResNet-ACmix as a backbone for dense prediction.

    Args:
        depth: 26, 38 or 50.
        in_channels: Channels of the images.
        num_stages: Stages that are built, 1 to 4.
        strides: Stride of the first block of each stage.
        dilations: Dilation of ACmix in each stage.
        out_indices: Stages whose maps are returned.
        frozen_stages: Freezes the stem and so many stages; -1 freezes nothing.
        norm_cfg: Normalisation layers, as mmcv builds them.
        norm_eval: Whether batch normalisation keeps its running statistics in training.
        with_cp: Whether a block's inner maps are computed again in the backward pass instead of kept.
        zero_init_residual: Whether every block starts as the identity.
        num_heads: Attention heads of every ACmix.
        attn_kernel_size: Side of the attention window, odd.
        conv_kernel_size: Side of the convolution kernels, odd.
        paths: 'attention', 'convolution' or both. Attention alone is the stand-alone self-attention ResNet
            (SASA-ResNet) of the paper's comparison; a path that is left out has no parameters.
        stem_channels: Channels of the first convolution.
        base_channels: Inner channels of the first stage, divisible by num_heads.
        init_cfg: mmengine initialisation; Kaiming convolutions by default, with ACmix's own start kept.

    Shape:
        (B, in_channels, H, W), any size, to a tuple of (B, 4 * base_channels * 2**i, H_i, W_i) for i in
        out_indices, where a stage of stride s halves sizes s-fold and rounds up; 1/4, 1/8, 1/16 and
        1/32 of the image with the default strides.

    Raises:
        ValueError: An argument is not allowed, or pretrained weights do not fit.

    Example:
        >>> [tuple(x.shape) for x in ResNetACmix(26)(torch.randn(1, 3, 100, 67))]
        [(1, 256, 25, 17), (1, 512, 13, 9), (1, 1024, 7, 5), (1, 2048, 4, 3)]
    """

    depths = {26: (1, 2, 4, 1), 38: (2, 3, 5, 2), 50: (3, 4, 6, 3)}

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_cfg: dict = dict(type='BN', requires_grad=True),
        norm_eval: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        num_heads: int = 4,
        attn_kernel_size: int = 7,
        conv_kernel_size: int = 3,
        paths: Sequence[str] = PATHS,
        stem_channels: int = 64,
        base_channels: int = 64,
        init_cfg: Union[dict, list, None] = None,
    ) -> None:
        if not isinstance(depth, int) or depth not in self.depths:
            raise ValueError(f'depth must be one of {sorted(self.depths)}, got depth={depth!r}')
        if num_stages not in (1, 2, 3, 4):
            raise ValueError(f'num_stages must be 1, 2, 3 or 4, got num_stages={num_stages!r}')
        for name, values in (('strides', strides), ('dilations', dilations)):
            if not isinstance(values, Sequence) or len(values) != num_stages:
                raise ValueError(f'{name} must have num_stages={num_stages} entries, got {name}={values}')
        check_positive_integers(
            in_channels=in_channels, stem_channels=stem_channels, base_channels=base_channels
        )
        if init_cfg is None:
            init_cfg = [
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
            ]
        super().__init__(num_stages, out_indices, frozen_stages, norm_eval, init_cfg)
        # A checkpoint may have later stages that are not built here.
        self.optional_keys = rf'layer[{num_stages + 1}-4]\.' if num_stages < 4 else None

        self.depth = depth
        self.paths = check_paths(paths)
        for channels in (stem_channels, base_channels):  # later stages have multiples of these
            check_norm_cfg(norm_cfg, channels)
        self.conv1 = StridedConv2d(in_channels, stem_channels, 7, 2, 3, bias=False)
        self.norm1_name = _add_norm(self, norm_cfg, stem_channels, 1)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = stem_channels
        for i in range(num_stages):
            width = base_channels * 2**i
            blocks = []
            for j in range(self.depths[depth][i]):
                blocks.append(
                    Bottleneck(
                        channels,
                        width,
                        stride=strides[i] if j == 0 else 1,
                        dilation=dilations[i],
                        norm_cfg=norm_cfg,
                        zero_init_residual=zero_init_residual,
                        with_cp=with_cp,
                        num_heads=num_heads,
                        attn_kernel_size=attn_kernel_size,
                        conv_kernel_size=conv_kernel_size,
                        paths=paths,
                    )
                )
                channels = EXPANSION * width
            self.add_module(f'layer{i + 1}', Stage(*blocks))
        self.train()

    def stem_modules(self) -> Iterable[nn.Module]:
        return self.conv1, getattr(self, self.norm1_name)

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        return (getattr(self, f'layer{stage + 1}'),)

    def switch_to_deploy(self) -> 'ResNetACmix':
        super().switch_to_deploy()
        self.conv1, norm1 = merge(self.conv1, getattr(self, self.norm1_name))
        setattr(self, self.norm1_name, norm1)
        return self

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        on_cpu = x.device.type == 'cpu'
        if on_cpu:  # the faster format there
            x = x.contiguous(memory_format=torch.channels_last)
        x = F.relu(conv_norm(self.conv1, getattr(self, self.norm1_name), x), inplace=True)
        x = self.maxpool(x)
        outs = []
        for i in range(self.out_indices[-1] + 1):
            x = getattr(self, f'layer{i + 1}')(x)
            if i in self.out_indices:
                # Operators of the hosts, RoIAlign for one, read other formats as if they were this one.
                outs.append((channels_last_gradient(x) if on_cpu else x).contiguous())
        return tuple(outs)


def _add_norm(module: nn.Module, norm_cfg: dict, channels: int, number: int) -> str:
    """Adds a normalisation layer under mmcv's name for it (bn1, gn1, ...) and returns the name."""
    name, norm = build_norm_layer(norm_cfg, channels, postfix=number)
    module.add_module(name, norm)
    return name
