"""tools/dataset_converters/check_dataset.py: what it says of whole and of broken data."""
import json
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image


@pytest.fixture()
def tool(monkeypatch, load_tool):
    return load_tool('dataset_converters/check_dataset', monkeypatch)


@pytest.fixture()
def check(tool, capsys):
    """check(*args) runs the tool; returns the exit code and the lines that are no 'ok'."""

    def call(*args):
        with pytest.raises(SystemExit) as stop:
            tool.main([str(arg) for arg in args])
        printed = capsys.readouterr()
        lines = [' '.join(line.split()) for line in printed.out.splitlines()]
        return stop.value.code, [line for line in lines if line.startswith(('error', 'warning'))], printed

    return call


@pytest.fixture()
def detection(own_config, coco, tmp_path):
    """A config of a detector with masks, whose data lie in `root`, to be broken."""
    root = tmp_path / 'coco'
    shutil.copytree(coco, root)
    text = own_config('mask_rcnn').read_text().replace(str(coco), str(root))
    path = tmp_path / 'config.py'
    path.write_text(text)
    return path, root


@pytest.fixture()
def segmentation(own_config, ade, tmp_path):
    root = tmp_path / 'ade'
    shutil.copytree(ade, root)
    path = tmp_path / 'config.py'
    path.write_text(own_config('fpn').read_text().replace(str(ade), str(root)))
    return path, root


def test_whole_data(check, detection, segmentation):
    for path, _ in (detection, segmentation):
        code, problems, printed = check(path)
        assert (code, problems) == (0, [])
        assert '0 errors, 0 warnings' in printed.out
        assert 'test_dataloader.dataset: the same as val_dataloader.dataset' in printed.out


def edit(root, change, split='train2017'):
    """Change the content of an annotation file."""
    path = root / 'annotations' / f'instances_{split}.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def fault(kind, **values):
    """Set fields of the second entry of a table."""
    return lambda content: content[kind][1].update(values)


WIDE, SQUARE = 'annotations 2', [1, 1, 9, 1, 9, 9]
COCO_FAULTS = [
    (fault('images', file_name='gone.jpg'),
     'error 1 of 2 images missing in {root}/train2017/: gone.jpg; see train_dataloader.dataset.data_prefix.img'),
    (fault('images', file_name='gone.jpg'),
     'warning 1 file in {root}/train2017/ not in the annotation file: 1.jpg'),
    (fault('images', id=0), 'error 1 id used more than once in images: 0'),
    (fault('images', id=0), 'error 1 image_id of annotations not among images: 1'),
    (fault('annotations', id=1), 'error 1 id used more than once in annotations: 1'),
    (fault('images', file_name='0.jpg'), 'warning 1 file listed more than once: 0.jpg'),
    (fault('annotations', category_id=7), 'error 1 category_id of annotations not among categories: 7'),
    (fault('images', width=32), 'error 1 image of another size than annotated: 1.jpg 64x64, annotated as 32x64'),
    (fault('annotations', bbox=[1, 2, 3]),
     'error bbox must be four finite numbers [x, y, width, height]; it is not in 1 annotations: 2'),
    (fault('annotations', bbox=[1, 2, 3, float('nan')]), 'it is not in 1 annotations: 2'),
    (fault('annotations', bbox=[1, 2, 0, 9]),
     'warning 1 box with a side below one pixel or without area, left out: annotations 2'),
    (fault('annotations', area=0), 'without area, left out: annotations 2'),
    (fault('annotations', bbox=[64, 2, 9, 9]), 'warning 1 box outside of the image, left out: annotations 2'),
    (fault('annotations', bbox=[60, 2, 9, 9]), 'warning 1 box more than one pixel beyond the border: annotations 2'),
    (fault('annotations', bbox=[60, 2, 9, 9]), 'error more than a tenth of the boxes leave their image: '
     'are they [x1, y1, x2, y2]? They must be [x, y, width, height]'),
    (fault('annotations', segmentation=[]),
     'error 1 box without segmentation, and this config trains masks: annotations 2'),
    (fault('annotations', segmentation=[[1, 2, 3, 4]]), 'warning 1 mask ignored, as no polygon is a list'),
    (fault('annotations', bbox='left'), 'bbox missing or of a wrong type in 1 of 4 annotations, first in'),
    (fault('images', width=None), 'width missing or of a wrong type in 1 of 2 images, first in'),
    (fault('categories', name=3), 'name missing or of a wrong type in 1 of 2 categories, first in'),
    (lambda content: content['annotations'][1].pop('area'), 'area missing or of a wrong type in 1 of 4 annotations'),
    (lambda content: content['annotations'].append(3), 'id missing or of a wrong type in 1 of 5 annotations'),
    (lambda content: content.pop('images'),
     'must hold lists of images, annotations and categories, got no list of images'),
    (lambda content: content['images'].clear(), 'error the annotation file lists no image'),
    (lambda content: content['annotations'].clear(), 'error no image has a box'),
    (fault('categories', name='bright'),
     'error 1 class not among the categories of the file: light; the file has dark, bright: set '
     'train_dataloader.dataset.metainfo.classes'),
    (lambda content: content['categories'].reverse(),
     'error classes must be in the order of the file, light, dark, got dark, light: boxes would be called by '
     'wrong names; set train_dataloader.dataset.metainfo.classes'),
    (lambda content: content['categories'].append(dict(id=9, name='odd')), 'warning classes of the file that are left '
     'out, as train_dataloader.dataset.metainfo.classes does not name them: 1: odd'),
    (lambda content: [entry.update(category_id=1) for entry in content['annotations']],
     'warning 1 class without a box: light'),
]


