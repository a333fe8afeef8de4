"""SAN-ACmix: self-attention network (patchwise) whose attention is ACmix.

Papers: "On the Integration of Self-Attention and Convolution", CVPR 2022, arXiv 2111.14556; "Exploring Self-attention
for Image Recognition" (SAN), CVPR 2020, arXiv 2004.13621. The authors have not released this family: it is a
reconstruction, from the paper's description and its published parameters and multiply-adds. What was decided is in
:mod:`mmacmix.layers.patchwise_acmix`; all around the attention is as in SAN, whose parameters have the same names.
What differs from SAN: images of any size (the pooling rounds up), outputs of all stages, no classifier.
"""

from typing import Iterable, Sequence, Tuple, Union

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule, Sequential
from torch import Tensor, nn

from mmacmix.backbones.base import Backbone, check_norm_cfg, run_checkpointed
from mmacmix.backbones.fold import conv_norm, merge
from mmacmix.layers import PatchwiseACmix
from mmacmix.ops.checks import PATHS, check_paths, check_positive_integers
from mmacmix.ops.exporting import exporting, fill_up, whole
from mmacmix.registry import MODELS


class SANBlock(BaseModule):
    """ACmix and a 1x1 convolution, each after a normalisation, and the identity."""

    def __init__(self, channels: int, norm_cfg: dict, with_cp: bool, **acmix) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.bn1 = build_norm_layer(norm_cfg, channels)[1]
        self.sam = PatchwiseACmix(channels, **acmix)
        self.bn2 = build_norm_layer(norm_cfg, channels // 4)[1]
        self.conv = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return run_checkpointed(self._forward, x, self.with_cp)

    def _forward(self, x: Tensor) -> Tensor:
        out = self.sam(F.relu(self.bn1(x), inplace=True))
        return self.conv(F.relu(self.bn2(out), inplace=True)).add_(x)


@MODELS.register_module()
class SANACmix(Backbone):
    """SAN-ACmix as a backbone for dense prediction: a reconstruction, see :mod:`mmacmix.backbones.san_acmix`.

    Args:
        depth: 10, 15 or 19.
        in_channels: Channels of the images.
        out_indices: Stages whose maps are returned, 0 to 3; SAN's layer0, at 1/2 of the image, counts as the stem.
        frozen_stages: Freezes the stem and so many stages; -1 freezes nothing.
        norm_cfg: Normalisation layers, as mmcv builds them. The normalisation of attention windows is batch
            normalisation always (synchronised where the model is converted so). In a small detector from random
            weights (one seed, batches of 8), dict(type='GN', num_groups=16) was better (docs/evidence.md).
        norm_eval: Whether batch normalisation keeps its running statistics in training.
        with_cp: Whether a block's inner maps are computed again in the backward pass instead of kept.
        attn_kernel_sizes: Side of the attention window in the stem and in each stage, odd.
        conv_kernel_size: Side of the convolution kernels, odd.
        paths: 'attention', 'convolution' or both. Attention alone is SAN; a path that is left out has no parameters.
        stem_channels: Channels of the stem, divisible by 32; the first stage has 4 times as many, and each further one
            twice as many as the one before.
        init_cfg: mmengine initialisation; as torch does by default.

    Shape:
        (B, in_channels, H, W), any size, to a tuple of (B, 4 * stem_channels * 2**i, H_i, W_i) for i in out_indices:
        1/4, 1/8, 1/16 and 1/32 of the image, rounded up.

    Raises:
        ValueError: An argument is not allowed, or pretrained weights do not fit.

    Example:
        >>> [tuple(x.shape) for x in SANACmix(10)(torch.randn(2, 3, 100, 67))]
        [(2, 256, 25, 17), (2, 512, 13, 9), (2, 1024, 7, 5), (2, 2048, 4, 3)]
    """

    depths = {10: (2, 1, 2, 4, 1), 15: (3, 2, 3, 5, 2), 19: (3, 3, 4, 6, 3)}
    optional_keys = r'fc\.'  # SAN's classifier

    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_cfg: dict = dict(type='BN', requires_grad=True),
        norm_eval: bool = False,
        with_cp: bool = False,
        attn_kernel_sizes: Sequence[int] = (3, 7, 7, 7, 7),
        conv_kernel_size: int = 3,
        paths: Sequence[str] = PATHS,
        stem_channels: int = 64,
        init_cfg: Union[dict, list, None] = None,
    ) -> None:
        if not isinstance(depth, int) or depth not in self.depths:
            raise ValueError(f'depth must be one of {sorted(self.depths)}, got depth={depth!r}')
        depths = self.depths[depth]
        if not isinstance(attn_kernel_sizes, Sequence) or len(attn_kernel_sizes) != len(depths):
            raise ValueError(f'attn_kernel_sizes must have 5 entries, got attn_kernel_sizes={attn_kernel_sizes}')
        check_positive_integers(in_channels=in_channels, stem_channels=stem_channels)
        if stem_channels % 32:
            raise ValueError(f'stem_channels must be divisible by 32, got stem_channels={stem_channels}')
        check_norm_cfg(norm_cfg, stem_channels // 4)  # others are of multiples
        super().__init__(len(depths) - 1, out_indices, frozen_stages, norm_eval, init_cfg)
        self.depth = depth
        self.paths = check_paths(paths)
        self.conv_in = nn.Conv2d(in_channels, stem_channels, 1, bias=False)
        self.bn_in = build_norm_layer(norm_cfg, stem_channels)[1]
        widths = [stem_channels, *(stem_channels * 2 ** (i + 1) for i in range(1, len(depths)))]
        for i, width in enumerate(widths):
            # In front of all convolutions: mmcv's fuse_conv_bn takes what follows a convolution for its normalisation.
            self.add_module(f'bn{i}', build_norm_layer(norm_cfg, width)[1])
        channels = stem_channels
        for i, (blocks, width) in enumerate(zip(depths, widths)):
            self.add_module(f'conv{i}', nn.Conv2d(channels, width, 1, bias=False))
            stage = [
                SANBlock(
                    width,
                    norm_cfg,
                    with_cp,
                    attn_kernel_size=attn_kernel_sizes[i],
                    conv_kernel_size=conv_kernel_size,
                    paths=paths,
                )
                for _ in range(blocks)
            ]
            self.add_module(f'layer{i}', Sequential(*stage))
            channels = width
        self.train()

    def stem_modules(self) -> Iterable[nn.Module]:
        return (self.conv_in, self.bn_in, *self._level(0))

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        return self._level(stage + 1)

    def _level(self, number: int) -> Tuple[nn.Module, ...]:
        return tuple(getattr(self, f'{name}{number}') for name in ('conv', 'layer', 'bn'))

    def switch_to_deploy(self) -> 'SANACmix':
        super().switch_to_deploy()
        self.conv_in, self.bn_in = merge(self.conv_in, self.bn_in)
        return self

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        x = F.relu(conv_norm(self.conv_in, self.bn_in, x), inplace=True)
        outs = []
        for level in range(self.out_indices[-1] + 2):
            conv, blocks, norm = self._level(level)
            x = blocks(conv(_halve(x)))
            x = F.relu(norm(x), inplace=True)
            if level - 1 in self.out_indices:
                outs.append(x.contiguous())  # the format that operators of the hosts read
        return tuple(outs)


def _halve(x: Tensor) -> Tensor:
    """Greatest of 2 x 2 pixels each; sides are rounded up."""
    if exporting():
        # What is filled up does not count: a rectified map is nowhere below 0.
        for dim in (2, 3):
            x = fill_up(x, dim, whole(x.size(dim), 2))
        return F.max_pool2d(x, 2, 2)
    return F.max_pool2d(x, 2, 2, ceil_mode=True)
