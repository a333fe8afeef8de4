"""Checks of a data set in COCO's layout: an annotation file and a folder of images."""
import json
import math
import os.path as osp
from collections import Counter

from findings import number, some
from image_checks import files_below, readable, report_damage, spread, watched

NUMBER, ID = (int, float), (int, str)
# What mmdet reads of each entry.
FIELDS = dict(
    images=dict(id=ID, file_name=str, width=NUMBER, height=NUMBER),
    annotations=dict(id=ID, image_id=ID, category_id=ID, bbox=list, area=NUMBER),
    categories=dict(id=ID, name=str))


def check_coco(dataset, setting, findings, most, masks=False, expected=None):
    """Check one data set.

    Args:
        dataset: The data set of mmdet, built lazily.
        setting: Where it stands in the config.
        findings: Takes what is found.
        most: How many images to read; None for all.
        masks: Whether masks are trained.
        expected: Numbers of images and of annotations of a well-known file.
    """
    content = read_tables(dataset, setting, findings)
    if content is None:
        return
    images, annotations = content['images'], content['annotations']
    findings.ok(f'{dataset.ann_file}: {number(len(images), "image")}, {number(len(annotations), "box")}, '
                f'classes in the file: {len(content["categories"])}')
    if expected and expected != (len(images), len(annotations)):
        findings.error(f'{dataset.ann_file} must have {expected[0]} images and {expected[1]} boxes, '
                       f'got {len(images)} and {len(annotations)}: is it the official file?')
    check_ids(content, findings)
    check_classes(dataset, setting, content, findings)
    by_id = {image['id']: image for image in images}
    check_boxes(annotations, by_id, findings)
    if masks:
        check_masks(annotations, findings)
    check_images_have_boxes(dataset, by_id, annotations, findings)
    check_files(dataset, setting, images, findings, most)


def read_tables(dataset, setting, findings):
    """The content of the annotation file, or None where it cannot be used."""
    path = dataset.ann_file
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        findings.error(f'{path} cannot be read as JSON ({error}); see {setting}.ann_file')
        return None
    missing = [table for table in FIELDS
               if not isinstance(content, dict) or not isinstance(content.get(table), list)]
    if missing == ['annotations'] and setting.startswith('test_'):
        findings.warning(f'{path} has no annotations: images can be predicted (format_only=True), not evaluated')
        content, missing = dict(content, annotations=[]), []
    if missing:
        findings.error(f'{path} must hold lists of images, annotations and categories, '
                       f'got no list of {", ".join(missing)}; see {setting}.ann_file')
        return None
    wrong = list(wrong_fields(content, evaluated=not setting.startswith('train_')))
    for table, field, entries in wrong:
        findings.error(f'{path}: {field} missing or of a wrong type in {len(entries)} of '
                       f'{len(content[table])} {table}, first in {str(entries[0])[:100]}')
    return None if wrong else content


def wrong_fields(content, evaluated):
    """Yields (table, field, entries that do not have it as mmdet needs it)."""
    for table, fields in FIELDS.items():
        for field, types in fields.items():
            entries = [entry for entry in content[table]
                       if not isinstance(entry, dict) or not isinstance(entry.get(field), types)]
            if entries:
                yield table, field, entries
    entries = [entry for entry in content['annotations'] if isinstance(entry, dict) and 'iscrowd' not in entry]
    if evaluated and entries:
        yield 'annotations', 'iscrowd', entries


def check_ids(content, findings):
    for table in FIELDS:
        repeated = repetitions(entry['id'] for entry in content[table])
        if repeated:
            findings.error(f'{number(len(repeated), "id")} used more than once in {table}: {some(repeated)}')
    repeated = repetitions(image['file_name'] for image in content['images'])
    if repeated:
        findings.warning(f'{number(len(repeated), "file")} listed more than once: {some(repeated)}')
    for field, table in (('image_id', 'images'), ('category_id', 'categories')):
        known = {entry['id'] for entry in content[table]}
        lost = {entry[field] for entry in content['annotations']} - known
        if lost:
            findings.error(f'{number(len(lost), field)} of annotations not among {table}: '
                           f'{some(sorted(lost, key=str))}')


def repetitions(values):
    return [value for value, count in Counter(values).items() if count > 1]


def check_classes(dataset, setting, content, findings):
    """mmdet finds categories by name, and numbers them in the order of the file."""
    classes = list(dataset.metainfo['classes'])
    named = [category['name'] for category in content['categories']]
    where = f'{setting}.metainfo.classes'
    missing = [name for name in classes if name not in named]
    if missing:
        findings.error(f'{number(len(missing), "class")} not among the categories of the file: {some(missing)}; '
                       f'the file has {some(named)}: set {where}')
        return
    trained = [name for name in named if name in classes]
    if trained != classes:
        findings.error(f'classes must be in the order of the file, {some(trained)}, got {some(classes)}: '
                       f'boxes would be called by wrong names; set {where}')
    else:
        findings.ok(f'{number(len(classes), "class")}: {some(classes)}')
    others = [name for name in named if name not in classes]
    if others:
        findings.warning(f'classes of the file that are left out, as {where} does not name them: '
                         f'{len(others)}: {some(others)}')
    used = {entry['category_id'] for entry in content['annotations']}
    unused = [category['name'] for category in content['categories']
              if category['name'] in classes and category['id'] not in used]
    if unused and used:
        findings.warning(f'{number(len(unused), "class")} without a box: {some(unused)}')