@pytest.mark.parametrize('change, message', COCO_FAULTS)
def test_faults_of_an_annotation_file(check, detection, change, message):
    path, root = detection
    edit(root, change)
    code, problems, _ = check(path)
    assert any(message.format(root=root) in line for line in problems), problems
    assert code == any(line.startswith('error') for line in problems)


def test_an_annotation_file_that_is_no_json(check, detection):
    path, root = detection
    (root / 'annotations' / 'instances_train2017.json').write_text('{"images": [')
    code, problems, _ = check(path)
    assert code == 1 and len(problems) == 1
    assert 'cannot be read as JSON (Expecting value: line 1 column 13' in problems[0]


def test_the_evaluation_needs_iscrowd(check, detection):
    path, root = detection
    for split, expected in (('train2017', 0), ('val2017', 1)):
        edit(root, lambda content: content['annotations'][0].pop('iscrowd'), split)
        code, problems, _ = check(path)
        assert code == expected
    assert 'iscrowd missing or of a wrong type in 1 of 4 annotations' in problems[0]


def test_test_data_may_have_no_annotations(check, detection, tmp_path):
    path, root = detection
    shutil.copy(root / 'annotations' / 'instances_val2017.json', root / 'annotations' / 'test.json')
    edit(root, lambda content: None)
    content = json.loads((root / 'annotations' / 'test.json').read_text())
    content.pop('annotations')
    (root / 'annotations' / 'test.json').write_text(json.dumps(content))
    code, problems, _ = check(path, '--cfg-options', 'test_dataloader.dataset.ann_file=annotations/test.json',
                              f'test_evaluator.ann_file={root}/annotations/test.json')
    assert code == 0
    assert problems == [f'warning {root}/annotations/test.json has no annotations: images can be predicted '
                        '(format_only=True), not evaluated']


def test_images_without_boxes_are_counted(check, detection):
    path, root = detection
    edit(root, lambda content: content.update(annotations=content['annotations'][:2]))
    code, problems, printed = check(path)
    assert (code, problems) == (0, [])
    assert '1 image without a box, left out by filter_cfg: 1.jpg' in printed.out


@pytest.mark.parametrize('content, reason', [
    (b'', 'is an empty file'), (b'hello', 'is no image'), (None, 'is damaged or cannot be read (image file is trunc')])
def test_damaged_images(check, detection, content, reason):
    path, root = detection
    image = root / 'train2017' / '0.jpg'
    image.write_bytes(image.read_bytes()[:-600] if content is None else content)
    code, problems, _ = check(path)
    assert code == 1
    assert f'error 1 file not readable: {image} {reason}' in problems[0]


def test_a_sample_is_read_or_everything(check, detection):
    path, root = detection
    (root / 'train2017' / '1.jpg').write_text('no image')
    assert check(path, '--sample', 1)[0] == 0
    assert check(path, '--full', '--sample', 1)[0] == 1


def test_missing_paths_are_all_named(check, detection):
    path, root = detection
    shutil.rmtree(root / 'train2017')
    (root / 'annotations' / 'instances_val2017.json').unlink()
    code, problems, _ = check(path)
    lost = f'{root}/annotations/instances_val2017.json does not exist: set'
    assert (code, problems) == (1, [
        f'error {root}/train2017/ does not exist: set train_dataloader.dataset.data_prefix.img',
        f'error {lost} val_dataloader.dataset.ann_file', f'error {lost} val_evaluator.ann_file',
        f'error {lost} test_evaluator.ann_file'])
    code, problems, _ = check(path, '--cfg-options', 'train_dataloader.dataset.data_root=/no/where')
    assert problems[0] == 'error /no/where does not exist: set train_dataloader.dataset.data_root'
    assert 'train_dataloader' not in problems[1]


def test_the_metric_must_read_the_same_annotations(check, detection):
    path, root = detection
    other = f'{root}/annotations/instances_train2017.json'
    code, problems, _ = check(path, '--cfg-options', f'val_evaluator.ann_file={other}')
    assert (code, problems) == (1, [
        f'error {other} is not the annotation file of val_dataloader: set val_evaluator.ann_file'])


