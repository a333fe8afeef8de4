"""What is kept of a training: facts, curves and weights."""

from pathlib import Path
from typing import Dict, List, Tuple

import torch
from get_flops import count_model
from mmengine.runner import find_latest_checkpoint
from records import device_name, installed
from rows import TASKS, Run
from scalars import read_scalars
from whole_models import build, load

from mmacmix.checkpoints import read_checkpoint

#: Of the log: the beginnings of names that are kept, besides the metrics.
KEPT = ('loss', 'lr', 'grad_norm', 'seconds', 'peak_memory_mib', 'mixing_rates/', 'decode.loss')


def facts_of(run: Run, config: Path, digest: str, more: Dict[str, object]) -> Dict[str, str]:
    """Facts of a run: what was trained, on what, and what the model costs for one image as in training."""
    cfg = load(str(config))
    parts = {row.title: row.part for row in count_model(build(cfg), *TASKS[run.task].shape)}
    backbone = next(part for title, part in parts.items() if title.startswith('backbone '))
    facts = dict(
        task=run.task, row=run.row, seed=run.seed, config=digest, **more,
        device=device_name('cuda' if torch.cuda.is_available() else 'cpu'),
        mmseg=installed('mmsegmentation', 'onedl-mmsegmentation'),
        parameters=parts['total'].parameters, multiply_adds=parts['total'].multiply_adds,
        backbone_parameters=backbone.parameters, backbone_multiply_adds=backbone.multiply_adds)
    return {name: str(value) for name, value in facts.items()}


def log_of(task: str, folder: Path) -> Dict[str, List[Tuple[int, float]]]:
    """Curves of a finished training: losses, learning rate, metrics, figures by class, seconds, memory, rates.

    Raises:
        ValueError: The log lacks the metric of the task.
    """
    known = TASKS[task]
    begin, end = known.per_class
    kept = {
        name: points for name, points in read_scalars(folder).items()
        if name.startswith(KEPT) or name in known.metrics or name.startswith(begin) and name.endswith(end)
    }
    metric = next(iter(known.metrics))
    if metric not in kept:
        raise ValueError(f'the log of a training of {task} must have {metric}, got {", ".join(kept)} in {folder}')
    return kept


def keep_weights(folder: Path, out: Path) -> None:
    """Writes the weights of the newest checkpoint, without what only resuming needs."""
    checkpoint = read_checkpoint(find_latest_checkpoint(str(folder)), map_location='cpu')
    unfinished = out.with_name(out.name + '.tmp')
    torch.save({name: checkpoint[name] for name in ('meta', 'state_dict')}, unfinished)
    unfinished.replace(out)
