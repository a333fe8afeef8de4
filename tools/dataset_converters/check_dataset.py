"""Say what is missing or wrong in a data set, before a training finds out.

`python tools/dataset_converters/check_dataset.py coco [ROOT]`, `... ade20k [ROOT]`, or `... CONFIG`.
"""
import argparse
import os.path as osp
import sys
from pathlib import Path

from coco_checks import check_coco
from findings import Findings, number, some
from label_map_checks import check_label_maps
from mmengine.registry import DATASETS, init_default_scope

from mmacmix.engine.annotation_checks import read_by
from mmacmix.engine.config_checks import check_options, open_with, parts
from mmacmix.engine.config_files import MISTAKES, CfgOptions, describe, open_config, override, type_name
from mmacmix.engine.data_paths import dataset_paths, datasets, evaluator_paths, found
from mmacmix.engine.model_checks import DETECTION, SEGMENTATION

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
SPLITS = ('train', 'val', 'test')
# The config whose data sets are those of the name, and what they hold: images and boxes, or images.
KNOWN = dict(
    coco=('coco_instance', 'mmdet', dict(train=(118287, 860001), val=(5000, 36781))),
    ade20k=('ade20k', 'mmseg', dict(train=20210, val=2000)))


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description='Say what is missing or wrong in a data set, before a training finds out. The exit code is 1 '
        'if there are errors.')
    parser.add_argument(
        'what', metavar='coco|ade20k|CONFIG', help='a data set in its usual layout, or the config of mmdet or mmseg '
        'whose train, val and test data are checked')
    parser.add_argument('root', nargs='?', help='the folder of coco or ade20k (default: as in the configs)')
    parser.add_argument(
        '--sample', type=int, default=200, metavar='N',
        help='how many files of each data set to read, evenly spaced (default: %(default)s)')
    parser.add_argument('--full', action='store_true', help='read every file')
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE',
        help='settings of the config to override; a list is written key="[a,b]" or key=a,b, without blanks')
    args = parser.parse_args(argv)
    if args.sample < 1:
        parser.error(f'--sample must be positive, got {args.sample}')
    if args.root is not None and args.what not in KNOWN:
        parser.error('ROOT goes with coco and ade20k; for a config use '
                     '--cfg-options train_dataloader.dataset.data_root=ROOT and so on')
    return args


def load_config(args):
    """Return the config and what its data sets must hold."""
    if args.what in KNOWN:
        name, scope, expected = KNOWN[args.what]
        cfg = open_config(str(CONFIGS / '_base_' / 'datasets' / f'{name}.py'))
        cfg.default_scope = scope
        root = args.root or cfg.data_root
        if not osp.isdir(root):
            raise FileNotFoundError(f'{root} does not exist: give the folder of {args.what} as ROOT')
        move(cfg, root)
        check_options(cfg, args.cfg_options or {})
        override(cfg, args.cfg_options, args.what)
    else:
        if not osp.isfile(args.what):
            raise FileNotFoundError(
                f'the first argument must be coco, ade20k or the path of a config, got {args.what}')
        cfg, expected = open_with(args.what, args.cfg_options), {}
    scope = cfg.get('default_scope')
    if scope not in ('mmdet', 'mmseg'):
        raise ValueError(f'the config must have default_scope mmdet or mmseg, got default_scope={scope}')
    if not any(cfg.get(f'{split}_dataloader') for split in SPLITS):
        raise ValueError('the config must have a train_dataloader, val_dataloader or test_dataloader, got none')
    return cfg, expected


def move(cfg, root):
    """Put the data of a config of ours into the folder `root`."""
    before = cfg.data_root
    for split in SPLITS:
        cfg[f'{split}_dataloader'].dataset.data_root = root
        evaluator = cfg[f'{split}_evaluator'] if split != 'train' else {}
        if 'ann_file' in evaluator:
            evaluator.ann_file = osp.join(root, osp.relpath(evaluator.ann_file, before))


