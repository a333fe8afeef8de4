"""What is kept of a training: facts, curves and weights."""

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Dict, List, Tuple

import torch
from get_flops import count_model
from mmengine.runner import find_latest_checkpoint
from records import device_name, git, installed, versions
from rows import TASKS, Run
from scalars import read_scalars
from whole_models import build, load

from mmacmix.checkpoints import read_checkpoint

TRIES = 'tries.json'
#: What decides a result besides what `versions` looks at.
SOURCES = ('tools', 'configs', 'docs/examples', 'docs/evidence/configs')
#: Of the log: the beginnings of names that are kept, besides the metrics.
KEPT = ('loss', 'lr', 'grad_norm', 'seconds', 'peak_memory_mib', 'mixing_rates/', 'decode.loss')


def note_try(folder: Path, threads: int) -> None:
    """Notes in the folder of a run that a training starts, or goes on, with the code and on the machine as now."""
    now = dict(
        versions(), mmseg=installed('mmsegmentation', 'onedl-mmsegmentation'), threads=str(threads), device=_device(),
        date=f'{datetime.now(timezone.utc):%Y-%m-%d}')
    if not now['commit'].endswith('+dirty') and git('status', '--porcelain', '--', *SOURCES):
        now['commit'] += '+dirty'
    noted = _noted(folder)
    if now not in noted:
        unfinished = folder / f'{TRIES}.tmp'
        unfinished.write_text(json.dumps([*noted, now]), encoding='utf-8')
        unfinished.replace(folder / TRIES)


def facts_of_tries(folder: Path) -> Dict[str, str]:
    """Versions, machine and date of a training; several, after commas, where it went on with others after a stop.

    Raises:
        ValueError: Nothing was noted.
    """
    noted = _noted(folder)
    if not noted:
        raise ValueError(f'{folder / TRIES} must say what the training was run with; without it, remove {folder}')
    return {name: ', '.join(dict.fromkeys(one[name] for one in noted)) for name in noted[0]}


def _noted(folder: Path) -> List[Dict[str, str]]:
    path = folder / TRIES
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else []


def _device() -> str:
    """The GPU, or the processor with its vector instructions: those of one name may have others."""
    if torch.cuda.is_available():
        return device_name('cuda')
    return f'{device_name("cpu")} ({torch.backends.cpu.get_cpu_capability()})'


def facts_of(run: Run, config: Path, digest: str, more: Dict[str, object]) -> Dict[str, str]:
    """Facts of a run: what was trained, on what, and what the model costs for one image as in training."""
    cfg = load(str(config))
    parts = {row.title: row.part for row in count_model(build(cfg), *run.shape)}
    backbone = next(part for title, part in parts.items() if title.startswith('backbone '))
    facts = dict(
        task=run.task, row=run.row, seed=run.seed, config=digest, **more,
        parameters=parts['total'].parameters, multiply_adds=parts['total'].multiply_adds,
        backbone_parameters=backbone.parameters, backbone_multiply_adds=backbone.multiply_adds)
    return {name: str(value) for name, value in facts.items()}


def log_of(task: str, folder: Path, last: int) -> Dict[str, List[Tuple[int, float]]]:
    """Curves of a finished training: losses, learning rate, metrics, figures by class, seconds, memory, rates.

    Args:
        task: A key of TASKS.
        folder: Work dir of the training.
        last: Its last step.

    Raises:
        ValueError: The log lacks the metric of the task after the last step.
    """
    known = TASKS[task]
    begin, end = known.per_class
    kept = {
        name: points for name, points in read_scalars(folder).items()
        if name.startswith(KEPT) or name in known.metrics or name.startswith(begin) and name.endswith(end)
    }
    metric = next(iter(known.metrics))
    steps = [step for step, _ in kept.get(metric, ())]
    if last not in steps:
        raise ValueError(f'the log of a training of {task} must have {metric} after step {last}, got it after '
                         f'{", ".join(map(str, steps)) or "none"} in {folder}')
    return kept


def keep_weights(folder: Path, out: Path) -> None:
    """Writes the weights of the newest checkpoint, without what only resuming needs."""
    checkpoint = read_checkpoint(find_latest_checkpoint(str(folder)), map_location='cpu')
    unfinished = out.with_name(out.name + '.tmp')
    torch.save({name: checkpoint[name] for name in ('meta', 'state_dict')}, unfinished)
    unfinished.replace(out)
