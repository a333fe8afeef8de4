"""Generate the demo's data set: textured shapes on backgrounds, for COCO and ADE20K readers.

    python tools/demo/make_dataset.py --out data/demo

writes the same images twice:

    OUT/coco/{train2017,val2017}/000001.jpg
    OUT/coco/annotations/instances_{train2017,val2017}.json
    OUT/ade/images/{training,validation}/000001.jpg
    OUT/ade/annotations/{training,validation}/000001.png
    OUT/manifest.json

The boxes and masks (RLE) enclose what is visible of a shape. In the label maps 0 ("other", ignored
in training and evaluation) does not occur: 1 is the background, a class like any other, and 2 and
above are the shapes.

The same settings give the same bytes with the same numpy and OpenCV. A finished data set is reused,
one made with other settings is made anew; nothing is ever half written under OUT.
"""

import argparse
import json
import os
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
from scenes import make_scene
from shapes import CLASSES

# Part of the manifest: raise it when the images change, and older data sets are made anew.
VERSION = 2
SPLITS = {'train': ('train2017', 'training'), 'val': ('val2017', 'validation')}
_JPEG_QUALITY = 92


def make_dataset(out, train=600, val=100, size=128, seed=0):
    """Generate the data set unless it is there already.

    Args:
        out (str | pathlib.Path): Folder to make; its parent need not exist.
        train (int): Number of training images, at least 1.
        val (int): Number of held-out images, at least 1.
        size (int): Height and width of the images in pixels, at least 32.
        seed (int): Not negative; selects the data set.

    Returns:
        bool: Whether images were drawn (False: a finished data set was reused).

    Raises:
        TypeError: If a number is no int.
        ValueError: If a number is out of range, or if ``out`` holds something else.
    """
    settings = _check(train=(train, 1), val=(val, 1), size=(size, 32), seed=(seed, 0))
    manifest = {'version': VERSION, **settings, 'classes': ['background', *CLASSES]}
    out = Path(out).absolute()
    if is_complete(out, manifest):
        print(f'Reusing the finished data set in {out}')
        return False
    if out.exists() and not _is_ours(out):
        raise ValueError(
            f'out must be a new or empty folder, or an earlier demo data set, got out={str(out)!r}'
        )

    # A sibling folder lies on the same file system, so that the final rename is one step.
    partial = out.parent / f'.{out.name}.partial'
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(partial, manifest)
        if out.exists():
            shutil.rmtree(out)
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return True


def is_complete(out, manifest):
    """Whether ``out`` holds every file of the data set that the manifest describes."""
    try:
        found = json.loads((out / 'manifest.json').read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False
    if found != manifest:
        return False
    files = [out / 'coco/annotations' / f'instances_{coco}.json' for coco, _ in SPLITS.values()]
    for split, (coco, ade) in SPLITS.items():
        for number in range(1, manifest[split] + 1):
            files.append(out / 'coco' / coco / f'{number:06d}.jpg')
            files.append(out / 'ade/images' / ade / f'{number:06d}.jpg')
            files.append(out / 'ade/annotations' / ade / f'{number:06d}.png')
    return all(file.is_file() for file in files)


def coco_annotation(owner, index, label, image_id, annotation_id):
    """The COCO entry of one shape.

    Args:
        owner (numpy.ndarray): Shape (H, W): which shape each pixel shows.
        index (int): The value of this shape in ``owner``.
        label (int): Index into ``CLASSES``; the category id is one more.
        image_id (int): Of the image.
        annotation_id (int): Unique over the file.

    Returns:
        dict: Mask (RLE), area and box [x, y, width, height] of the visible part.
    """
    from pycocotools import mask as rle

    visible = owner == index
    rows, columns = np.nonzero(visible)
    left, top = int(columns.min()), int(rows.min())
    encoded = rle.encode(np.asfortranarray(visible.astype(np.uint8)))
    return {
        'id': annotation_id,
        'image_id': image_id,
        'category_id': label + 1,
        'iscrowd': 0,
        'area': int(visible.sum()),
        'bbox': [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1],
        'segmentation': {'size': list(visible.shape), 'counts': encoded['counts'].decode('ascii')},
    }


def label_map(scene):
    """The labels of a scene, uint8: 1 for the background, 2 + index into ``CLASSES`` for shapes."""
    lookup = np.array([1, *(label + 2 for label in scene.labels)], dtype=np.uint8)
    return lookup[scene.owner]


def _check(**ranges):
    values = {}
    for name, (value, lowest) in ranges.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f'{name} must be an int, got {name}={value!r}')
        if value < lowest:
            raise ValueError(f'{name} must be at least {lowest}, got {name}={value}')
        values[name] = value
    return values


def _is_ours(out):
    return out.is_dir() and ((out / 'manifest.json').is_file() or not any(out.iterdir()))


def _write(out, manifest):
    from mmengine.utils import ProgressBar

    print(f'Drawing {manifest["train"]} training and {manifest["val"]} held-out images')
    bar = ProgressBar(manifest['train'] + manifest['val'], file=sys.stdout)
    for split in SPLITS:
        _write_split(out, split, manifest, bar.update)
    print()
    # Written last: without it the folder does not count as a data set.
    (out / 'manifest.json').write_text(json.dumps(manifest, indent=1) + '\n')


def _write_split(out, split, manifest, advance):
    size, seed = manifest['size'], manifest['seed']
    coco, ade = SPLITS[split]
    folders = [
        out / 'coco' / coco,
        out / 'ade/images' / ade,
        out / 'ade/annotations' / ade,
        out / 'coco/annotations',
    ]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for number in range(1, manifest[split] + 1):
        # One generator an image: the first images stay the same when more are asked for.
        scene = make_scene(size, np.random.default_rng([seed, list(SPLITS).index(split), number]))
        name = f'{number:06d}.jpg'
        _save(folders[0] / name, scene.image[..., ::-1])
        shutil.copyfile(folders[0] / name, folders[1] / name)
        _save(folders[2] / f'{number:06d}.png', label_map(scene))
        images.append({'id': number, 'file_name': name, 'height': size, 'width': size})
        for index, label in enumerate(scene.labels, start=1):
            annotations.append(
                coco_annotation(scene.owner, index, label, number, len(annotations) + 1)
            )
        advance()
    categories = [{'id': index, 'name': name} for index, name in enumerate(CLASSES, start=1)]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    (folders[3] / f'instances_{coco}.json').write_text(json.dumps(content))


def _save(path, pixels):
    # cv2.imwrite only returns False when it cannot write; encoding apart gives a real error.
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == '.jpg' else []
    path.write_bytes(cv2.imencode(path.suffix, np.ascontiguousarray(pixels), options)[1].tobytes())


def parse_args(argv=None):
    parser = argparse.ArgumentParser(
        description='Generate the demo data set (COCO and ADE20K formats).'
    )
    parser.add_argument('--out', default='data/demo', help='folder to make (default: %(default)s)')
    parser.add_argument(
        '--train', type=int, default=600, help='training images (default: %(default)s)'
    )
    parser.add_argument(
        '--val', type=int, default=100, help='held-out images (default: %(default)s)'
    )
    parser.add_argument(
        '--size', type=int, default=128, help='height and width in pixels (default: %(default)s)'
    )
    parser.add_argument(
        '--seed', type=int, default=0, help='selects the data set (default: %(default)s)'
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse_args(argv)
    try:
        make_dataset(args.out, args.train, args.val, args.size, args.seed)
    except ValueError as error:
        print(f'make_dataset.py: error: {error}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
