"""Batch normalisation of windows that are never written out: where patchwise self-attention's perceptron begins."""

from typing import Any, Optional, Tuple, Union

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmacmix.ops.window_mlp import no_autocast, window_moments


def window_norm(norm: nn.Module, q: Tensor, k: Tensor, kernel_size: int) -> Tuple[Tensor, Tensor]:
    """Factor and summand of each input of the perceptron, the query and then the window of each key: what the batch
    normalisation ``norm`` of the written-out windows amounts to. Takes the batch into its running statistics.

    Args:
        norm: Batch normalisation, synchronised or not, of C * (1 + kernel_size**2) channels.
        q, k: Queries and keys, (B, C, H, W).
        kernel_size: Side of the windows, odd.

    Returns:
        Two tensors (C * (1 + kernel_size**2),)

    Raises:
        ValueError: Training on less than 2 pixels.
    """
    exact = torch.promote_types(q.dtype, torch.float32)
    # An empty batch has no moments, but may belong to one of several processes.
    if norm.running_mean is None or norm.training and (q.numel() or _synced(norm)):
        with no_autocast(q):
            mean, variance, count = _moments(norm, q.to(exact), k.to(exact), kernel_size)
        if norm.running_mean is not None:
            _update(norm, mean.detach(), variance.detach(), count)
    else:
        mean, variance = norm.running_mean.to(exact), norm.running_var.to(exact)
    return affine(norm, mean, variance)


def affine(norm: nn.Module, mean: Tensor, variance: Tensor) -> Tuple[Tensor, Tensor]:
    """Factor and summand that normalising by these moments comes to."""
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    return scale, norm.bias - mean * scale


def _moments(
    norm: nn.Module, q: Tensor, k: Tensor, kernel_size: int
) -> Tuple[Tensor, Tensor, Union[int, Tensor]]:
    """Means and variances of the perceptron's inputs over the batch, of all processes for SyncBN, and its pixels."""
    pixels = q.numel() // q.size(1)
    centres = [y.detach().mean((0, 2, 3)) if y.numel() else y.new_zeros(y.size(1)) for y in (q, k)]
    synced = _synced(norm)
    if synced:
        group = _group(norm)
        centres = [_sum_over_processes(centre, group) / dist.get_world_size(group) for centre in centres]
    sums = [window_moments(y, size, centre) for y, size, centre in zip((q, k), (1, kernel_size), centres)]
    first, second = (torch.cat([part.flatten() for part in parts]) for parts in zip(*sums))
    if synced:
        packed = _sum_over_processes(torch.cat([first, second, q.new_full((1,), pixels)]), group)
        first, second, pixels = packed.split([len(first), len(second), 1])
        pixels = pixels.detach()
    if pixels < 2:
        raise ValueError(f'batch normalisation in training must have 2 pixels or more, got {tuple(q.shape)}')
    mean = first / pixels
    variance = (second / pixels - mean.square()).clamp_min(0)
    centre = torch.cat([centres[0], centres[1].unsqueeze(1).expand(-1, kernel_size**2).flatten()])
    return mean + centre, variance, pixels


def _synced(norm: nn.Module) -> bool:
    """Whether the moments are those of the batches of several processes."""
    # mmcv's class of this name is none of torch's.
    named = isinstance(norm, nn.SyncBatchNorm) or type(norm).__name__ == 'SyncBatchNorm'
    return named and dist.is_available() and dist.is_initialized() and dist.get_world_size(_group(norm)) > 1


def _group(norm: nn.Module) -> Any:
    """The processes whose batches a synchronised normalisation joins: torch has a name for them, mmcv another."""
    group = getattr(norm, 'process_group', None) or getattr(norm, 'group', None)
    return dist.group.WORLD if group is None else group


def _sum_over_processes(x: Tensor, group: Any) -> Tensor:
    from torch.distributed.nn.functional import all_reduce

    return all_reduce(x, group=group)


@torch.no_grad()
def _update(norm: nn.Module, mean: Tensor, variance: Tensor, count: Union[int, Tensor]) -> None:
    """Running statistics as torch's batch normalisation keeps them."""
    factor: Optional[float] = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if factor is None:
            factor = 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), factor)
    unbiased = variance * (count / (count - 1))
    norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), factor)
