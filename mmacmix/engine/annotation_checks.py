"""Looks at boxes and masks of built data sets of mmdet before a training: is there something to learn in them?

mmdet leaves out in silence what it cannot use. What good data have is never refused: a few boxes without a size or
outside of their image, crowds, images without a box.
"""

import json
import mmap
import os.path as osp
from collections import Counter
from typing import List, Sequence, Tuple

import numpy as np

from mmacmix.engine.config_files import SetupError
from mmacmix.state_dicts import listing

WHOLE = 32 * 2**20  # bytes of the largest annotation file that is read a second time, in two seconds or so


def check_annotations(dataset: object, setting: str) -> None:
    """Checks the annotations of a data set of boxes that is trained on.

    Args:
        dataset: One of mmdet, without wrappers.
        setting: Where it stands in the config.

    Raises:
        SetupError: Ids are not unique, or boxes are no numbers of pixels.
    """
    path = getattr(dataset, 'ann_file', None)
    if read_by(dataset, 'load_data_list', 'parse_data_info') and isinstance(path, str) and osp.isfile(path):
        if osp.getsize(path) <= WHOLE or _has_nan(path):
            with open(path, encoding='utf-8') as file:
                content = json.load(file)
            check_category_order(content, dataset, setting)
            check_content(content, dataset, setting)


def check_some_box(parts: Sequence[Tuple[str, object]]) -> None:
    """Checks that one of the data sets that are trained on together has a box; others may be background.

    Args:
        parts: Those without wrappers, of boxes alone, each with its setting.

    Raises:
        SetupError: None has.
    """
    for _, dataset in parts:
        if not len(dataset) or any(dataset.get_data_info(i).get('instances', True) for i in range(len(dataset))):
            return
    for setting, dataset in parts:
        raise SetupError(
            f'{setting} must have a box that can be trained, got none in {len(dataset)} images: see {setting}.ann_file '
            'and .metainfo.classes; tools/dataset_converters/check_dataset.py CONFIG says what is left out'
        )


def check_category_order(content: dict, dataset: object, setting: str) -> None:
    """Checks that the classes have the order of the categories in an annotation file, by which mmdet numbers them.

    Raises:
        SetupError: They have another: boxes would be called by wrong names.
    """
    if not read_by(dataset, 'load_data_list'):
        return  # others sort them
    classes = list(dataset.metainfo.get('classes') or ())
    named = [category['name'] for category in content.get('categories', ()) if category['name'] in classes]
    if named != classes and sorted(named) == sorted(classes):
        raise SetupError(
            f'{setting}.metainfo.classes must have the order of the categories of {dataset.ann_file} '
            f'({listing(named, 5)}), got ({listing(classes, 5)}): boxes would be called by wrong names'
        )


def check_content(content: dict, dataset: object, setting: str) -> None:
    """Checks an annotation file of COCO's kind that mmdet could read.

    Raises:
        SetupError: See check_annotations.
    """
    path, images = dataset.ann_file, content['images']
    files = Counter(key for key, _ in {(image['id'], image['file_name']) for image in images})
    repeated = [key for key, number in files.items() if number > 1]
    if repeated:
        raise SetupError(
            f'images must have ids of their own, got {listing(repeated, 5)} more than once in {path}: the last image '
            f'of an id alone would be trained; see {setting}.ann_file'
        )
    by_id = {image['id']: image for image in images}
    entries = [entry for entry in content['annotations']
               if entry['image_id'] in by_id and not entry.get('ignore', False)]
    if not entries:
        return
    boxes = np.array([entry['bbox'] for entry in entries], np.float64)
    sizes = np.array([[by_id[entry['image_id']][side] for side in ('width', 'height')] for entry in entries],
                     np.float64)
    wrong = ~np.isfinite(boxes).all(1)
    if wrong.any():
        raise SetupError(
            'bbox must be four finite numbers [x, y, width, height], got others in annotations '
            f'{listing(_ids(entries, wrong), 5)} of {path}'
        )
    check_boxes(boxes, sizes, np.array([entry['area'] for entry in entries], np.float64), path)


