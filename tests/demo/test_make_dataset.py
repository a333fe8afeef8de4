import colorsys
import json
from collections import Counter

import cv2
import make_dataset as module
import numpy as np
import pytest
from make_dataset import make_dataset
from pycocotools.coco import COCO
from shapes import CLASSES

SMALL = {'train': 6, 'val': 3, 'size': 96, 'seed': 5}
SPLITS = [('train2017', 'training', 6), ('val2017', 'validation', 3)]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp('demo') / 'new' / 'set'
    assert make_dataset(out, **SMALL)
    return out


def contents(folder):
    files = (file for file in folder.rglob('*') if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_same_seed_same_bytes_other_seed_other_bytes(data, tmp_path):
    make_dataset(tmp_path / 'again', **SMALL)
    assert contents(tmp_path / 'again') == contents(data)
    make_dataset(tmp_path / 'other', **{**SMALL, 'seed': 6})
    other = contents(tmp_path / 'other')
    for name, content in contents(data).items():
        assert other[name] != content, name


def test_first_images_do_not_depend_on_their_number(data, tmp_path):
    make_dataset(tmp_path / 'more', **{**SMALL, 'train': 8})
    more = contents(tmp_path / 'more')
    for name, content in contents(data).items():
        if name.endswith(('.jpg', '.png')):
            assert more[name] == content, name


def test_held_out_images_are_not_training_images(data):
    images = [file.read_bytes() for file in (data / 'coco').rglob('*.jpg')]
    assert len(set(images)) == len(images) == SMALL['train'] + SMALL['val']


@pytest.mark.parametrize('coco_name, ade_name, count', SPLITS)
def test_both_formats_say_the_same(data, coco_name, ade_name, count):
    coco = COCO(str(data / f'coco/annotations/instances_{coco_name}.json'))
    assert sorted(coco.getImgIds()) == list(range(1, count + 1))
    assert [category['name'] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    for image in coco.loadImgs(coco.getImgIds()):
        file = data / 'coco' / coco_name / image['file_name']
        stem = file.stem
        assert (data / 'ade/images' / ade_name / file.name).read_bytes() == file.read_bytes()
        assert cv2.imread(str(file)).shape == (96, 96, 3) == (image['height'], image['width'], 3)
        labels = cv2.imread(
            str(data / 'ade/annotations' / ade_name / f'{stem}.png'), cv2.IMREAD_UNCHANGED
        )
        assert labels.shape == (96, 96) and labels.dtype == np.uint8

        rebuilt = np.ones((96, 96), int)
        annotations = coco.loadAnns(coco.getAnnIds(image['id']))
        assert annotations
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert annotation['iscrowd'] == 0
            assert annotation['area'] == mask.sum() > 0
            assert (rebuilt[mask] == 1).all(), 'visible parts must not overlap'
            rebuilt[mask] = annotation['category_id'] + 1
            left, top, width, height = annotation['bbox']
            assert mask[top : top + height, left : left + width].sum() == mask.sum()
            edges = [mask[top], mask[top + height - 1], mask[:, left], mask[:, left + width - 1]]
            assert all(edge.any() for edge in edges), 'the box must be tight'
        np.testing.assert_array_equal(rebuilt, labels)


def test_scenes_are_varied():
    scenes = [module.make_scene(128, np.random.default_rng(seed)) for seed in range(40)]
    labels = Counter(label for scene in scenes for label in scene.labels)
    assert set(labels) == set(range(len(CLASSES)))
    assert min(labels.values()) > 0.4 * max(labels.values())
    areas = [np.bincount(scene.owner.ravel())[1:] for scene in scenes]
    assert min(map(min, areas)) >= 40
    assert max(map(max, areas)) > 40 * min(map(min, areas))
    boundaries = 0
    for scene in scenes:
        left, right = scene.owner[:, :-1], scene.owner[:, 1:]
        boundaries += ((left != right) & (left > 0) & (right > 0)).any()
    assert boundaries > len(scenes) / 4, 'overlaps must be common'


def test_colour_hints_at_the_class_but_does_not_tell_it():
    hits = []
    for seed in range(60):
        scene = module.make_scene(96, np.random.default_rng(seed))
        for index, label in enumerate(scene.labels, start=1):
            colour = scene.image[scene.owner == index].mean(axis=0) / 255
            nearest = round(colorsys.rgb_to_hsv(*colour)[0] * len(CLASSES)) % len(CLASSES)
            hits.append(nearest == label)
    assert 0.5 < np.mean(hits) < 0.95


def test_finished_data_set_is_reused(data, capsys):
    before = {file: file.stat().st_mtime_ns for file in data.rglob('*')}
    assert not make_dataset(data, **SMALL)
    assert 'Reusing' in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in data.rglob('*')} == before


@pytest.mark.parametrize('damage', ['manifest.json', 'coco/val2017/000002.jpg'])
def test_incomplete_data_set_is_made_anew(data, tmp_path, damage):
    out = tmp_path / 'set'
    make_dataset(out, **SMALL)
    (out / damage).unlink()
    if damage == 'manifest.json':
        with pytest.raises(ValueError, match='out must be a new or empty folder, .* got out='):
            make_dataset(out, **SMALL)
    else:
        assert make_dataset(out, **SMALL)
        assert contents(out) == contents(data)


def test_other_settings_replace_the_data_set(tmp_path):
    out = tmp_path / 'set'
    make_dataset(out, **SMALL)
    make_dataset(out, **{**SMALL, 'train': 2})
    assert len(list((out / 'coco/train2017').iterdir())) == 2


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError])
def test_interruption_leaves_nothing_behind(tmp_path, monkeypatch, error):
    drawn = []

    def interrupted(size, rng):
        drawn.append(size)
        if len(drawn) == 4:
            raise error
        return original(size, rng)

    original = module.make_scene
    monkeypatch.setattr(module, 'make_scene', interrupted)
    with pytest.raises(error):
        make_dataset(tmp_path / 'set', **SMALL)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert make_dataset(tmp_path / 'set', **SMALL)


