"""Swin-ACmix: Swin Transformer whose window attention is ACmix.

Papers: "On the Integration of Self-Attention and Convolution", CVPR 2022, arXiv 2111.14556; Swin Transformer,
ICCV 2021, arXiv 2103.14030. Released weights load through ``mmacmix.checkpoints.convert``. What differs from the
release: images of any size, a normalised output of every stage (norm0 to norm3), no classifier.
"""

from typing import Iterable, Optional, Sequence, Tuple, Union

import torch
from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.drop import build_dropout
from mmcv.cnn.bricks.transformer import FFN, PatchEmbed
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from mmacmix.backbones.base import (
    Backbone,
    check_norm_cfg,
    check_probabilities,
    drop_path_rates,
    resolve_arch,
    run_checkpointed,
)
from mmacmix.layers import WindowACmix
from mmacmix.layers.strided_conv import StridedConv2d
from mmacmix.ops.checks import PATHS, check_paths, check_positive_integers
from mmacmix.ops.exporting import exporting, fill_up, whole
from mmacmix.registry import MODELS

# Hidden maps of a feed-forward network in inference on a CPU. Up to 32 MiB malloc recycles memory, beyond it every
# page is fresh; strips below 16 MiB cost more in products than they gain.
WHOLE_BYTES = 32 * 2**20
STRIP_BYTES = 16 * 2**20


