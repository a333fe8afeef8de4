"""Random numbers that depend on where a training is, not on how it came there.

mmengine keeps no state of random generators: after ``--resume`` the augmentations, dropped paths and sampled proposals
would be others than without the interruption.
"""

import random
from typing import Iterator, Optional, Sequence, Tuple

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import DATA_SAMPLERS as MMENGINE_DATA_SAMPLERS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, Sampler

from mmacmix.registry import DATA_SAMPLERS, HOOKS


def seed_generators(*position: int) -> None:
    """Seeds those of Python, numpy and torch, on all devices, by non-negative numbers that tell where we are."""
    first, second, third = np.random.SeedSequence(position).generate_state(3)
    random.seed(int(first))
    np.random.seed(second)
    torch.manual_seed(int(third))


@HOOKS.register_module()
class SeedHook(Hook):
    """Seeds every training step by the run's seed, the number of the iteration and the process."""

    priority = 'VERY_HIGH'

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None) -> None:
        seed_generators(runner.seed, runner.iter, get_rank())


class SeededBatch:
    """Indices of one batch; whoever fetches the samples, a worker or not, has them seeded on its way.

    Args:
        indices: Of the samples.
        position: Seeds, and where the batch is in the training.
    """

    def __init__(self, indices: Sequence[int], position: Tuple[int, ...]) -> None:
        self.indices, self.position = list(indices), position

    def __iter__(self) -> Iterator[int]:
        for number, index in enumerate(self.indices):
            seed_generators(*self.position, number)
            yield index

    def __len__(self) -> int:
        return len(self.indices)


@DATA_SAMPLERS.register_module()
class SeededBatchSampler:
    """Batches whose samples are augmented alike however often the training was interrupted.

    Every sample is seeded by the sampler's seed, the epoch, the process, the batch's number and its place in the batch.

    Args:
        sampler: Gives indices; one of mmengine's, or another that has its ``seed``.
        batch_size: Samples in a batch.
        batch_sampler: Config of a batch sampler that groups them; torch's own by default.
        drop_last: Whether the samples that are too few for a last batch are left out.

    Raises:
        ValueError: The sampler has no ``seed``.
    """

    def __init__(self, sampler: Sampler, batch_size: int, batch_sampler: Optional[dict] = None,
                 drop_last: bool = False) -> None:
        if not isinstance(getattr(sampler, 'seed', None), int):
            raise ValueError(f'sampler must have an integer as its seed, got {type(sampler).__name__} without')
        self.sampler, self.batch_size = sampler, batch_size
        if batch_sampler is None:
            self.batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        else:
            defaults = dict(sampler=sampler, batch_size=batch_size, **(dict(drop_last=True) if drop_last else {}))
            self.batch_sampler = MMENGINE_DATA_SAMPLERS.build(batch_sampler, default_args=defaults)

    def __iter__(self) -> Iterator[SeededBatch]:
        place = self.sampler.seed, getattr(self.sampler, 'epoch', 0), get_rank()
        for number, indices in enumerate(self.batch_sampler):
            yield SeededBatch(indices, (*place, number))

    def __len__(self) -> int:
        return len(self.batch_sampler)
