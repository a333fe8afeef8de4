"""Stops a run that cannot work before its first iteration, with what to change."""

from typing import Iterator, List, Optional, Tuple

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner
from torch import nn

from mmacmix.engine.batch_checks import check_batch
from mmacmix.engine.metric_checks import check_coco_metrics, check_metrics, check_save_best, counts_labels
from mmacmix.engine.model_checks import (
    ChannelWatch,
    check_classes,
    check_frozen,
    check_labels,
    check_order,
    unwrapped,
)
from mmacmix.engine.pipeline_checks import check_pipeline, has_steps
from mmacmix.engine.sample_checks import check_batches, check_samples, check_something, classes_of, leaves
from mmacmix.registry import HOOKS


@HOOKS.register_module()
class StartCheckHook(Hook):
    """Checks the built model and data against each other when a run starts.

    Heads must have the classes of the data, label maps and images must be readable and fit (the first few are opened),
    annotations must leave something to train, metrics must know images and model, frozen stages must have weights.
    Parts of the model that do not fit are named in the first forward pass, batches that the model cannot take, and
    labels that are no class, before they reach it.

    Raises:
        SetupError: Something does not fit; the message says what to change.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._watch: Optional[ChannelWatch] = None

    def before_run(self, runner: Runner) -> None:
        model = unwrapped(runner.model)
        trained = {}
        for split, loop in built_loops(runner):
            dataset = getattr(loop.dataloader, 'dataset', None)
            parts = list(leaves(f'{split}_dataloader.dataset', dataset))
            evaluator = getattr(loop, 'evaluator', None)
            ignored = ignored_labels(model, evaluator)
            if split == 'train':
                if isinstance(loop, EpochBasedTrainLoop):
                    check_batches(loop.dataloader, 'train_dataloader')
                check_frozen(model, loaded=bool(runner._load_from or runner._resume))
            elif evaluator is not None:
                check_metrics(evaluator, dataset, split)
                check_coco_metrics(evaluator, dataset, split, model)
            if split == 'val':
                check_save_best(runner.hooks, evaluator)
            for setting, part in parts:
                classes = classes_of(part)
                if classes:
                    check_classes(model, classes, setting)
                    if split == 'train':
                        trained[setting] = classes
                    check_order(trained, classes, setting)
                check_pipeline(model, part, setting, split, has_steps(dataset), counts_labels(evaluator))
                check_samples(part, setting, split == 'train', ignored)
            if split == 'train':
                check_something(parts, ignored)
        if not runner.cfg.get('compile'):
            self._watch = ChannelWatch(model)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None) -> None:
        check_batch(unwrapped(runner.model), data_batch, 'train_dataloader.dataset.pipeline')
        check_labels(unwrapped(runner.model), data_batch)

    def after_iter(self, runner: Runner, *args, **kwargs) -> None:
        if self._watch is not None:
            self._watch.remove()
            self._watch = None

    after_train_iter = after_val_iter = after_test_iter = after_iter


def ignored_labels(model: nn.Module, evaluator: object) -> List[int]:
    """The labels that the heads and the metrics of a segmenter ignore, beside those that its data sets do."""
    heads = [head for name, head in model.named_modules() if 'head' in name]
    numbers = [getattr(part, 'ignore_index', None) for part in [*heads, *getattr(evaluator, 'metrics', ())]]
    return sorted({value for value in numbers if isinstance(value, int) and value >= 0})


def built_loops(runner: Runner) -> Iterator[Tuple[str, BaseLoop]]:
    """The loops of a run that starts, each with its split."""
    for split in ('train', 'val', 'test'):
        loop = getattr(runner, f'_{split}_loop')
        if isinstance(loop, BaseLoop):
            yield split, loop