def check_boxes(boxes: np.ndarray, sizes: np.ndarray, areas: np.ndarray, path: str) -> None:
    """Checks finite boxes [x, y, width, height] of images of some sizes.

    Raises:
        SetupError: They are in other units or of another kind, or none can be trained.
    """
    start, extent = boxes[:, :2], boxes[:, 2:]
    end = start + extent
    if (boxes >= 0).all() and (end <= 1.01).all() and (sizes > 2).all():
        raise SetupError(
            f'bbox must be [x, y, width, height] in pixels, got boxes in 0 to 1 alone in {path}: multiply them by the '
            'width and the height of their images'
        )
    # Of boxes of the right kind some lie further from the upper left corner than they are large.
    beyond = (end > sizes * 1.1).any(1)
    if len(boxes) >= 10 and beyond.mean() > 0.5 and (extent >= start).all() and (extent <= sizes + 1).all():
        raise SetupError(
            f'bbox must be [x, y, width, height], got boxes that leave their images in {beyond.sum()} of {len(boxes)} '
            f'annotations of {path}: they are [x1, y1, x2, y2]'
        )
    flat = (extent < 1).any(1) | (areas <= 0)
    outside = ~flat & ((start >= sizes) | (end <= 0)).any(1)
    if (flat | outside).all():
        raise SetupError(
            f'bbox must be [x, y, width, height] in pixels, in the image, got no such box in {path}: '
            f'{flat.sum()} with a side below one pixel or without area, {outside.sum()} outside of the image'
        )


def check_masks(infos: Sequence[dict], setting: str) -> None:
    """Checks the masks of some images of a data set that trains them.

    Raises:
        SetupError: Objects have none, or some that mmdet cannot read, or ignores.
    """
    used = short = 0
    for info in infos:
        where = f'one in {info.get("img_path")}: see "segmentation" in {setting}.ann_file'
        for instance in info.get('instances', ()):
            if 'mask' not in instance:
                raise SetupError(
                    f'objects must have masks where masks are trained, got none for one in {info.get("img_path")}: '
                    f'give "segmentation" in {setting}.ann_file, or train a detector of boxes'
                )
            mask = instance['mask']
            if isinstance(mask, list) and not all(isinstance(part, (list, np.ndarray)) for part in mask):
                raise SetupError(
                    f'a mask must be a list of polygons [[x, y, x, y, ...], ...], got a list of numbers for {where}'
                )
            polygons = mask if isinstance(mask, list) else []
            used += 1
            short += isinstance(mask, list) and not any(len(part) >= 6 and len(part) % 2 == 0 for part in polygons)
    if used and short == used:
        raise SetupError(
            f'polygons must be [x, y, x, y, ...] of three corners or more, got none among the masks of {used} objects: '
            f'they would be ignored; see "segmentation" in {setting}.ann_file'
        )


def check_size(info: dict, size: tuple, setting: str) -> None:
    """Checks that an image has the size that the annotations say, to which mmdet clips boxes and draws masks.

    Raises:
        SetupError: It has another.
    """
    said = info.get('width'), info.get('height')
    if size and None not in said and said != size:
        raise SetupError(
            f'images must have the size that is annotated, got {size[0]}x{size[1]} (turned as their EXIF says) where '
            f'{setting}.ann_file says {said[0]}x{said[1]}: {info["img_path"]}; correct width and height, or the images'
        )


def read_by(dataset: object, *methods: str) -> bool:
    """Whether a data set is read by these methods of CocoDataset of mmdet, not by its own."""
    own = [getattr(getattr(type(dataset), name, None), '__qualname__', None) for name in methods]
    return own == [f'CocoDataset.{name}' for name in methods]


def _has_nan(path: str) -> bool:
    """Whether a file may have a number that is none; JSON allows them in Python alone."""
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return any(content.find(word) >= 0 for word in (b' NaN', b'[NaN', b',NaN', b'Infinity'))


def _ids(entries: List[dict], chosen: np.ndarray) -> list:
    return [entries[i].get('id') for i in np.flatnonzero(chosen)]
