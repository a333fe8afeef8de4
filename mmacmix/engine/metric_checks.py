"""Do the metrics of a run know what data and model give? They would ask when the last image is predicted."""

import os.path as osp
from difflib import get_close_matches
from typing import Iterator, List, Optional, Sequence, Set, Tuple

from mmengine.hooks import CheckpointHook, Hook
from torch import nn

from mmacmix.engine.annotation_checks import check_category_order
from mmacmix.engine.config_files import SetupError, made_by
from mmacmix.engine.sample_checks import classes_of, leaves, spread
from mmacmix.engine.setting_checks import hint
from mmacmix.state_dicts import listing

# What CocoMetric of mmdet gives for boxes and for masks, where metric_items does not choose.
COCO_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
IOU_KEYS = dict(mIoU=('mIoU', 'mAcc'), mDice=('mDice', 'mAcc'), mFscore=('mFscore', 'mPrecision', 'mRecall'))


def check_metrics(evaluator: object, dataset: object, split: str) -> None:
    """Checks that the metrics of validation or test know what the data set gives.

    Raises:
        SetupError: The annotation file of a metric is about other images, or has the classes in another order; or
            there are no classes to count.
    """
    for metric, setting, found in counted(evaluator, dataset, split):
        if 'IoUMetric' in _kinds(metric):
            for data, part in found:
                if not classes_of(part):
                    raise SetupError(f'IoUMetric must know the classes: set {data}.metainfo.classes')
        known = getattr(getattr(metric, '_coco_api', None), 'imgs', None)
        if not known:
            continue
        for data, part in found:
            if not getattr(metric, 'sort_categories', False):
                check_category_order(metric._coco_api.dataset, part, data)
            if hasattr(part, 'get_data_info') and len(part):
                infos = [part.get_data_info(i) for i in spread(len(part), 50)]
                _check_images_known(infos, known, f'{setting}.ann_file', data)


def counted(evaluator: object, dataset: object, split: str) -> Iterator[Tuple[object, str, List[Tuple[str, object]]]]:
    """Each metric with its setting, and with the data sets, each with its own, whose images it counts.

    All metrics count all data sets, but for MMDetection's MultiDatasetsEvaluator: there each has its own.

    Raises:
        SetupError: MultiDatasetsEvaluator has not one metric and one prefix for every data set.
    """
    metrics, name = list(getattr(evaluator, 'metrics', ())), f'{split}_dataloader.dataset'
    prefixes = prefixes_of(evaluator)
    if prefixes is None:
        found = list(leaves(name, dataset))
        yield from ((metric, f'{split}_evaluator', found) for metric in metrics)
        return
    parts = list(getattr(dataset, 'datasets', ()))
    if not len(metrics) == len(prefixes) == len(parts):
        raise SetupError(
            f'{split}_evaluator of type MultiDatasetsEvaluator must have one of metrics and one of dataset_prefixes '
            f'for each of {name}.datasets, got {len(metrics)} metrics and {len(prefixes)} prefixes for {len(parts)}'
        )
    for i, (metric, part) in enumerate(zip(metrics, parts)):
        yield metric, f'{split}_evaluator.metrics.{i}', list(leaves(f'{name}.datasets.{i}', part))


def prefixes_of(evaluator: object) -> Optional[Sequence[str]]:
    """What MMDetection's MultiDatasetsEvaluator puts before the names of metrics; None of any other."""
    return getattr(evaluator, 'dataset_prefixes', None)


def _check_images_known(infos: List[dict], known: dict, setting: str, data: str) -> None:
    lost = [info['img_id'] for info in infos if 'img_id' in info and info['img_id'] not in known]
    if lost:
        raise SetupError(
            f'{setting} must have the images of {data}, got a file without the ids {listing(lost, 5)}: is it the '
            f'annotation file of another split? See {data}.ann_file'
        )
    pairs = [(_stem(info['img_path']), _stem(known[info['img_id']].get('file_name', '')))
             for info in infos if 'img_id' in info and 'img_path' in info]
    # Files of one image may be named by its number, with or without something in front of it.
    if pairs and not any(a.endswith(b) or b.endswith(a) for a, b in pairs):
        raise SetupError(
            f'{setting} must have the images of {data}, got a file in which their ids are those of others: '
            f'{pairs[0][1]} where {data} has {pairs[0][0]}; see {data}.ann_file'
        )


