"""What is compared in docs/evidence.md: tasks, rows, and the runs that they are made of."""

import hashlib
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Optional, Tuple

from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = ROOT / 'docs' / 'evidence' / 'configs'


class Task(NamedTuple):
    """A data set with its host.

    Attributes:
        title: As in tables.
        metrics: Names in the log and in tables, the first decides.
        per_class: What the log's names of figures by class begin and end with.
        factor: Of figures, to percent.
        shape: Height and width of an image in training, for multiply-adds; `small` rows have half of both.
        kind: As tools/demo/pictures.py calls it.
        anchor: What a plain ResNet-18 reached with this schedule before, in percent.
    """

    title: str
    metrics: Dict[str, str]
    per_class: Tuple[str, str]
    factor: float
    shape: Tuple[int, int]
    kind: str
    anchor: Dict[str, float]


TASKS = dict(
    bccd=Task(
        'BCCD, RetinaNet', {'coco/bbox_mAP': 'AP', 'coco/bbox_mAP_50': 'AP50'}, ('coco/', '_precision'), 100.0,
        (256, 320), 'detection', {'coco/bbox_mAP': 38.9, 'coco/bbox_mAP_50': 59.2}),
    camvid=Task(
        'CamVid, Semantic FPN', {'mIoU': 'mIoU', 'aAcc': 'pixel accuracy'}, ('IoU/', ''), 1.0,
        (256, 256), 'segmentation', {'mIoU': 38.5}),
)
RESNET, SWIN, PVT, SAN = 'resnet-acmix-26', 'swin-acmix', 'pvt-acmix-t', 'san-acmix-10'
HALF, SAN_GN = f'{RESNET}-half', f'{SAN}-gn'
LABELS = {
    RESNET: 'ResNet-ACmix-26',
    'resnet-26': 'ResNet-26',
    'resnet-18': 'ResNet-18',
    HALF: 'ResNet-ACmix-26 of half width',
    'resnet-26-half': 'ResNet-26 of half width',
    SWIN: 'Swin-ACmix, 64 channels',
    PVT: 'PVT-ACmix-T',
    SAN: 'SAN-ACmix-10',
    SAN_GN: 'SAN-ACmix-10 with group normalisation',
    # What follows a name after `_`.
    'attention': 'attention alone',
    'convolution': 'convolution alone',
    'no-shift': 'shift overwritten',
    'rates-1-0': 'rates from (1, 0)',
    'rates-1-1': 'rates from (1, 1)',
    'rates-decay': 'rates decayed',
    'rates-decay-long': 'rates decayed as in a long training',
    'warm': 'from the trained plain model',
    'attention-on': 'attention alone, trained on',
}


class Group(NamedTuple):
    """Rows that answer one question.

    Attributes:
        title: As in headings.
        rows: In the order of tables.
        others: Those that the first row is compared with, where these are not all the others.
    """

    title: str
    rows: Tuple[str, ...]
    others: Optional[Tuple[str, ...]] = None

    @property
    def compared(self) -> Tuple[str, ...]:
        return self.rows[1:] if self.others is None else self.others


GROUPS = {
    'pass': Group('ResNet-ACmix-26 and plain ResNets', (RESNET, 'resnet-26', 'resnet-18')),
    'paths': Group(
        'Both paths, and each alone', (HALF, f'{HALF}_attention', f'{HALF}_convolution', 'resnet-26-half')),
    'start': Group('Where ACmix starts', (
        HALF, f'{HALF}_no-shift', f'{HALF}_rates-1-0', f'{HALF}_rates-1-1', f'{HALF}_rates-decay',
        f'{HALF}_rates-decay-long')),
    'swin': Group('Swin-ACmix and Swin', (SWIN, f'{SWIN}_attention')),
    'pvt': Group('PVT-ACmix and PVT', (PVT, f'{PVT}_attention')),
    'san': Group('SAN-ACmix and SAN', (SAN, f'{SAN}_attention')),
    # The plain model and ACmix from random weights had half of the training; they are there to be seen.
    'swin-warm': Group(
        'Swin-ACmix from a trained Swin', (f'{SWIN}_warm', f'{SWIN}_attention-on', f'{SWIN}_attention', SWIN),
        (f'{SWIN}_attention-on',)),
    'pvt-warm': Group(
        'PVT-ACmix from a trained PVT', (f'{PVT}_warm', f'{PVT}_attention-on', f'{PVT}_attention', PVT),
        (f'{PVT}_attention-on',)),
    # Those with batch normalisation are there to be seen.
    'san-norm': Group(
        'SAN with group normalisation', (SAN_GN, f'{SAN_GN}_attention', SAN, f'{SAN}_attention'),
        (f'{SAN_GN}_attention',)),
}
ROWS = tuple(dict.fromkeys(row for group in GROUPS.values() for row in group.rows))
#: What decides a result; the rest of a config (logging, where data lie) may change without a new training.
DECIDES = (
    'model', 'optim_wrapper', 'param_scheduler', 'train_cfg', 'train_dataloader', 'val_dataloader', 'val_evaluator',
    'start_from',
)
#: Hooks of the protocol, which record and check; StartHook counts apart.
HOOKS = ('StartCheckHook', 'CheckpointGuardHook', 'SeedHook', 'MixingRatesHook', 'ProgressHook', 'StartHook')
#: Default hooks that decide a result, as configs have them; others but RECORDING count as additions.
DEFAULT_HOOKS = dict(param_scheduler=dict(type='ParamSchedulerHook'), sampler_seed=dict(type='DistSamplerSeedHook'))
RECORDING = ('runtime_info', 'timer', 'logger', 'checkpoint', 'visualization')
ANNOTATIONS = dict(train='annotations/instances_train2017.json', val='annotations/instances_val2017.json')
MACHINE = ('data_root', 'num_workers', 'persistent_workers', 'ann_file')