def check(cfg, findings, most, expected, splits=SPLITS):
    """Check every data set of the config once, and what model and metrics say of them."""
    done = {}
    for split in splits:
        for setting, settings in datasets(cfg, split):
            content = str(settings)
            if content in done:
                findings.part(f'{setting}: the same as {done[content]}')
                continue
            done[content] = setting
            check_one(cfg, setting, settings, findings, most, expected.get(split))
        check_evaluator(cfg, split, findings)


def check_one(cfg, setting, settings, findings, most, expected):
    findings.part(f'{setting}: {settings.get("type")}')
    missing = [(path, name) for name, path in dataset_paths(setting, settings) if not found(path)]
    if missing and missing[0][1] == f'{setting}.data_root':
        missing = missing[:1]  # nothing below it exists either
    for path, name in missing:
        findings.error(f'{path} does not exist: set {name}')
    if missing:
        return
    remote = [path for _, path in dataset_paths(setting, settings) if '://' in path]
    if remote:
        findings.warning(f'{remote[0]} is not on this machine, and is not checked')
        return
    try:
        dataset = DATASETS.build(dict(settings, lazy_init=True, pipeline=[]))
    except MISTAKES as error:
        findings.error(f'the data set cannot be built: {describe(error)}')
        return
    kinds = {kind.__name__ for kind in type(dataset).__mro__}
    if read_by(dataset, 'load_data_list', 'parse_data_info'):
        masks = any(step.get('with_mask') for step in settings.get('pipeline', ()))
        check_coco(dataset, setting, findings, most, masks, expected)
    elif 'BaseSegDataset' in kinds:
        check_label_maps(dataset, setting, findings, most, expected)
    else:
        findings.warning(f'{type_name(settings)} is not checked further: it is read neither as COCO nor as label maps')
    check_heads(cfg, setting, len(dataset.metainfo.get('classes') or ()), findings)


def check_evaluator(cfg, split, findings):
    """The metric of mmdet reads the annotations a second time, by a setting of its own."""
    files = {osp.realpath(path) for setting, settings in datasets(cfg, split)
             for name, path in dataset_paths(setting, settings) if name.endswith('.ann_file')}
    for name, path in evaluator_paths(cfg, split):
        if not found(path):
            findings.error(f'{path} does not exist: set {name}')
        elif files and '://' not in path and osp.realpath(path) not in files:
            findings.error(f'{path} is not the annotation file of {split}_dataloader: set {name}')


def check_heads(cfg, setting, classes, findings):
    heads = numbers_of_classes(cfg.get('model') or {}) if classes else ()
    wrong = [f'model.{name}.num_classes={value}' for name, value in heads if value != classes]
    if wrong:
        findings.error(f'the model must have the {number(classes, "class")} of {setting}, got {some(wrong)}')


def numbers_of_classes(model):
    """Yields (name, num_classes) of the heads that score the classes of the data, as StartCheckHook chooses them."""
    # Classes of panoptic data are things and stuff; heads of a model of language score words.
    others = 'semantic_head' in model or 'language_model' in model
    for setting, part in parts(model, 'model'):
        name = setting[len('model.'):]
        if not isinstance(part.get('num_classes'), int):
            continue
        if SEGMENTATION.match(name):
            counts = strict(part)
        else:
            counts = DETECTION.match(name) and not others and not part.get('class_agnostic') \
                and 'RPNHead' not in type_name(part)
        if counts:
            yield name, part['num_classes']


def strict(head):
    """Whether the loss of a segmenter's head refuses labels that are no class."""
    losses = head.get('loss_decode') or []
    return any(type_name(loss) == 'CrossEntropyLoss' and not loss.get('use_sigmoid')
               for loss in (losses if isinstance(losses, (list, tuple)) else [losses]))


def main(argv=None):
    args = parse_args(argv)
    try:
        cfg, expected = load_config(args)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'check_dataset.py: error: {error}')
    init_default_scope(cfg.default_scope)
    findings = Findings()
    check(cfg, findings, None if args.full else args.sample, expected)
    print(f'\n{findings.summary()}')
    sys.exit(1 if findings.counts['error'] else 0)


if __name__ == '__main__':
    main()