def check_boxes(annotations, by_id, findings):
    """Boxes are [x, y, width, height] in pixels; mmdet leaves out what cannot be trained."""
    wrong, flat, outside, over = [], [], [], []
    for entry in annotations:
        box, image = entry['bbox'], by_id.get(entry['image_id'])
        if len(box) != 4 or not all(isinstance(x, NUMBER) and math.isfinite(x) for x in box):
            wrong.append(entry['id'])
        elif box[2] < 1 or box[3] < 1 or entry['area'] <= 0:
            flat.append(entry['id'])
        elif image is not None:
            x, y, width, height = box
            if x >= image['width'] or y >= image['height'] or x + width <= 0 or y + height <= 0:
                outside.append(entry['id'])
            elif min(x, y) < -1 or x + width > image['width'] + 1 or y + height > image['height'] + 1:
                over.append(entry['id'])
    if wrong:
        findings.error(f'bbox must be four finite numbers [x, y, width, height]; it is not in {len(wrong)} '
                       f'annotations: {some(wrong)}')
    for name, ids in (('with a side below one pixel or without area, left out', flat),
                      ('outside of the image, left out', outside),
                      ('more than one pixel beyond the border', over)):
        if ids:
            findings.warning(f'{number(len(ids), "box")} {name}: annotations {some(ids)}')
    if len(over) + len(outside) > len(annotations) / 10:
        findings.error('more than a tenth of the boxes leave their image: are they [x1, y1, x2, y2]? '
                       'They must be [x, y, width, height]')
    if annotations and not (wrong or flat or outside or over):
        findings.ok('every box lies in its image')


def check_masks(annotations, findings):
    """mmdet stops at a box without a mask when it loads masks, and ignores polygons of two corners."""
    missing = [entry['id'] for entry in annotations if not entry.get('segmentation')]
    if missing:
        findings.error(f'{number(len(missing), "box")} without segmentation, and this config trains masks: '
                       f'annotations {some(missing)}')
    short = [entry['id'] for entry in annotations if isinstance(entry.get('segmentation'), list)
             and entry['segmentation'] and not any(map(is_polygon, entry['segmentation']))]
    if short:
        findings.warning(f'{number(len(short), "mask")} ignored, as no polygon is a list x, y, x, y, ... of three or '
                         f'more corners: annotations {some(short)}')
    if annotations and not (missing or short):
        findings.ok('every box has a mask')


def is_polygon(part):
    return isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0


def check_images_have_boxes(dataset, by_id, annotations, findings):
    if dataset.test_mode or not by_id:
        return
    empty = [by_id[key]['file_name'] for key in by_id.keys() - {entry['image_id'] for entry in annotations}]
    if len(empty) == len(by_id):
        findings.error('no image has a box')
    elif empty:
        left_out = ', left out by filter_cfg' if (dataset.filter_cfg or {}).get('filter_empty_gt') else ''
        findings.ok(f'{number(len(empty), "image")} without a box{left_out}: {some(sorted(empty))}')


def check_files(dataset, setting, images, findings, most):
    """Are the images there, and of the size that the annotations say?"""
    folder = dataset.data_prefix['img']
    if not images:
        findings.error('the annotation file lists no image')
        return
    present = files_below(folder)
    entries = {osp.normpath(image['file_name']): image for image in images}
    missing = sorted(name for name in entries.keys() - present if not osp.isfile(osp.join(folder, name)))
    if missing:
        findings.error(f'{len(missing)} of {number(len(images), "image")} missing in {folder}: {some(missing)}; '
                       f'see {setting}.data_prefix.img')
    unused = sorted(present - entries.keys())
    if unused:
        findings.warning(f'{number(len(unused), "file")} in {folder} not in the annotation file: {some(unused)}')
    sample = spread(sorted(entries.keys() - set(missing)), most)
    damaged, wrong = [], []
    for name in watched(sample, 'reading images'):
        image, entry = readable(osp.join(folder, name), damaged), entries[name]
        if image is not None and image.size != (entry['width'], entry['height']):
            wrong.append(f'{name} {image.width}x{image.height}, annotated as {entry["width"]}x{entry["height"]}')
    report_damage(damaged, findings)
    if wrong:
        findings.error(f'{number(len(wrong), "image")} of another size than annotated: {some(wrong)}')
    if sample and not (damaged or wrong):
        findings.ok(f'{folder}: {len(sample)} of {number(len(images), "image")} read, of the size that is annotated')
