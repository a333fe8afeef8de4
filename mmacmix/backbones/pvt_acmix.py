"""PVT-ACmix: Pyramid Vision Transformer whose spatial-reduction attention is ACmix.

Papers: "On the Integration of Self-Attention and Convolution", CVPR 2022, arXiv 2111.14556; Pyramid Vision Transformer
(version 1), ICCV 2021, arXiv 2102.12122. The authors have not released this family: it is a reconstruction, from the
paper's description and its published parameters and multiply-adds. What was decided is in
:mod:`mmacmix.layers.reduced_acmix`; all around the attention is as in PVT.
"""

from typing import Iterable, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.drop import build_dropout
from mmcv.cnn.bricks.transformer import FFN, PatchEmbed
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from mmacmix.backbones.base import Backbone, check_probabilities, drop_path_rates, resolve_arch, run_checkpointed
from mmacmix.layers import SpatialReductionACmix
from mmacmix.layers.strided_conv import StridedConv2d
from mmacmix.ops.checks import PATHS, check_paths, check_positive_integers
from mmacmix.ops.exporting import exporting, fill_up
from mmacmix.registry import MODELS

NORM = dict(type='LN', eps=1e-6)


class PVTBlock(BaseModule):
    """Spatial-reduction ACmix and a feed-forward network, each after a normalisation and with an identity."""

    def __init__(
        self, dim: int, mlp_ratio: int, drop_rate: float, drop_path_rate: float, with_cp: bool, **acmix
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        drop_path = dict(type='DropPath', drop_prob=drop_path_rate)
        self.norm1 = nn.LayerNorm(dim, eps=NORM['eps'])
        self.attn = SpatialReductionACmix(dim, proj_drop_rate=drop_rate, norm_eps=NORM['eps'], **acmix)
        self.drop_path = build_dropout(drop_path)
        self.norm2 = nn.LayerNorm(dim, eps=NORM['eps'])
        self.ffn = FFN(
            dim,
            mlp_ratio * dim,
            act_cfg=dict(type='GELU'),
            ffn_drop=drop_rate,
            dropout_layer=drop_path,
        )

    def forward(self, x: Tensor) -> Tensor:
        return run_checkpointed(self._forward, x, self.with_cp)

    def _forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return self.ffn(self.norm2(x), identity=x)


class PositionEmbedding(nn.Module):
    """Learnt summand of each pixel, (1, side**2, dim), resized to the map (bilinear), as the host's PVT does."""

    def __init__(self, side: int, dim: int) -> None:
        super().__init__()
        self.side = side
        self.weight = nn.Parameter(torch.empty(1, side**2, dim))
        self.init_weights()

    def init_weights(self) -> None:
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, dim) to the same shape"""
        weight = self.weight.unflatten(1, (self.side, self.side))
        if exporting() or tuple(x.shape[1:3]) != (self.side, self.side):
            weight = F.interpolate(weight.permute(0, 3, 1, 2), size=x.shape[1:3], mode='bilinear')
            weight = weight.permute(0, 2, 3, 1)
        return x + weight.to(x.dtype)


class PVTStage(BaseModule):
    """Patches, their positions, and blocks at one resolution."""

    def __init__(
        self,
        in_channels: int,
        dim: int,
        patch_size: int,
        side: int,
        drop_rate: float,
        drop_path_rates: Sequence[float],
        **block,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.patch_embed = PatchEmbed(
            in_channels, dim, StridedConv2d, patch_size, patch_size, padding=0, norm_cfg=NORM
        )
        self.pos_embed = PositionEmbedding(side, dim)
        self.drop_after_pos = nn.Dropout(drop_rate)
        self.blocks = ModuleList(
            PVTBlock(dim, drop_rate=drop_rate, drop_path_rate=rate, **block) for rate in drop_path_rates
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, dim, H / patch_size, W / patch_size), rounded down, but not to 0"""
        for dim in (2, 3):
            if x.size(dim) < self.patch_size:
                x = fill_up(x, dim, self.patch_size)
        x, size = self.patch_embed(x)
        x = self.drop_after_pos(self.pos_embed(x.unflatten(1, size)))  # (B, H, W, C)
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 3, 1, 2).contiguous()