def test_the_model_must_have_the_classes_of_the_data(check, detection, segmentation):
    code, problems, _ = check(detection[0], '--cfg-options', 'model.roi_head.mask_head.num_classes=80')
    assert code == 1 and len(problems) == 2  # of the training and of the validation
    assert problems[0] == ('error the model must have the 2 classes of train_dataloader.dataset, '
                           'got model.roi_head.mask_head.num_classes=80')
    code, problems, _ = check(segmentation[0], '--cfg-options', 'model.decode_head.num_classes=150')
    assert 'got model.decode_head.num_classes=150' in problems[0]


@pytest.mark.parametrize('model', [
    dict(rpn_head=dict(type='GARPNHead', num_classes=1), bbox_head=dict(num_classes=2)),
    dict(type='RPN', bbox_head=dict(type='mmdet.RPNHead', num_classes=1)),
    dict(roi_head=dict(semantic_head=dict(num_classes=183), bbox_head=[dict(num_classes=2), dict(num_classes=2)])),
    dict(semantic_head=dict(num_classes=54), roi_head=dict(bbox_head=dict(num_classes=80))),
    dict(roi_head=dict(bbox_head=dict(num_classes=1, class_agnostic=True))),
    dict(student=dict(bbox_head=dict(num_classes=3)), loss=[dict(num_classes=3)]),
    dict(decode_head=dict(num_classes=4, loss_decode=[dict(type='CrossEntropyLoss', use_sigmoid=True)])),
    dict(decode_head=dict(type='Mask2FormerHead', num_classes=4)),
])
def test_heads_that_count_something_else(tool, model):
    assert all(value == 2 for _, value in tool.numbers_of_classes(model))


def test_heads_that_count_classes(tool):
    model = dict(bbox_head=dict(type='RetinaHead', num_classes=3), mask_head=dict(num_classes=4),
                 roi_head=dict(bbox_head=[dict(num_classes=5), dict(num_classes=6)], mask_head=dict(num_classes=7)),
                 auxiliary_head=[dict(num_classes=8, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False))])
    assert [value for _, value in tool.numbers_of_classes(model)] == [3, 4, 5, 6, 7, 8]


def test_data_in_wrappers(check, detection):
    path, root = detection
    with open(path, 'a') as file:
        file.write(f'''
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=2, dataset=dict(
    type='CocoDataset', data_root='{root}', ann_file='gone.json', pipeline=[])))
''')
    assert check(path)[1][0] == (
        f'error {root}/gone.json does not exist: set train_dataloader.dataset.dataset.ann_file')


def repaint(path, value, size=4):
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    labels[:size, :size] = value
    cv2.imwrite(str(path), labels)


def test_faults_of_label_maps(check, segmentation):
    path, root = segmentation
    maps, images = root / 'annotations' / 'training', root / 'images' / 'training'
    where = 'train_dataloader.dataset'

    repaint(maps / '0.png', 255)
    assert check(path)[:2] == (0, [])
    repaint(maps / '0.png', 3)
    code, problems, _ = check(path)
    assert (code, problems) == (1, [
        f'error 1 label out of range: 3 (in 1 files, first {maps}/0.png); with 2 classes and reduce_zero_label=True, '
        f'labels are 1 to 2, 0 (ignored) and 255 (ignored): see {where}.metainfo.classes and .reduce_zero_label'])
    code, problems, _ = check(path, '--cfg-options', f'{where}.reduce_zero_label=False')
    assert code == 1 and 'out of range: 2 (in 2 files, first' in problems[0] and 'labels are 0 to 1 and' in problems[0]
    cv2.imwrite(str(maps / '0.png'), np.full((64, 64), 257, np.uint16))  # mmseg would read 1
    assert 'out of range: 257 (' in check(path)[1][0]

    cv2.imwrite(str(maps / '0.png'), np.ones((64, 64, 3), np.uint8))
    assert check(path)[1][0] == ('error 1 label map with several channels, where one of labels is needed: '
                                 f'{maps}/0.png (RGB)')
    cv2.imwrite(str(maps / '0.png'), np.ones((64, 32), np.uint8))
    assert check(path)[1][0] == (f'error 1 label map of another size than the image: {maps}/0.png 32x64, '
                                 'its image 64x64')
    (maps / '0.png').rename(maps / 'other.png')
    assert check(path)[1] == [
        f'error 1 of 2 images without label map *.png in {maps}: 0.jpg; see {where}.seg_map_suffix and '
        '.data_prefix.seg_map_path', f'warning 1 file in {maps} belonging to no pair: other.png']
    (images / '0.jpg').unlink()
    assert check(path)[1][0] == f'warning 1 file in {maps} belonging to no pair: other.png'
    (maps / 'other.png').unlink()
    (maps / '1.png').write_bytes((maps / '1.png').read_bytes()[:60])
    assert f'error 1 file not readable: {maps}/1.png is damaged' in check(path)[1][0]


