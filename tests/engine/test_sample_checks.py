"""Files that a run does not read, or reads in its own way, stop none."""
import json
import struct
from types import SimpleNamespace

import mmcv
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import nn

from mmacmix.engine import SetupError
from mmacmix.engine.image_files import read_image
from mmacmix.engine.sample_checks import check_categories, check_samples, check_something
from mmacmix.engine.start_check import ignored_labels

WHERE = 'train_dataloader.dataset'


def step(name, module='mmseg.datasets', **attributes):
    return type(name, (), dict(attributes, __module__=module))()


class Segments(list):
    reduce_zero_label, label_map, ignore_index, metainfo = False, None, 255, dict(classes=('a', 'b'))

    def __init__(self, folder, labels, *steps, size=(4, 4)):
        super().__init__([dict(img_path=str(folder / '0.png'), seg_map_path=str(folder / 'labels.png'))])
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(folder / '0.png')
        if labels is not None:
            Image.fromarray(np.asarray(labels, np.uint8)).save(folder / 'labels.png')
        self.pipeline = SimpleNamespace(transforms=steps)

    def get_data_info(self, i):
        return self[i]


LOAD = step('LoadAnnotations')


@pytest.mark.parametrize('steps', [(), (step('LoadColours', 'mine'),), (step('LoadAnnotations', 'mine'),)])
@pytest.mark.parametrize('labels', [None, [[[0, 0, 0]] * 4] * 4])
def test_label_maps_that_no_step_of_mmseg_reads(tmp_path, labels, steps):
    data = Segments(tmp_path, labels, *steps)
    check_samples(data, WHERE, training=True)
    check_something([(WHERE, data)])
    with pytest.raises(SetupError):
        check_samples(Segments(tmp_path, labels, LOAD), WHERE, training=True)


def test_labels_that_a_head_ignores(tmp_path):
    head = nn.Module()
    head.ignore_index = 2
    model = nn.Module()
    model.decode_head = head
    ignored = ignored_labels(model, SimpleNamespace(metrics=[SimpleNamespace(ignore_index=255)]))
    assert ignored == [2, 255]
    data = Segments(tmp_path, [[0, 1, 2, 2]] * 4, LOAD)
    check_samples(data, WHERE, True, ignored)
    check_something([(WHERE, data)], ignored)
    with pytest.raises(SetupError, match='labels are 0 to 1 and 255'):
        check_samples(data, WHERE, True)


def test_a_part_of_the_data_may_have_no_labels(tmp_path):
    (tmp_path / 'other').mkdir()
    ignored, labelled = (Segments(folder, np.full((4, 4), label), LOAD)
                         for folder, label in ((tmp_path, 255), (tmp_path / 'other', 1)))
    check_something([(WHERE, ignored), (WHERE, labelled)])
    with pytest.raises(SetupError, match='must have a pixel of a class, got none in 1 of 1'):
        check_something([(WHERE, ignored)])


@pytest.mark.parametrize('options, turned', [
    (dict(), True), (dict(color_type='unchanged'), False), (dict(color_type='color_ignore_orientation'), False),
    (dict(imdecode_backend='turbojpeg'), False)])
def test_exif_counts_where_it_is_applied(tmp_path, options, turned):
    data = Segments(tmp_path, np.zeros((6, 4)), step('LoadImageFromFile', 'mmcv.transforms', **options), LOAD)
    image = Image.fromarray(np.zeros((6, 4, 3), np.uint8))
    exif = image.getexif()
    exif[0x112] = 6
    image.save(tmp_path / '0.png', exif=exif)
    if turned:
        with pytest.raises(SetupError, match='got 4x6 for an image of 6x4'):
            check_samples(data, WHERE, True)
    else:
        check_samples(data, WHERE, True)


def test_a_step_of_ones_own_that_loads_images(tmp_path):
    data = Segments(tmp_path, None, step('LoadImageFromFile', 'mine'))
    (tmp_path / '0.png').write_bytes(b'')
    check_samples(data, WHERE, True)


def test_long_texts_in_a_png(tmp_path):
    info = PngInfo()
    info.add_text('x', 'a' * 3 * 2**20, zip=True)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / '0.png', pnginfo=info)
    assert read_image(str(tmp_path / '0.png')).size == (4, 4)


@pytest.mark.parametrize('names, found, right', [
    ('ab', [0, 1], True), ('abx', [0, 1], True), ('bc', [0, 1], False), ('ac', [0, 1], False), ('xyz', [], False)])
def test_files_without_some_classes(tmp_path, names, found, right):
    categories = [dict(id=i, name=name) for i, name in enumerate(names)]
    (tmp_path / 'a.json').write_text(json.dumps(dict(categories=categories, annotations=[1])))
    data = step('CocoDataset', 'mmdet.datasets', ann_file=str(tmp_path / 'a.json'), cat_ids=found,
                metainfo=dict(classes=('a', 'b', 'c')))
    if right:
        check_categories(data, WHERE)
    else:
        with pytest.raises(SetupError, match='metainfo.classes must be among the categories of'):
            check_categories(data, WHERE)


@pytest.mark.parametrize('orientation', range(10))
def test_images_are_turned_as_the_hosts_turn_them(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = orientation, 'a camera'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 16, 3), 'uint8')).save(tmp_path / 'a.jpg', exif=exif)
    ours = np.asarray(read_image(tmp_path / 'a.jpg'), int)
    assert np.abs(ours - mmcv.imread(tmp_path / 'a.jpg', channel_order='rgb')).max() < 9


def test_exif_that_cannot_be_written_again(tmp_path):
    """As cameras write it, with a text where a ratio belongs: it is the hosts' business no more than ours."""
    entries = [(0x0112, 3, 1, struct.pack('<HH', 6, 0)), (0x011A, 2, 3, b'72\0\0')]
    ifd = struct.pack('<H', len(entries)) + b''.join(struct.pack('<HHI', *entry[:3]) + entry[3] for entry in entries)
    exif = b'Exif\0\0II*\0' + struct.pack('<I', 8) + ifd + struct.pack('<I', 0)
    Image.new('RGB', (16, 8)).save(tmp_path / 'a.jpg', exif=exif)
    assert read_image(tmp_path / 'a.jpg').size == mmcv.imread(tmp_path / 'a.jpg').shape[1::-1] == (8, 16)