def test_interruption_keeps_the_earlier_data_set(data, tmp_path, monkeypatch):
    make_dataset(tmp_path / 'set', **SMALL)

    def broken(size, rng):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, 'make_scene', broken)
    with pytest.raises(KeyboardInterrupt):
        make_dataset(tmp_path / 'set', **{**SMALL, 'seed': 9})
    assert contents(tmp_path / 'set') == contents(data)


def test_leftovers_of_a_killed_run_do_not_matter(data, tmp_path):
    leftover = tmp_path / '.set.partial' / 'coco' / 'train2017'
    leftover.mkdir(parents=True)
    (leftover / '000099.jpg').write_bytes(b'half')
    make_dataset(tmp_path / 'set', **SMALL)
    assert contents(tmp_path / 'set') == contents(data)
    assert [path.name for path in tmp_path.iterdir()] == ['set']


def test_other_peoples_folders_are_left_alone(tmp_path):
    (tmp_path / 'thesis.txt').write_text('years of work')
    with pytest.raises(ValueError, match='out must be a new or empty folder, .* got out='):
        make_dataset(tmp_path, **SMALL)
    assert (tmp_path / 'thesis.txt').read_text() == 'years of work'


@pytest.mark.parametrize(
    'name, value, error, message',
    [
        ('train', 0, ValueError, 'train must be at least 1, got train=0'),
        ('val', -1, ValueError, 'val must be at least 1, got val=-1'),
        ('size', 31, ValueError, 'size must be at least 32, got size=31'),
        ('seed', -5, ValueError, 'seed must be at least 0, got seed=-5'),
        ('train', 2.5, TypeError, 'train must be an int, got train=2.5'),
        ('seed', True, TypeError, 'seed must be an int, got seed=True'),
    ],
)
def test_bad_arguments(tmp_path, name, value, error, message):
    with pytest.raises(error, match=message):
        make_dataset(tmp_path / 'set', **{**SMALL, name: value})
    assert not (tmp_path / 'set').exists()


def test_bad_scene_and_shape():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match='size must be at least 32 pixels, got size=16'):
        module.make_scene(16, rng)
    from shapes import outline

    with pytest.raises(ValueError, match="kind must be one of .* got kind='heart'"):
        outline('heart', rng)


def test_command_line(tmp_path, capsys):
    out = tmp_path / 'set'
    arguments = ['--out', str(out), '--train', '2', '--val', '1', '--size', '64', '--seed', '3']
    assert module.main(arguments) == 0
    manifest = json.loads((out / 'manifest.json').read_text())
    assert {name: manifest[name] for name in SMALL} == dict(train=2, val=1, size=64, seed=3)
    assert '3/3' in capsys.readouterr().out
    assert module.main(['--out', str(out), '--size', '8']) == 2
    assert 'error: size must be at least 32, got size=8' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        module.main(['--train', 'many'])
    assert 'invalid int value' in capsys.readouterr().err