@MODELS.register_module()
class PVTACmix(Backbone):
    """PVT-ACmix as a backbone for dense prediction: a reconstruction, see :mod:`mmacmix.backbones.pvt_acmix`.

    Args:
        arch: 'tiny', 'small', 'medium', 'large', or a dict of what each stage has: embed_dims (channels), depths
            (blocks), num_heads (heads), sr_ratios (reduction of the sides of the map for keys and values) and
            mlp_ratios (hidden channels of the feed-forward networks per channel).
        in_channels: Channels of the images.
        pretrain_img_size: Side of the images, in pixels, that the position embeddings are stored for.
        qkv_bias: Whether the projections have a bias.
        conv_kernel_size: Side of the convolution kernels, odd.
        paths: 'attention', 'convolution' or both. Attention alone is Pyramid Vision Transformer; a path that is left
            out has no parameters.
        out_indices: Stages whose maps are returned.
        frozen_stages: Freezes the first patch embedding and so many stages; -1 freezes nothing.
        drop_rate: Dropout after the embeddings, the projections and in the feed-forward networks.
        attn_drop_rate: Dropout of the attention probabilities.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        norm_eval: Accepted so that a config can set it for any backbone of ours; layer normalisation has no
            running statistics that it could keep.
        with_cp: Whether a block's inner maps are computed again in the backward pass instead of kept.
        init_cfg: mmengine initialisation; as PVT by default.

    Shape:
        (B, in_channels, H, W), any size, to a tuple of (B, embed_dims[i], H_i, W_i) for i in out_indices; 1/4, 1/8,
        1/16 and 1/32 of the image, rounded down as in PVT, but at least 1.

    Raises:
        ValueError: An argument is not allowed, pretrained weights do not fit, or images have no pixels.

    Example:
        >>> [tuple(x.shape) for x in PVTACmix('tiny')(torch.randn(1, 3, 100, 67))]
        [(1, 64, 25, 16), (1, 128, 12, 8), (1, 320, 6, 4), (1, 512, 3, 2)]
    """

    archs = {
        name: dict(
            embed_dims=(64, 128, 320, 512),
            depths=depths,
            num_heads=(1, 2, 5, 8),
            sr_ratios=(8, 4, 2, 1),
            mlp_ratios=(8, 8, 4, 4),
        )
        for name, depths in (
            ('tiny', (2, 2, 2, 2)),
            ('small', (3, 4, 6, 3)),
            ('medium', (3, 4, 18, 3)),
            ('large', (3, 8, 27, 3)),
        )
    }

    def __init__(
        self,
        arch: Union[str, dict] = 'tiny',
        in_channels: int = 3,
        pretrain_img_size: int = 224,
        qkv_bias: bool = True,
        conv_kernel_size: int = 3,
        paths: Sequence[str] = PATHS,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: Union[dict, list, None] = None,
    ) -> None:
        fields = ('embed_dims', 'depths', 'num_heads', 'sr_ratios', 'mlp_ratios')
        arch = resolve_arch(arch, self.archs, fields)
        if init_cfg is None:
            init_cfg = [
                dict(type='TruncNormal', layer='Linear', std=0.02),
                dict(type='Constant', layer='LayerNorm', val=1),
                dict(type='Kaiming', layer='Conv2d'),
            ]
        depths = arch['depths']
        super().__init__(len(depths), out_indices, frozen_stages, norm_eval, init_cfg)
        # A checkpoint may have later stages that are not built here.
        self.optional_keys = rf'stages\.[{len(depths)}-3]\.' if len(depths) < 4 else None
        self.paths = check_paths(paths)
        check_positive_integers(in_channels=in_channels, pretrain_img_size=pretrain_img_size)
        check_probabilities(drop_rate=drop_rate, attn_drop_rate=attn_drop_rate)

        rates = drop_path_rates(drop_path_rate, depths)
        self.stages = ModuleList()
        channels, side = in_channels, pretrain_img_size
        for i, dim in enumerate(arch['embed_dims']):
            patch_size = 4 if i == 0 else 2
            side = max(side // patch_size, 1)
            self.stages.append(
                PVTStage(
                    channels,
                    dim,
                    patch_size,
                    side,
                    drop_rate=drop_rate,
                    drop_path_rates=rates[i],
                    mlp_ratio=arch['mlp_ratios'][i],
                    with_cp=with_cp,
                    num_heads=arch['num_heads'][i],
                    sr_ratio=arch['sr_ratios'][i],
                    qkv_bias=qkv_bias,
                    attn_drop_rate=attn_drop_rate,
                    conv_kernel_size=conv_kernel_size,
                    paths=paths,
                )
            )
            channels = dim
        self.train()

    def stem_modules(self) -> Iterable[nn.Module]:
        first = self.stages[0]
        return first.patch_embed, first.pos_embed, first.drop_after_pos

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        return (self.stages[stage],)

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        if not exporting() and not torch.jit.is_tracing() and 0 in x.shape[2:]:
            raise ValueError(f'images must have a pixel at least, got x.shape={tuple(x.shape)}')
        outs = []
        for i in range(self.out_indices[-1] + 1):
            x = self.stages[i](x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)
