"""Looks at built data sets before a run: is there something, and can the first files be read?"""

import json
import os.path as osp
from difflib import get_close_matches
from typing import Iterator, List, Sequence, Tuple

import numpy as np
from torch.utils.data import DataLoader

from mmacmix.engine.annotation_checks import check_annotations, check_masks, check_size, check_some_box
from mmacmix.engine.config_files import HOSTS, SetupError, made_by
from mmacmix.engine.image_files import read_image
from mmacmix.state_dicts import listing

SAMPLE = 8  # files of each data set that are opened


def leaves(setting: str, dataset: object) -> Iterator[Tuple[str, object]]:
    """Data sets inside wrappers such as RepeatDataset, each with the setting that leads there."""
    if hasattr(dataset, 'datasets'):
        for i, part in enumerate(dataset.datasets):
            yield from leaves(f'{setting}.datasets.{i}', part)
    elif hasattr(dataset, 'dataset'):
        yield from leaves(f'{setting}.dataset', dataset.dataset)
    else:
        yield setting, dataset


def classes_of(dataset: object) -> Sequence[str]:
    """The names of a data set's classes; none where it has no list of them."""
    return (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()


def check_batches(loader: DataLoader, setting: str) -> None:
    """Checks that the data loader of a training by epochs gives a batch: without one, epochs are done in silence.

    Raises:
        SetupError: It gives none.
    """
    if len(loader) == 0:
        if not len(loader.dataset):
            raise SetupError(f'{setting} must give a batch at least, got no sample: see {setting}.dataset')
        sampler = loader.batch_sampler
        # A loader that was given a batch sampler has no such setting of its own.
        dropping = f'{setting}.drop_last=False' if loader.drop_last else f'drop_last=False in {setting}.batch_sampler'
        raise SetupError(
            f'{setting} must give a batch at least, got none of {len(loader.dataset)} samples: lower '
            f'{setting}.batch_size={getattr(sampler, "batch_size", None)}, or set {dropping}'
        )


def check_samples(dataset: object, setting: str, training: bool, ignored: Sequence[int] = ()) -> None:
    """Reads a few images, and their label maps, of a data set of the hosts.

    Args:
        dataset: One without wrappers.
        setting: Where it stands in the config.
        training: Whether it is trained on.
        ignored: Further labels that heads and metrics ignore.

    Raises:
        SetupError: A file is missing, empty or damaged, or does not fit.
    """
    if not hasattr(dataset, 'get_data_info') or not len(dataset):
        return
    check_categories(dataset, setting)
    steps = steps_of(dataset)
    images, annotations = steps.get('LoadImageFromFile'), steps.get('LoadAnnotations')
    infos = [dataset.get_data_info(i) for i in spread(len(dataset), SAMPLE)]
    if training and getattr(annotations, 'with_bbox', False):
        check_annotations(dataset, setting)
    if training and getattr(annotations, 'with_mask', False):
        check_masks(infos, setting)
    for info in infos:
        size = None
        if _local(images, info.get('img_path')) and not getattr(images, 'ignore_empty', False):
            size = _size_of(info['img_path'], f'{setting}.data_prefix and .ann_file')
            size = size if _turns(images) else None
        if training and hasattr(dataset, 'COCOAPI') and getattr(annotations, 'with_bbox', False):
            check_size(info, size, setting)
        if hasattr(dataset, 'reduce_zero_label') and _local(annotations, info.get('seg_map_path')):
            _check_label_map(dataset, info['seg_map_path'], size, setting, training, ignored)


def check_something(parts: Sequence[Tuple[str, object]], ignored: Sequence[int] = ()) -> None:
    """Checks that there is something to train in one of the data sets that are trained on together.

    Args:
        parts: Those without wrappers, each with its setting.
        ignored: Further labels that heads ignore.

    Raises:
        SetupError: There is not.
    """
    steps = [steps_of(dataset).get('LoadAnnotations') for _, dataset in parts]
    if all(getattr(step, 'with_bbox', False) and hasattr(dataset, 'get_data_info')
           for step, (_, dataset) in zip(steps, parts)):
        check_some_box(parts)
    if all(hasattr(dataset, 'reduce_zero_label') and dataset.metainfo.get('classes') for _, dataset in parts):
        errors = [_nothing_labelled(dataset, step, setting, ignored) for step, (setting, dataset) in zip(steps, parts)]
        if errors and all(errors):
            raise SetupError(errors[0])


def steps_of(dataset: object) -> dict:
    """The steps of the pipeline of a built data set by the names of their classes."""
    return {type(step).__name__: step for step in getattr(getattr(dataset, 'pipeline', None), 'transforms', ())}


def _nothing_labelled(dataset: object, step: object, setting: str, ignored: Sequence[int]) -> str:
    """What to say if label maps ignore every pixel; it looks at more of them only as long as they do."""
    paths = [dataset.get_data_info(i).get('seg_map_path') for i in spread(len(dataset), SAMPLE * SAMPLE)]
    paths = [path for path in paths if _local(step, path)]
    for path in paths:
        labels = _read(path, f'{setting}.data_prefix.seg_map_path')
        others = {dataset.ignore_index, *ignored}
        if labels is None or any(target(dataset, value, ignored) not in others for value in np.unique(labels)):
            return ''
    zero = f' and .reduce_zero_label={dataset.reduce_zero_label}' if dataset.reduce_zero_label else ''
    return paths and (
        f'label maps must have a pixel of a class, got none in {len(paths)} of {len(dataset)}: all are ignored; '
        f'see {setting}.data_prefix.seg_map_path{zero}'
    )


def check_categories(dataset: object, setting: str) -> None:
    """Checks that a data set of COCO's kind has found its classes in the annotation file; mmdet shifts labels else.

    A file without the last classes shifts nothing: the others keep their numbers.

    Raises:
        SetupError: A class is not among the categories, and labels are shifted, or a category has a name like it.
    """
    found, classes = getattr(dataset, 'cat_ids', None), (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if isinstance(found, list) and classes and len(found) < len(classes) and _misses(dataset, found, classes):
        raise SetupError(
            f'{setting}.metainfo.classes must be among the categories of {dataset.ann_file}, got {len(classes)} '
            f'classes ({listing(classes, 5)}) for {len(found)} of its categories'
        )


def _misses(dataset: object, found: list, classes: Sequence[str]) -> bool:
    """Whether the categories of an annotation file, of which some were found, lack classes by mistake."""
    path = getattr(dataset, 'ann_file', None)
    if not made_by(dataset, 'mmdet') or not isinstance(path, str) or not osp.isfile(path):
        return False
    with open(path, encoding='utf-8') as file:
        content = json.load(file)
    names = {category['id']: category['name'] for category in content.get('categories', ())}
    if not found:
        return bool(content.get('annotations'))
    if [names.get(key) for key in found] != list(classes)[:len(found)]:
        return True
    others = [str(name) for name in names.values() if name not in classes]
    return any(get_close_matches(str(name), others, n=1, cutoff=0.75) for name in classes[len(found):])


def _check_label_map(dataset: object, path: str, size: tuple, setting: str, training: bool,
                     ignored: Sequence[int]) -> None:
    where = f'{setting}.data_prefix.seg_map_path and .seg_map_suffix'
    labels = _read(path, where)
    if labels is None:
        return
    if size and labels.size != size:
        # A training that resizes both brings maps of the same shape to one size.
        if not training or labels.width * size[1] != labels.height * size[0]:
            raise SetupError(
                f'a label map must have the size of its image, got {labels.width}x{labels.height} for an image of '
                f'{size[0]}x{size[1]}: {path}; see {where}'
            )
    values = np.asarray(labels)
    if values.ndim != 2:
        raise SetupError(f'a label map must have one channel, of class numbers, got {labels.mode} in {path}')
    classes = dataset.metainfo.get('classes')
    wrong = [value for value in np.unique(values).tolist() if classes and target(dataset, value, ignored) is None]
    if wrong:
        raise SetupError(
            f'{out_of_range(dataset)}, got {listing(wrong, 5)} in {path}: see {setting}.metainfo.classes and '
            '.reduce_zero_label'
        )


def target(dataset: object, value: int, ignored: Sequence[int] = ()) -> object:
    """The class that mmseg makes of a label; None for one that is out of range."""
    label = value
    if value > 255:  # mmseg would keep the lowest eight bits
        return None
    if dataset.reduce_zero_label:
        label = 255 if value in (0, 255) else value - 1
    label = (dataset.label_map or {}).get(label, label)
    allowed = label == dataset.ignore_index or label in ignored
    return label if allowed or label < len(dataset.metainfo['classes']) else None


def out_of_range(dataset: object) -> str:
    """Which labels a data set of mmseg allows."""
    first, count = int(dataset.reduce_zero_label), len(dataset.label_map or dataset.metainfo['classes'])
    zero = ', 0 (ignored)' if first else ''
    return (f'with {count} classes and reduce_zero_label={dataset.reduce_zero_label}, labels are {first} to '
            f'{count - 1 + first}{zero} and 255 (ignored)')


def _local(step: object, path: object) -> bool:
    """Whether a loading step of the hosts reads this path from the disks of this machine, and by a usual decoder."""
    if not made_by(step, 'mmcv', *HOSTS):
        return False
    backend = (getattr(step, 'backend_args', None) or {}).get('backend', 'local')
    return isinstance(path, str) and '://' not in path and backend == 'local' \
        and not getattr(step, 'file_client_args', None)


def _turns(step: object) -> bool:
    """Whether a loading step turns images as their EXIF says, as read_image does."""
    kind = str(getattr(step, 'color_type', 'color'))
    return getattr(step, 'imdecode_backend', 'cv2') == 'cv2' and kind != 'unchanged' and 'ignore' not in kind


def _size_of(path: str, where: str) -> object:
    image = _read(path, where)
    return image.size if image is not None else None


def _read(path: str, where: str) -> object:
    """The image; None for kinds that only the host's decoder knows, and for too large ones."""
    from PIL import Image

    usual = path.lower().endswith(('.jpg', '.jpeg', '.png'))
    if osp.isfile(path) and osp.getsize(path) and not usual:
        return None
    try:
        return read_image(path)
    except ValueError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            return None
        raise SetupError(
            f'{path} {error}: see {where}; tools/dataset_converters/check_dataset.py CONFIG --full looks at every file'
        ) from error


def spread(length: int, most: int) -> List[int]:
    return [i * length // min(length, most) for i in range(min(length, most))]
