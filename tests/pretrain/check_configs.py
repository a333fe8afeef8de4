"""Run by test_pretraining.py where mmpretrain is: tries every config of configs/imagenet at a small size.

python check_configs.py DATA OUT: reads images in ImageNet's layout from DATA; writes OUT/<config>.json, what was found,
and OUT/<config>.pth, the weights of a classifier, for the smallest of each family.
"""
import copy
import json
import logging
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'imagenet'
SAVED = ('resnet-acmix-26', 'san-acmix-10', 'pvt-acmix-t', 'swin-acmix-t')


def samples(count):
    return [DataSample().set_gt_label(torch.tensor([i % 2])) for i in range(count)]


def decays(model, cfg):
    """Weight decay of every trained parameter, in units of the optimiser's."""
    wrapper = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper))
    base = cfg.optim_wrapper.optimizer.weight_decay
    by_id = {id(p): group['weight_decay'] / base for group in wrapper.param_groups for p in group['params']}
    return {name: by_id[id(p)] for name, p in model.named_parameters()}


def rates_of_the_schedule(cfg, images=1_281_167):
    """Learning rate at the start, after the warm-up and at the end of a training, of an epoch of 4 iterations."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = []
    for scheduler in copy.deepcopy(cfg.param_scheduler):
        assert scheduler.pop('convert_to_iter_based')
        kind = PARAM_SCHEDULERS.get(scheduler.pop('type'))
        schedulers.append(kind.build_iter_from_epoch(optimizer, epoch_length=4, **scheduler))
    rates = []
    for _ in range(4 * cfg.train_cfg.max_epochs):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return dict(first=rates[0], highest=max(rates), warm_up=rates.index(max(rates)) / 4, last=rates[-1])


def first_batch(cfg, split, root):
    loader = copy.deepcopy(cfg[f'{split}_dataloader'])
    loader.update(num_workers=0, persistent_workers=False, pin_memory=False, batch_size=3)
    loader.dataset.data_root = root
    loader.sampler.pop('type')
    loader.sampler.update(type='DefaultSampler')  # repeated augmentation wants 256 images and more
    loader = Runner.build_dataloader(loader, seed=0)
    return next(iter(loader))


def check(path, root, out):
    torch.manual_seed(0)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    model = MODELS.build(cfg.model)
    model.init_weights()
    found = dict(decays=decays(model, cfg), schedule=rates_of_the_schedule(cfg))
    found['parameters'] = sum(p.numel() for p in model.parameters())
    images = [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(4)]
    batch = model.data_preprocessor(dict(inputs=images, data_samples=samples(4)), training=True)
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    found['loss'] = loss.item()
    found['no gradient'] = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    model.eval()
    outs = model.test_step(dict(inputs=images[:2], data_samples=samples(2)))
    found['scores'] = [[out.pred_score.numel(), out.pred_score.sum().item()] for out in outs]
    evaluator = Evaluator(cfg.val_evaluator)
    evaluator.process(data_samples=outs, data_batch=None)
    found['metrics'] = sorted(evaluator.evaluate(2))
    for split in ('train', 'val'):
        batch = first_batch(cfg, split, root)
        inputs = model.data_preprocessor(batch, training=split == 'train')['inputs']
        found[split] = dict(shape=list(inputs.shape), mean=inputs.mean().item())
    if path.stem.split('_')[0] in SAVED:
        torch.save(dict(state_dict=model.state_dict()), out / f'{path.stem}.pth')
    (out / f'{path.stem}.json').write_text(json.dumps(found))


def main():
    logging.disable(logging.CRITICAL)
    root, out = sys.argv[1:]
    for path in sorted(CONFIGS.glob('*.py')):
        check(path, root, Path(out))


if __name__ == '__main__':
    main()