class Run(NamedTuple):
    """One training: a row of a task with a seed."""

    task: str
    row: str
    seed: int

    @property
    def name(self) -> str:
        return f'{self.task}_{self.row}_seed{self.seed}'

    @property
    def small(self) -> bool:
        """Whether images, neck and head are smaller than in the group `pass`."""
        return self.row not in GROUPS['pass'].rows

    @property
    def shape(self) -> Tuple[int, int]:
        """Height and width of an image in training."""
        height, width = TASKS[self.task].shape
        return (height // 2, width // 2) if self.small else (height, width)

    def config(self, configs: Path = CONFIGS) -> Path:
        return configs / f'{self.task}_{self.row}.py'


def label(row: str) -> str:
    """What people read.

    >>> label('swin-acmix_attention')
    'Swin-ACmix, 64 channels, attention alone'
    """
    return ', '.join(LABELS[part] for part in row.split('_'))


def expand(names: Iterable[str]) -> List[str]:
    """Rows of names that are rows or groups, each once.

    Raises:
        ValueError: A name is neither.
    """
    rows: Dict[str, None] = {}
    for name in names:
        if name not in GROUPS and name not in ROWS:
            raise ValueError(f'rows must be groups ({", ".join(GROUPS)}) or rows ({", ".join(ROWS)}), got {name}')
        rows.update(dict.fromkeys(GROUPS[name].rows if name in GROUPS else (name,)))
    return list(rows)


def digest(config: Path) -> str:
    """Ten digits that change with what in a config decides a result.

    That is DECIDES, StartHook, and what a config has beyond the protocol or lacks: hooks, weights to load, settings of
    randomness, other annotations. Code is no part of it; the commit is a fact of the run.
    """
    cfg = Config.fromfile(config, import_custom_modules=False)
    content = {name: _without_machine(cfg.get(name)) for name in DECIDES}
    hooks: Dict[str, List[dict]] = {name: [] for name in (*HOOKS, '')}
    for hook in cfg.get('custom_hooks', ()):
        name = hook['type'].split('.')[-1]
        hooks[name if name in HOOKS else ''].append(hook)
    default_hooks = {**DEFAULT_HOOKS, **cfg.get('default_hooks', {})}
    more = dict(
        custom_hooks=hooks[''],
        load_from=cfg.get('load_from'),
        randomness={name: value for name, value in cfg.get('randomness', {}).items() if name != 'seed'},
        without_seeds=not hooks['SeedHook'],
        default_hooks={name: hook for name, hook in default_hooks.items()
                       if name not in RECORDING and hook != DEFAULT_HOOKS.get(name, '')},
        auto_scale_lr=cfg.get('auto_scale_lr', {}).get('enable'),
        annotations=[
            file for split, usual in ANNOTATIONS.items() for file in _annotations(cfg, split) if file != usual])
    content.update({name: _without_machine(value) for name, value in more.items() if value})
    content['starts'] = _without_machine([dict(hook, type='StartHook') for hook in hooks['StartHook']])
    if 'start_from' in cfg:
        content['start_from'] = digest(config.with_name(f'{config.stem.partition("_")[0]}_{cfg.start_from}.py'))
    return hashlib.sha256(repr(content).encode()).hexdigest()[:10]


def _annotations(cfg: Config, split: str) -> List[str]:
    """The annotation file of a split, none where its data have no such files."""
    file = cfg.get(f'{split}_dataloader', {}).get('dataset', {}).get('ann_file')
    return [file] if file else []


def _without_machine(node: object) -> object:
    """Plain containers with sorted keys, without what belongs to a machine."""
    if isinstance(node, dict):
        return {key: _without_machine(node[key]) for key in sorted(node, key=str) if key not in MACHINE}
    if isinstance(node, (list, tuple)):
        return [_without_machine(item) for item in node]
    return node


def data_options(task: str, data: Path) -> Dict[str, str]:
    """Settings that tell a config of the task where its data are; ``data`` has a folder of the task's name."""
    root = f'{data / task}/'
    options = {f'{split}_dataloader.dataset.data_root': root for split in ('train', 'val', 'test')}
    if task == 'bccd':
        file = f'{root}annotations/instances_val2017.json'
        options.update({f'{split}_evaluator.ann_file': file for split in ('val', 'test')})
    return options
