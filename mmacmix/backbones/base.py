"""What the backbones share: outputs, freezing, checkpointing, and weights that must fit."""

from typing import Callable, Dict, Iterable, List, Optional, Sequence, Union

import torch
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.utils.checkpoint import checkpoint

from mmacmix.checkpoints import load_pretrained


class Backbone(BaseModule):
    """Base of the backbones; stages are counted from 0, the stem comes before them.

    Args:
        num_stages: Stages that are built.
        out_indices: Stages whose maps are returned, ascending.
        frozen_stages: -1 trains everything; n >= 0 freezes the stem and the first n stages: no gradients,
            and their normalisation and dropout act as in evaluation.
        norm_eval: Whether batch normalisation keeps its running statistics as they are in training.
        init_cfg: mmengine initialisation, or a list of them. ``Pretrained`` weights must fit: a file for
            another backbone is an error that lists what is missing, left over or of another shape.
    """

    #: Regular expression of parameters that pretrained weights may lack or have on top, because they depend
    #: on which outputs are asked for.
    optional_keys: Optional[str] = None
    deployed = False  # by switch_to_deploy

    def __init__(
        self,
        num_stages: int,
        out_indices: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: Union[dict, list, None],
    ) -> None:
        super().__init__(init_cfg)
        indices = tuple(out_indices) if isinstance(out_indices, Sequence) else (out_indices,)
        if not indices or any(
            type(i) is not int or not 0 <= i < num_stages or i in indices[:n]
            for n, i in enumerate(indices)
        ) or list(indices) != sorted(indices):
            raise ValueError(
                f'out_indices must be ascending stages in [0, num_stages={num_stages}), '
                f'got out_indices={out_indices!r}'
            )
        if not isinstance(frozen_stages, int) or not -1 <= frozen_stages <= num_stages:
            raise ValueError(
                f'frozen_stages must be in [-1, num_stages={num_stages}], got frozen_stages={frozen_stages!r}'
            )
        self.num_stages = num_stages
        self.out_indices = indices
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    def stem_modules(self) -> Iterable[nn.Module]:
        """Modules in front of the first stage that have parameters."""
        raise NotImplementedError

    def stage_modules(self, stage: int) -> Iterable[nn.Module]:
        """Modules of one stage that have parameters."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> 'Backbone':
        """Training or evaluation mode; what is frozen stays in evaluation.

        Raises:
            RuntimeError: The backbone is deployed and cannot be trained.
        """
        if mode and self.deployed:
            raise RuntimeError(f'{type(self).__name__} must be trained before switch_to_deploy(), got train() after it')
        super().train(mode)
        for module in self._frozen_modules():
            module.eval().requires_grad_(False)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def switch_to_deploy(self) -> 'Backbone':
        """Merges weights for inference, in place: projections, convolution path, rates and batch normalisation.

        Outputs stay the same but for rounding. The backbone cannot be trained any more, and its state_dict has
        other names: save the trained weights first.

        Returns:
            The backbone, in evaluation mode.
        """
        self.eval()
        self.deployed = True
        for module in list(self.modules()):
            if module is not self and hasattr(module, 'switch_to_deploy'):
                module.switch_to_deploy()
        return self

    def _frozen_modules(self) -> Iterable[nn.Module]:
        if self.frozen_stages >= 0:
            yield from self.stem_modules()
        for stage in range(self.frozen_stages):
            yield from self.stage_modules(stage)

    def init_weights(self) -> None:
        """Initialises by ``init_cfg``; pretrained weights come last.

        Raises:
            ValueError: The pretrained weights do not fit this backbone.
        """
        configs = self.init_cfg or []
        configs = list(configs) if isinstance(configs, (list, tuple)) else [configs]
        for config in configs:
            if not isinstance(config, dict) or not config.get('type'):
                raise ValueError(
                    f'init_cfg must be a dict with a type, or a list of them, got init_cfg={self.init_cfg!r}'
                )
        pretrained = [c for c in configs if _is_pretrained(c)]
        own = self.init_cfg
        self.init_cfg = [c for c in configs if not _is_pretrained(c)] or None
        super().init_weights()
        self.init_cfg = own
        for config in pretrained:
            load_pretrained(self, optional_keys=self.optional_keys, **_pretrained_arguments(config))


def resolve_arch(
    arch: Union[str, dict], archs: Dict[str, dict], lists: Sequence[str], numbers: Sequence[str] = ()
) -> dict:
    """The sizes that ``arch`` names, or states itself.

    Args:
        arch: A key of ``archs``, or a dict.
        archs: Sizes by name.
        lists: Keys of a dict whose values are integers by stage, equally many.
        numbers: Further keys of a dict.

    Raises:
        ValueError: The name is unknown, or the dict does not have just these keys and values.
    """
    if isinstance(arch, str):
        if arch not in archs:
            raise ValueError(f'arch must be one of {sorted(archs)} or a dict, got arch={arch!r}')
        return archs[arch]
    if not isinstance(arch, dict) or set(arch) != {*lists, *numbers}:
        raise ValueError(f'arch must have just the keys {sorted((*lists, *numbers))}, got arch={arch!r}')
    for name in lists:
        values = arch[name]
        if not isinstance(values, Sequence) or not values or any(
            type(v) is not int or v < 1 for v in values
        ):
            raise ValueError(f"arch['{name}'] must list integers of at least 1, got arch={arch!r}")
    if len({len(arch[name]) for name in lists}) > 1:
        names = ' and '.join(f"arch['{name}']" for name in lists)
        raise ValueError(f'{names} must be equally long, got arch={arch!r}')
    return arch


def drop_path_rates(drop_path_rate: float, depths: Sequence[int]) -> List[List[float]]:
    """Stochastic depth of every block by stage: from 0 at the first, in equal steps, to ``drop_path_rate`` at the last.

    Raises:
        ValueError: ``drop_path_rate`` is not in [0, 1).
    """
    if not isinstance(drop_path_rate, (int, float)) or not 0 <= drop_path_rate < 1:
        raise ValueError(f'drop_path_rate must be in [0, 1), got drop_path_rate={drop_path_rate!r}')
    step = drop_path_rate / max(sum(depths) - 1, 1)
    return [[step * (sum(depths[:i]) + j) for j in range(depth)] for i, depth in enumerate(depths)]


def check_probabilities(**rates: float) -> None:
    """Raises ValueError for the first dropout rate that is not in [0, 1]."""
    for name, rate in rates.items():
        if not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise ValueError(f'{name} must be in [0, 1], got {name}={rate!r}')


def check_norm_cfg(norm_cfg: dict, channels: int, last_axis: bool = False) -> None:
    """Raises ValueError if ``norm_cfg`` names no normalisation of maps, or of the last axis if that is asked for, or
    none of so many channels.
    """
    example = 'LN' if last_axis else 'BN'
    if not isinstance(norm_cfg, dict) or 'type' not in norm_cfg:
        raise ValueError(f"norm_cfg must be a dict as dict(type='{example}'), got norm_cfg={norm_cfg!r}")
    try:
        layer = build_norm_layer(norm_cfg, channels)[1]
        if getattr(layer, 'num_groups', 1) < 1:
            raise ValueError('torch takes it, and fails on the first map')
    except (AssertionError, KeyError, TypeError) as error:
        raise ValueError(
            f'norm_cfg must have a type that mmcv builds, and what the type needs, got norm_cfg={norm_cfg!r}'
        ) from error
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f'norm_cfg must fit maps of {channels} channels, got norm_cfg={norm_cfg!r}') from error
    if last_axis and isinstance(layer, (_BatchNorm, _InstanceNorm, nn.GroupNorm)):
        raise ValueError(f"norm_cfg must normalise the last axis, as dict(type='LN') does, got norm_cfg={norm_cfg!r}")
    if not last_axis and type(layer) is nn.LayerNorm:
        raise ValueError(f"norm_cfg must normalise maps, as dict(type='BN') does, got norm_cfg={norm_cfg!r}")


def _is_pretrained(config: dict) -> bool:
    kind = config['type']
    # 'mmengine.Pretrained' names the same class with its scope.
    name = kind.split('.')[-1] if isinstance(kind, str) else kind.__name__
    return name in ('Pretrained', 'PretrainedInit')


def _pretrained_arguments(config: dict) -> dict:
    config = {key: value for key, value in config.items() if key not in ('type', '_scope_')}
    if not config.get('checkpoint') or not set(config) <= {'checkpoint', 'prefix', 'map_location'}:
        raise ValueError(
            'init_cfg of type Pretrained must have checkpoint and may have prefix and map_location, '
            f'got {config}'
        )
    return config


class _ChannelsLastGradient(torch.autograd.Function):
    """Identity whose gradient is channels_last: of mixed formats convolutions and norms make slow copies."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return grad.contiguous(memory_format=torch.channels_last)


def channels_last_gradient(x: Tensor) -> Tensor:
    """x, which passes its gradient on in the memory format that it has itself."""
    return _ChannelsLastGradient.apply(x) if x.requires_grad else x


def run_checkpointed(function: Callable[[Tensor], Tensor], x: Tensor, with_cp: bool) -> Tensor:
    """Calls ``function(x)``; with_cp keeps only x for the backward pass and computes the rest again.

    As in the hosts, batch normalisation then takes a batch into its running statistics twice.
    """
    if with_cp and torch.is_grad_enabled():
        return checkpoint(function, x, use_reentrant=False)
    return function(x)