def test_label_maps_with_a_palette_are_fine(check, segmentation):
    path, root = segmentation
    for file in (root / 'annotations' / 'training').glob('*.png'):
        image = Image.open(file).copy()
        image.putpalette(list(range(256)) * 3)
        image.save(file)
        assert Image.open(file).mode == 'P'
    assert check(path)[:2] == (0, [])


def test_labels_that_are_mostly_ignored_or_never_there(check, segmentation):
    path, root = segmentation
    for file in (root / 'annotations' / 'training').glob('*.png'):
        cv2.imwrite(str(file), np.full((64, 64), 0, np.uint8))
        repaint(file, 1)
    assert check(path)[:2] == (0, [
        'warning 99.6 % of the pixels are ignored (label 0 is: reduce_zero_label=True); if 0 is a class, '
        'set train_dataloader.dataset.reduce_zero_label=False', 'warning 1 class in no label map: light'])


def test_images_of_another_suffix(check, segmentation):
    path, root = segmentation
    code, problems, _ = check(path, '--cfg-options', 'train_dataloader.dataset.img_suffix=.png')
    folder = root / 'images' / 'training'
    assert (code, problems) == (1, [
        f'error no image *.png in {folder}, the files there end with .jpg; see train_dataloader.dataset.img_suffix '
        'and .data_prefix.img_path'])


def test_a_list_of_images(check, segmentation):
    path, root = segmentation
    (root / 'train.txt').write_text('0\n7\n')
    code, problems, _ = check(path, '--cfg-options', 'train_dataloader.dataset.ann_file=train.txt')
    assert code == 1
    assert problems[0] == f'error 1 image of {root}/train.txt missing: {root}/images/training/7.jpg'


def test_classes_are_needed(check, segmentation):
    path, root = segmentation
    code, problems, _ = check(path, '--cfg-options', 'train_dataloader.dataset.metainfo=None')
    assert problems[0] == 'error the data set has no classes: set train_dataloader.dataset.metainfo.classes'


def test_the_usual_layouts(check, coco, ade, tmp_path):
    code, problems, _ = check('coco', coco)
    assert code == 1
    assert problems[0] == (f'error {coco}/annotations/instances_train2017.json must have 118287 images and 860001 '
                           'boxes, got 2 and 4: is it the official file?')
    assert problems[1].startswith('error 80 classes not among the categories of the file: person, bicycle, ')
    code, problems, _ = check('ade20k', ade)
    assert code == 1
    assert problems[0] == f'error {ade}/images/training must have 20210 images, got 2: is it whole?'
    code, problems, printed = check('coco', tmp_path / 'gone')
    assert code == f'check_dataset.py: error: {tmp_path}/gone does not exist: give the folder of coco as ROOT'


@pytest.mark.parametrize('args, message', [
    (['no.py'], 'the first argument must be coco, ade20k or the path of a config, got no.py'),
    (['no.py', 'root'], 'ROOT goes with coco and ade20k; for a config use --cfg-options'),
    (['coco', '--sample', '0'], '--sample must be positive, got 0'),
    ([None, '--cfg-options', 'default_scope=mmpretrain'],
     'the config must have default_scope mmdet or mmseg, got default_scope=mmpretrain'),
    ([None, '--cfg-options', 'train_dataloader=None', 'val_dataloader=None', 'test_dataloader=None'],
     'the config must have a train_dataloader, val_dataloader or test_dataloader, got none'),
])
def test_wrong_arguments(check, detection, args, message):
    code, _, printed = check(*(detection[0] if arg is None else arg for arg in args))
    assert message in str(code) + printed.err


def test_other_kinds_of_data(check, detection):
    path, root = detection
    options = [f'{split}_dataloader.dataset.type=XMLDataset' for split in ('train', 'val', 'test')]
    code, problems, _ = check(path, '--cfg-options', *options)
    assert code == 0
    assert problems[0] == 'warning XMLDataset is not checked further: it is read neither as COCO nor as label maps'
    # LVIS and panoptic data are read by methods of their own.
    for kind in ('LVISV1Dataset', 'CocoPanopticDataset'):
        code, problems, _ = check(path, '--cfg-options', f'train_dataloader.dataset.type={kind}')
        assert (code, problems) == (0, [
            f'warning {kind} is not checked further: it is read neither as COCO nor as label maps'])
    for option in ('type=NoDataset', 'data_prefix=None'):
        code, problems, _ = check(path, '--cfg-options', f'train_dataloader.dataset.{option}')
        assert code == 1 and problems[0].startswith('error the data set cannot be built: ')
