"""Checks of a data set in ADE20K's layout: a folder of images and a folder of label maps of the same names."""
import os.path as osp

import numpy as np
from findings import number, some
from image_checks import files_below, readable, report_damage, spread, watched

from mmacmix.engine.sample_checks import out_of_range, target


def check_label_maps(dataset, setting, findings, most, expected=None):
    """Check one data set.

    Args:
        dataset: The data set of mmseg, built lazily.
        setting: Where it stands in the config.
        findings: Takes what is found.
        most: How many pairs to read; None for all.
        expected: Number of images of a well-known data set.
    """
    if not dataset.metainfo.get('classes'):
        findings.error(f'the data set has no classes: set {setting}.metainfo.classes')
        return
    pairs = {entry['img_path']: entry.get('seg_map_path') for entry in dataset.load_data_list()}
    images, maps = (dataset.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
    if not pairs:
        suffixes = sorted({osp.splitext(name)[1] for name in files_below(images)})
        there = f'the files there end with {some(suffixes)}' if suffixes else 'which is empty'
        findings.error(f'no image *{dataset.img_suffix} in {images}, {there}; '
                       f'see {setting}.img_suffix and .data_prefix.img_path')
        return
    findings.ok(f'{images}: {number(len(pairs), "image")} *{dataset.img_suffix}')
    if expected and expected != len(pairs):
        findings.error(f'{images} must have {expected} images, got {len(pairs)}: is it whole?')
    if maps is None:
        findings.warning('no label maps (data_prefix.seg_map_path): images can be predicted, not trained or evaluated')
        return
    whole = check_pairs(dataset, setting, pairs, images, maps, findings)
    check_content(dataset, setting, spread(whole, most), len(pairs), findings)


def check_pairs(dataset, setting, pairs, images, maps, findings):
    """The pairs of which both files are there."""
    lost = sorted(image for image in pairs if not osp.isfile(image))
    if lost:
        findings.error(f'{number(len(lost), "image")} of {dataset.ann_file} missing: {some(lost)}')
    bare = sorted(image for image, labels in pairs.items() if not osp.isfile(labels))
    if bare:
        findings.error(f'{len(bare)} of {number(len(pairs), "image")} without label map *{dataset.seg_map_suffix} '
                       f'in {maps}: {some(osp.relpath(image, images) for image in bare)}; '
                       f'see {setting}.seg_map_suffix and .data_prefix.seg_map_path')
    wanted = {osp.relpath(path, folder) for paths, folder in ((pairs, images), (pairs.values(), maps))
              for path in paths}
    for folder in sorted({images, maps}):
        unused = sorted(files_below(folder) - wanted)
        if unused and not dataset.ann_file:
            findings.warning(f'{number(len(unused), "file")} in {folder} belonging to no pair: {some(unused)}')
    whole = sorted((image, labels) for image, labels in pairs.items() if {image, labels}.isdisjoint(lost + bare))
    if len(whole) == len(pairs):
        findings.ok(f'{maps}: one label map for every image')
    return whole


def check_content(dataset, setting, pairs, total, findings):
    """Can the files be read, have they one size, and are the labels those of the classes?"""
    damaged, coloured, sizes, seen, pixels = [], [], [], {}, {}
    for image_path, path in watched(pairs, 'reading images and label maps'):
        image, labels = readable(image_path, damaged), readable(path, damaged)
        if labels is None:
            continue
        if image is not None and image.size != labels.size:
            sizes.append(f'{path} {labels.width}x{labels.height}, its image {image.width}x{image.height}')
        values = np.asarray(labels)
        if values.ndim != 2:
            coloured.append(f'{path} ({labels.mode})')
            continue
        for value, count in zip(*np.unique(values, return_counts=True)):
            seen.setdefault(int(value), []).append(path)
            pixels[int(value)] = pixels.get(int(value), 0) + int(count)
    report_damage(damaged, findings)
    if sizes:
        findings.error(f'{number(len(sizes), "label map")} of another size than the image: {some(sizes)}')
    if coloured:
        findings.error(f'{number(len(coloured), "label map")} with several channels, where one of labels is needed: '
                       f'{some(coloured)}')
    if pixels:
        check_labels(dataset, setting, seen, pixels, complete=len(pairs) == total, findings=findings)
    if pairs and not (damaged or sizes or coloured):
        findings.ok(f'{len(pairs)} of {number(total, "pair")} read, of equal sizes, with one channel')


def check_labels(dataset, setting, seen, pixels, complete, findings):
    classes = dataset.metainfo['classes']
    targets = {value: target(dataset, value) for value in seen}
    wrong = [value for value, label in sorted(targets.items()) if label is None]
    if wrong:
        listed = (f'{value} (in {len(seen[value])} files, first {seen[value][0]})' for value in wrong)
        findings.error(f'{number(len(wrong), "label")} out of range: {some(listed)}; {out_of_range(dataset)}: '
                       f'see {setting}.metainfo.classes and .reduce_zero_label')
    ignored = sum(pixels[value] for value, label in targets.items() if label == dataset.ignore_index)
    share = ignored / sum(pixels.values())
    zeros = ' (label 0 is: reduce_zero_label=True)' if dataset.reduce_zero_label else ''
    message = f'{100 * share:.1f} % of the pixels are ignored{zeros}'
    if share > 0.5:
        findings.warning(f'{message}; if 0 is a class, set {setting}.reduce_zero_label=False')
    else:
        findings.ok(message)
    absent = [name for label, name in enumerate(classes) if label not in targets.values()]
    if complete and absent:
        findings.warning(f'{number(len(absent), "class")} in no label map: {some(absent)}')
