"""Training of small backbones on a batch, by the tests, or on half of it, as a program in one of two processes.

    python processes.py RANK FOLDER [all]
"""
import os
import sys
from pathlib import Path
from typing import NamedTuple, Tuple

import torch
import torch.distributed as dist
from mmengine.model import BaseModel, MMDistributedDataParallel, convert_sync_batchnorm
from mmengine.optim import OptimWrapper
from torch import nn
from torch.distributed.nn.functional import all_reduce

from mmacmix.ops.checks import PATHS
from mmacmix.registry import MODELS

BACKBONES = dict(
    resnet=dict(type='mmacmix.ResNetACmix', depth=26, base_channels=8, stem_channels=8),
    swin=dict(
        type='mmacmix.SwinACmix', arch=dict(embed_dims=8, depths=(2, 1, 1, 1), num_heads=(1, 2, 2, 4)),
        drop_path_rate=0.0),
    pvt=dict(
        type='mmacmix.PVTACmix', drop_path_rate=0.0,
        arch=dict(embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8), sr_ratios=(8, 4, 2, 1),
                  mlp_ratios=(2, 2, 2, 2))),
    san=dict(type='mmacmix.SANACmix', depth=10, stem_channels=32, attn_kernel_sizes=(3, 3, 3, 3, 3)))
WITH_BATCH_NORM = ('resnet', 'san')
IMAGES, STEPS = 4, 3
SGD = dict(lr=0.05, momentum=0.9)


class Case(NamedTuple):
    """A training. `norm`: 'own' where there is no batch normalisation, 'kept' if its statistics stay as they are,
    'synced' if they are those of all processes."""

    family: str
    paths: Tuple[str, ...]
    norm: str
    wrapper: str = 'ddp'

    def __str__(self):
        return '-'.join((self.family, '+'.join(self.paths), self.norm, self.wrapper))


def cases(single_paths):
    """Trainings with both paths, or with one of them left out."""
    for family in BACKBONES:
        for paths in [(path,) for path in PATHS] if single_paths else [PATHS]:
            for norm in ('kept', 'synced') if family in WITH_BATCH_NORM else ('own',):
                yield Case(family, paths, norm)
    if not single_paths:
        yield Case('swin', PATHS, 'own', 'fsdp')


class SyncedOnCPU(nn.SyncBatchNorm):
    """torch's SyncBatchNorm, which runs on accelerators only, written out for CPUs and two equal shares."""

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        axes, n = [0, *range(2, x.dim())], 2 * x.numel() // x.size(1)
        mean, square = all_reduce(torch.stack([x.sum(axes), x.square().sum(axes)])) / n
        variance = square - mean.square()
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        mean, scale, bias = (y.view(-1, *(1,) * (x.dim() - 2)) for y in (mean, scale, self.bias))
        return (x - mean) * scale + bias


class Net(BaseModel):
    """A backbone whose maps are to become given ones."""

    def __init__(self, case):
        super().__init__()
        options = dict(norm_eval=True) if case.norm == 'kept' else {}
        self.backbone = MODELS.build(dict(**BACKBONES[case.family], paths=case.paths, **options))

    def forward(self, inputs, targets, mode='loss'):
        outs = self.backbone(inputs)
        return dict(loss=sum((out - target).square().mean() for out, target in zip(outs, targets)))


def build(case):
    torch.manual_seed(0)
    return Net(case).double().train()


def batches(case):
    """STEPS times inputs (IMAGES, 3, 32, 48) and a target for each map."""
    torch.manual_seed(1)
    with torch.no_grad():
        shapes = [out.shape[1:] for out in build(case).eval().backbone(torch.zeros(1, 3, 32, 48, dtype=torch.double))]
    for _ in range(STEPS):
        yield tuple(torch.randn(IMAGES, *shape, dtype=torch.double) for shape in ((3, 32, 48), *shapes))


def optimizer(net):
    return OptimWrapper(torch.optim.SGD(net.parameters(), **SGD))


def train(case, net, optim, share=slice(None)):
    """Some steps on a share of each batch, as mmengine's runner does them; returns the losses."""
    losses = []
    for inputs, *targets in list(batches(case)):
        data = dict(inputs=inputs[share], targets=[target[share] for target in targets])
        losses.append(net.train_step(data, optim)['loss'].item())
    return losses


def wrapped(case, net, folder):
    """The model as mmengine wraps it for several processes, and its optimizer."""
    if case.wrapper == 'fsdp':
        from mmengine._strategy import FSDPStrategy

        strategy = FSDPStrategy(
            model_wrapper=dict(device_id='cpu'), work_dir=str(folder), env_kwargs=dict(launcher='pytorch'))
        return strategy.prepare(
            net, optim_wrapper=dict(optimizer=dict(type='SGD', **SGD)),
            dispatch_kwargs=dict(init_weights_for_test_or_val=False))
    net = MMDistributedDataParallel(net, broadcast_buffers=False, find_unused_parameters=False)
    if case.norm == 'synced':
        # Behind the wrapper, which refuses SyncBN on CPUs; the parameters stay the same objects.
        convert_sync_batchnorm(net.module, 'torch')
        for module in net.modules():
            if type(module) is nn.SyncBatchNorm:
                module.__class__ = SyncedOnCPU
    return net, optimizer(net)


def state_dict(case, net):
    if case.wrapper == 'ddp':
        return net.module.state_dict()
    from torch.distributed.fsdp import FullyShardedDataParallel

    with FullyShardedDataParallel.summon_full_params(net):
        return {name: value.clone() for name, value in net.module.state_dict().items()}


def main(rank, folder, single_paths):
    torch.set_num_threads(1)
    os.environ['LOCAL_RANK'] = str(rank)
    dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    share = slice(rank * IMAGES // 2, (rank + 1) * IMAGES // 2)
    for case in [*cases(False), *(cases(True) if single_paths else [])]:
        net, optim = wrapped(case, build(case), folder)
        losses = train(case, net, optim, share)
        torch.save(dict(losses=losses, state_dict=state_dict(case, net)), folder / f'{case}.{rank}.pth')
    dist.barrier()


if __name__ == '__main__':
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:] == ['all'])
