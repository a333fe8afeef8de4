"""Random numbers depend on the place in the training alone."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset

from mmacmix.engine.seeding import SeededBatchSampler, SeedHook


class Drawn(Dataset):
    """Draws from every generator that augmentations use."""

    def __len__(self):
        return 7

    def __getitem__(self, i):
        return torch.tensor([i, random.random(), np.random.rand(), torch.rand(1).item()], dtype=torch.float64)


def epoch(number, workers=0, seed=0):
    sampler = DefaultSampler(Drawn(), shuffle=True, seed=seed)
    sampler.set_epoch(number)
    return torch.cat(list(DataLoader(Drawn(), batch_sampler=SeededBatchSampler(sampler, 2), num_workers=workers)))


def test_the_same_place_gives_the_same_numbers():
    before = epoch(3)
    torch.manual_seed(5)
    assert torch.equal(epoch(3), before) and torch.equal(epoch(3, workers=2), before)


def test_every_sample_has_its_own_numbers():
    drawn = torch.cat([epoch(0), epoch(1), epoch(0, seed=1)])
    assert all(len(column.unique()) == 21 for column in drawn[:, 1:].T)


def test_batches_are_those_of_the_sampler():
    sampler = InfiniteSampler(Drawn(), shuffle=False, seed=0)
    batches = iter(SeededBatchSampler(sampler, 3))
    assert [list(next(batches)) for _ in range(3)] == [[0, 1, 2], [3, 4, 5], [6, 0, 1]]
    sampler = DefaultSampler(Drawn(), shuffle=False)
    last_left_out = SeededBatchSampler(sampler, 3, batch_sampler=dict(type=BatchSampler, drop_last=True))
    assert len(last_left_out) == 2 and [len(batch) for batch in last_left_out] == [3, 3]
    for inner in (None, dict(type=BatchSampler)):
        last_left_out = SeededBatchSampler(sampler, 3, inner, drop_last=True)
        assert len(last_left_out) == 2 and [len(batch) for batch in last_left_out] == [3, 3]
    assert len(SeededBatchSampler(sampler, 3)) == 3


def test_a_sampler_without_a_seed():
    with pytest.raises(ValueError, match='sampler must have an integer as its seed, got SequentialSampler without'):
        SeededBatchSampler(torch.utils.data.SequentialSampler(Drawn()), 2)


def test_steps():
    class Runner:
        seed, iter = 0, 5

    def numbers():
        SeedHook().before_train_iter(Runner(), 0)
        return random.random(), np.random.rand(), torch.rand(1).item()

    first = numbers()
    assert numbers() == first
    Runner.iter = 6
    assert not set(numbers()) & set(first)