def counts_labels(evaluator: object) -> bool:
    """Whether a metric compares label maps: one that writes predictions alone needs none."""
    return any('IoUMetric' in _kinds(metric) and not getattr(metric, 'format_only', False)
               for metric in getattr(evaluator, 'metrics', ()))


def check_coco_metrics(evaluator: object, dataset: object, split: str, model: nn.Module) -> None:
    """Checks the metrics by pycocotools.

    Raises:
        SetupError: Masks are to be counted, and no part of the model is about masks; or annotations lack `iscrowd`.
    """
    for metric, setting, found in counted(evaluator, dataset, split):
        if 'CocoMetric' in _kinds(metric) and not getattr(metric, 'format_only', False):
            _check_coco_metric(metric, setting, {name for _, part in found for name in classes_of(part)}, model)


def _check_coco_metric(metric: object, setting: str, classes: Set[str], model: nn.Module) -> None:
    if 'segm' in metric.metrics and _boxes_alone(model):
        raise SetupError(
            f"{setting}.metric must be 'bbox' for a detector of boxes, got {setting}.metric={metric.metrics}: "
            f'{type(model).__name__} has no head of masks'
        )
    api = getattr(metric, '_coco_api', None)
    wanted = {key for key, category in (getattr(api, 'cats', None) or {}).items()
              if not classes or category.get('name') in classes}
    lost = [key for key, entry in (getattr(api, 'anns', None) or {}).items()
            if 'iscrowd' not in entry and entry.get('category_id') in wanted]
    if lost and type(metric).__name__ != 'LVISMetric':
        raise SetupError(
            f'annotations of {setting}.ann_file must have iscrowd, which pycocotools reads, got none in '
            f'{len(lost)}: {listing(lost, 5)}; set "iscrowd": 0 for single objects'
        )


def check_save_best(hooks: Sequence[Hook], evaluator: object) -> None:
    """Checks that the metric by which the best checkpoint is kept is one that the validation gives.

    Raises:
        SetupError: It is not, and the metrics are known ones.
    """
    keys = [keys_of(metric) for metric in getattr(evaluator, 'metrics', ())]
    if not keys or None in keys:
        return
    prefixes = prefixes_of(evaluator)
    fronts = [''] * len(keys) if prefixes is None else [f'{prefix}/' for prefix in prefixes]
    known = sorted(f'{front}{key}' for front, names in zip(fronts, keys) for key in names)
    for hook in hooks:
        wanted = (getattr(hook, 'save_best', None) or []) if isinstance(hook, CheckpointHook) else []
        for name in [wanted] if isinstance(wanted, str) else wanted:
            if name != 'auto' and name not in known:
                raise SetupError(
                    f"default_hooks.checkpoint.save_best must be 'auto' or what val_evaluator gives, "
                    f'{", ".join(known)}, got default_hooks.checkpoint.save_best={name!r}'
                    f'{hint(get_close_matches(name, known, n=1))}'
                )


def keys_of(metric: object) -> Optional[Set[str]]:
    """The names under which a metric of the hosts gives its values; None where they are not known."""
    kind = type(metric)
    if kind.__name__ == 'IoUMetric' and made_by(metric, 'mmseg'):
        names = [metric.metrics] if isinstance(metric.metrics, str) else metric.metrics
        keys = {'aAcc'}.union(*(IOU_KEYS.get(name, ()) for name in names))
    elif kind.__name__ == 'CocoMetric' and made_by(metric, 'mmdet') and not metric.classwise \
            and set(metric.metrics) <= {'bbox', 'segm'}:
        keys = {f'{name}_{item}' for name in metric.metrics for item in metric.metric_items or COCO_ITEMS}
    else:
        return None
    return {f'{metric.prefix}/{key}' if metric.prefix else key for key in keys}


def _kinds(metric: object) -> Set[str]:
    return {kind.__name__ for kind in type(metric).__mro__}


def _boxes_alone(model: nn.Module) -> bool:
    """Whether a detector of mmdet has no part that is about masks."""
    parts = (f'{name} {type(part).__name__}'.lower() for name, part in model.named_modules())
    return made_by(model, 'mmdet') and not any('mask' in part for part in parts)


def _stem(path: str) -> str:
    return osp.splitext(osp.basename(path))[0]