class SwinBlock(BaseModule):
    """Window ACmix and a feed-forward network, each after a normalisation and with an identity."""

    def __init__(
        self,
        dim: int,
        mlp_ratio: float,
        norm_cfg: dict,
        drop_rate: float,
        drop_path_rate: float,
        with_cp: bool,
        **acmix,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.with_cp = with_cp
        drop_path = dict(type='DropPath', drop_prob=drop_path_rate)
        self.norm1 = build_norm_layer(norm_cfg, dim)[1]
        self.attn = WindowACmix(dim, proj_drop_rate=drop_rate, **acmix)
        self.drop_path = build_dropout(drop_path)
        self.norm2 = build_norm_layer(norm_cfg, dim)[1]
        self.ffn = FFN(
            dim,
            int(mlp_ratio * dim),
            act_cfg=dict(type='GELU'),
            ffn_drop=drop_rate,
            dropout_layer=drop_path,
        )

    def forward(self, x: Tensor) -> Tensor:
        return run_checkpointed(self._forward, x, self.with_cp)

    def _forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        if self.training or torch.is_grad_enabled() or x.device.type != 'cpu' or exporting():
            return self._feed(x)
        return self._feed_in_strips(x)

    def _feed(self, x: Tensor) -> Tensor:
        return self.ffn(self.norm2(x), identity=x)

    def _feed_in_strips(self, x: Tensor) -> Tensor:
        """The same some rows of pixels at a time: hidden maps of a whole image are fresh memory in every block."""
        row_bytes = x[:, :1].numel() // self.dim * self.ffn.feedforward_channels * x.element_size()
        if row_bytes * x.size(1) <= WHOLE_BYTES:
            return self._feed(x)
        return torch.cat([self._feed(strip) for strip in x.split(max(1, STRIP_BYTES // row_bytes), 1)], 1)


class PatchMerging(BaseModule):
    """Joins 2 x 2 pixels of C channels to one of 2 C, with the names and the order of channels of mmcv's module."""

    def __init__(self, dim: int, norm_cfg: dict) -> None:
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, 4 * dim)[1]
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H / 2, W / 2, 2 C), rounded up"""
        for dim in (1, 2):
            x = fill_up(x, dim, whole(x.size(dim), 2))
        x = x.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).permute(0, 1, 3, 5, 2, 4)  # (B, rows, cols, C, 2, 2)
        return self.reduction(self.norm(x.flatten(3)))


class SwinStage(BaseModule):
    """Blocks at one resolution, every second one shifted, and the merging of patches behind them."""

    def __init__(
        self,
        dim: int,
        drop_path_rates: Sequence[float],
        downsample: bool,
        window_size: int,
        norm_cfg: dict,
        **block,
    ) -> None:
        super().__init__()
        self.blocks = ModuleList(
            SwinBlock(
                dim,
                norm_cfg=norm_cfg,
                drop_path_rate=rate,
                window_size=window_size,
                shift_size=window_size // 2 if i % 2 else 0,
                **block,
            )
            for i, rate in enumerate(drop_path_rates)
        )
        self.downsample = PatchMerging(dim, norm_cfg) if downsample else None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@MODELS.register_module()
class SwinACmix(Backbone):
    """Swin-ACmix as a backbone for dense prediction.

    Args:
        arch: 'tiny', 'small', or a dict of embed_dims (channels of the first stage, doubled by each further
            one), depths (blocks of each stage) and num_heads (heads in each stage).
        in_channels: Channels of the images.
        patch_size: Side of the patches, in pixels.
        window_size: Side of the windows, in patches.
        mlp_ratio: Hidden channels of the feed-forward networks per channel.
        qkv_bias: Whether the shared projection has a bias.
        conv_kernel_size: Side of the convolution kernels, odd.
        paths: 'attention', 'convolution' or both. Attention alone is Swin Transformer; a path that is left out has
            no parameters.
        out_indices: Stages whose maps are returned, each through a normalisation of its own; all by default.
        frozen_stages: Freezes the patch embedding and so many stages; -1 freezes nothing.
        drop_rate: Dropout after the embedding, the projections and in the feed-forward networks.
        attn_drop_rate: Dropout of the attention probabilities.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        patch_norm: Whether the patch embedding is normalised.
        norm_cfg: Normalisation layers over the last axis, as mmcv builds them.
        norm_eval: Accepted so that a config can set it for any backbone of ours; layer normalisation has no
            running statistics that it could keep.
        with_cp: Whether a block's inner maps are computed again in the backward pass instead of kept.
        init_cfg: mmengine initialisation; linear layers normal with deviation 0.02 by default.

    Shape:
        (B, in_channels, H, W), any size, to a tuple of (B, embed_dims * 2**i, H_i, W_i) for i in out_indices;
        sizes are rounded up: with patches of 4, 1/4, 1/8, 1/16 and 1/32 of the image.

    Raises:
        ValueError: An argument is not allowed, or pretrained weights do not fit.

    Example:
        >>> [tuple(x.shape) for x in SwinACmix('tiny')(torch.randn(1, 3, 100, 67))]
        [(1, 96, 25, 17), (1, 192, 13, 9), (1, 384, 7, 5), (1, 768, 4, 3)]
    """

    archs = {
        'tiny': dict(embed_dims=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24)),
        'small': dict(embed_dims=96, depths=(2, 2, 18, 2), num_heads=(3, 6, 12, 24)),
    }
    optional_keys = r'norm[0-3]\.(weight|bias)$'  # one for each output, and a checkpoint may have been made for others

    def __init__(
        self,
        arch: Union[str, dict] = 'tiny',
        in_channels: int = 3,
        patch_size: int = 4,
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        conv_kernel_size: int = 3,
        paths: Sequence[str] = PATHS,
        out_indices: Optional[Sequence[int]] = None,
        frozen_stages: int = -1,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.2,
        patch_norm: bool = True,
        norm_cfg: dict = dict(type='LN'),
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: Union[dict, list, None] = None,
    ) -> None:
        arch = resolve_arch(arch, self.archs, ('depths', 'num_heads'), ('embed_dims',))
        depths, heads = arch['depths'], arch['num_heads']
        if init_cfg is None:
            init_cfg = [
                dict(type='TruncNormal', layer='Linear', std=0.02),
                dict(type='Constant', layer='LayerNorm', val=1),
            ]
        if out_indices is None:
            out_indices = range(len(depths))
        super().__init__(len(depths), out_indices, frozen_stages, norm_eval, init_cfg)

        self.paths = check_paths(paths)
        dim = arch['embed_dims']
        check_positive_integers(in_channels=in_channels, patch_size=patch_size, embed_dims=dim)
        if not isinstance(mlp_ratio, (int, float)) or not 1 <= mlp_ratio * dim < float('inf'):
            raise ValueError(f'mlp_ratio must give 1 hidden channel at least, got mlp_ratio={mlp_ratio!r}')
        check_probabilities(drop_rate=drop_rate, attn_drop_rate=attn_drop_rate)
        check_norm_cfg(norm_cfg, dim, last_axis=True)
        self.patch_embed = PatchEmbed(
            in_channels,
            dim,
            StridedConv2d,
            kernel_size=patch_size,
            stride=patch_size,
            padding=0,
            norm_cfg=norm_cfg if patch_norm else None,
        )
        self.patch_size = patch_size
        self.drop_after_pos = nn.Dropout(drop_rate)
        rates = drop_path_rates(drop_path_rate, depths)
        self.stages = ModuleList(
            SwinStage(
                dim * 2**i,
                rates[i],
                downsample=i + 1 < len(depths),
                window_size=window_size,
                norm_cfg=norm_cfg,
                mlp_ratio=mlp_ratio,
                drop_rate=drop_rate,
                with_cp=with_cp,
                num_heads=heads[i],
                qkv_bias=qkv_bias,
                attn_drop_rate=attn_drop_rate,
                conv_kernel_size=conv_kernel_size,
                paths=paths,
            )
            for i in range(len(depths))
        )
        for i in self.out_indices:
            self.add_module(f'norm{i}', build_norm_layer(norm_cfg, dim * 2**i)[1])
        self.train()

    def stem_modules(self) -> Iterable[nn.Module]:
        return self.patch_embed, self.drop_after_pos

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        yield self.stages[stage]
        if stage in self.out_indices:
            yield getattr(self, f'norm{stage}')

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        for dim in (2, 3):
            x = fill_up(x, dim, whole(x.size(dim), self.patch_size))
        x, size = self.patch_embed(x)
        x = self.drop_after_pos(x).unflatten(1, size)  # (B, H, W, C)
        outs = []
        for i in range(self.out_indices[-1] + 1):
            stage = self.stages[i]
            x = stage(x)
            if i in self.out_indices:
                outs.append(getattr(self, f'norm{i}')(x).permute(0, 3, 1, 2).contiguous())
            if i < self.out_indices[-1]:
                x = stage.downsample(x)
        return tuple(outs)
