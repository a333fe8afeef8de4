"""What good data have is never refused, and large files are looked at quickly."""
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mmacmix.engine import SetupError, annotation_checks
from mmacmix.engine.annotation_checks import (
    check_annotations,
    check_boxes,
    check_content,
    check_masks,
    check_size,
    check_some_box,
)

WHERE = 'train_dataloader.dataset'


def content(*boxes, size=(640, 480), **entry):
    images = [dict(id=i, file_name=f'{i}.jpg', width=size[0], height=size[1]) for i in range(3)]
    entries = [dict(dict(id=i, image_id=0, category_id=1, bbox=box, area=box[2] * box[3]), **entry)
               for i, box in enumerate(boxes)]
    return dict(images=images, annotations=entries, categories=[dict(id=1, name='dark')])


@pytest.mark.parametrize('right', [
    content([0, 0, 640, 480], [600, 440, 40.4, 40.3]),
    content([5, 5, 0, 7], [5, 5, 20, 20], [639.9, 3, 0.2, 30]),
    content([5, 5, 20, 20], [700, 5, 20, 20], [-30, 5, 20, 20]),
    content([300, 200, 400, 300], [-20, 10, 30, 30], [250, 100, 20, 20]),  # hidden parts are annotated too
    content([0.1, 0.1, 0.5, 0.5], [3, 3, 20, 20]),
    content([5, 5, 20, 20], iscrowd=1, segmentation=dict(size=[480, 640], counts=[1, 2])),
    content(),
    content([0, 0, float('nan'), 0], ignore=True),
    dict(content([5, 5, 20, 20]), images=content()['images'] * 2),
])
def test_annotations_that_are_right(right):
    check_content(right, SimpleNamespace(ann_file='a.json'), WHERE)


def test_a_few_boxes_are_not_enough_to_tell_corners():
    boxes = np.random.default_rng(0).uniform((60, 60, 20, 20), (140, 140, 100, 100), (100, 4))
    sizes = np.full((100, 2), 240.)
    check_boxes(boxes, sizes, boxes[:, 2] * boxes[:, 3], 'a.json')
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    with pytest.raises(SetupError, match=r'they are \[x1, y1, x2, y2\]$'):
        check_boxes(corners, sizes, corners[:, 2] * corners[:, 3], 'a.json')
    check_boxes(corners[:9], sizes[:9], np.ones(9), 'a.json')
    large = np.tile([4., 3, 62, 63], (20, 1))  # a little over the edge
    check_boxes(large, np.full((20, 2), 64.), np.ones(20), 'a.json')


def test_masks_that_are_right():
    polygon, run_lengths = [[1, 2, 3, 4, 5, 6]], dict(size=[4, 4], counts='ab')
    infos = [dict(instances=[dict(mask=polygon), dict(mask=run_lengths), dict(mask=[[1, 2, 3, 4]])]), dict()]
    check_masks(infos, WHERE)


def test_sizes_that_are_right():
    for info in (dict(width=4, height=6), dict(), dict(width=None, height=6)):
        check_size(info, (4, 6), WHERE)
    check_size(dict(width=4, height=6), None, WHERE)


class CocoDataset(list):
    """What CocoDataset of mmdet makes of an annotation file."""

    metainfo = dict(classes=('dark',))

    def get_data_info(self, i):
        return self[i]

    def load_data_list(self):
        return self

    def parse_data_info(self, info):
        return info


@pytest.mark.parametrize('number, message', [(float('nan'), 'four finite numbers'), (3, None)])
def test_large_files_are_read_again_only_if_they_have_nan(tmp_path, monkeypatch, number, message):
    monkeypatch.setattr(annotation_checks, 'WHOLE', 0)
    dataset = CocoDataset([dict(instances=[]), dict(instances=[dict(bbox=[1, 2, 3, 4])])])
    dataset.ann_file = str(tmp_path / 'a.json')
    (tmp_path / 'a.json').write_text(json.dumps(content([1, 2, number, 4])))
    if message:
        with pytest.raises(SetupError, match=message):
            check_annotations(dataset, WHERE)
    else:
        monkeypatch.setattr(json, 'load', None)
        check_annotations(dataset, WHERE)


def test_no_box_at_all():
    with pytest.raises(SetupError, match=f'^{WHERE} must have a box that can be trained, got none in 2 images: '):
        check_some_box([(WHERE, CocoDataset([dict(instances=[])] * 2))])
    check_some_box([(WHERE, [])])


def test_a_part_of_the_data_may_be_background():
    background, boxes = CocoDataset([dict(instances=[])] * 2), CocoDataset([dict(instances=[dict(bbox=[1, 2, 3, 4])])])
    check_some_box([(WHERE, background), (WHERE, boxes)])


def test_a_hundred_thousand_boxes_take_a_second_at_most():
    boxes = [[5., 5., 20., 20.]] * 100_000
    file = content(*boxes)
    before = time.perf_counter()
    check_content(file, SimpleNamespace(ann_file='a.json'), WHERE)
    assert time.perf_counter() - before < 3
