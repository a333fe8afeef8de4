"""tools/predict.py: what it writes, what it reports and leaves out, what it refuses."""
import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_masks

from mmacmix.engine.image_files import read_image


@pytest.fixture()
def tool(monkeypatch, load_tool):
    return load_tool('predict', monkeypatch)


@pytest.fixture()
def predict(tool, trained, tmp_path, capsys):
    """predict(name, *args) runs the tool; returns the exit code, the JSON and what stood on stderr."""

    def call(name, *args):
        run = trained(name)
        with pytest.raises(SystemExit) as stop:
            tool.main([run.config, run.checkpoint, *map(str, args), '--out-dir', str(tmp_path / 'out'),
                       '--device', 'cpu'])
        path = tmp_path / 'out' / 'predictions.json'
        return stop.value.code, json.loads(path.read_text()) if path.exists() else None, capsys.readouterr()

    return call


@pytest.fixture()
def folder(tmp_path):
    """Images of several kinds and sizes, and of one name in two folders."""
    folder = tmp_path / 'images'
    (folder / 'more').mkdir(parents=True)
    image = np.random.default_rng(0).integers(256, size=(45, 70, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / 'a.jpg'), image)
    cv2.imwrite(str(folder / 'more' / 'a.JPG'), image[:20])
    cv2.imwrite(str(folder / 'b.png'), image[..., 0])
    (folder / '.hidden.jpg').write_text('no image')
    (folder / 'notes.txt').write_text('no image')
    return folder


@pytest.fixture()
def broken(tmp_path):
    """Files that are no images: name -> reason."""
    folder = tmp_path / 'broken'
    folder.mkdir()
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    whole = cv2.imencode('.jpg', noise)[1].tobytes()
    png = cv2.imencode('.png', noise)[1].tobytes()
    for name, content in (('cut.jpg', whole[:len(whole) // 2]), ('cut.png', png[:len(png) // 2]),
                          ('empty.jpg', b''), ('text.jpg', b'hello')):
        (folder / name).write_bytes(content)
    cv2.imwrite(str(folder / 'thin.png'), np.zeros((500, 1, 3), np.uint8))  # nothing is left of it at 64x64
    return folder


def test_detection(predict, folder, tmp_path):
    code, found, _ = predict('mask_rcnn', folder, '--score-thr', 0.05, '--batch-size', 2)
    assert (code, found['finished'], found['failed'], found['task']) == (0, True, [], 'detection')
    assert (found['class_names'], found['score_thr']) == (['dark', 'light'], 0.05)
    assert [entry['image'] for entry in found['images']] == [
        str(folder / 'a.jpg'), str(folder / 'b.png'), str(folder / 'more' / 'a.JPG')]
    assert [entry['picture'] for entry in found['images']] == ['pictures/a.jpg', 'pictures/b.jpg', 'pictures/a_2.jpg']
    assert sum(len(entry['instances']) for entry in found['images']) > 0
    for entry in found['images']:
        size = entry['height'], entry['width']
        assert size == cv2.imread(entry['image']).shape[:2]
        assert size == cv2.imread(str(tmp_path / 'out' / entry['picture'])).shape[:2]
        for instance in entry['instances']:
            x1, y1, x2, y2 = instance['box']
            assert 0 <= x1 <= x2 <= entry['width'] and 0 <= y1 <= y2 <= entry['height']
            assert instance['label'] == found['class_names'][instance['label_id']]
            assert instance['score'] > 0.05
            assert coco_masks.decode(instance['mask']).shape == size


def test_detection_is_that_of_the_host(predict, trained, folder):
    from mmdet.apis import DetInferencer
    run = trained('retinanet')
    host = DetInferencer(run.config, run.checkpoint, device='cpu', show_progress=False)
    expected, = host(str(folder / 'b.png'))['predictions']
    _, found, _ = predict('retinanet', folder / 'b.png', '--score-thr', 0, '--no-pictures')
    instances = found['images'][0]['instances']
    assert len(instances) == len(expected['scores']) > 0
    np.testing.assert_allclose([x['box'] for x in instances], expected['bboxes'], atol=0.006)
    np.testing.assert_allclose([x['score'] for x in instances], expected['scores'], atol=6e-5)
    assert [x['label_id'] for x in instances] == expected['labels']


def test_segmentation(predict, trained, folder, tmp_path):
    from mmseg.apis import MMSegInferencer
    run = trained('fpn')
    code, found, _ = predict('fpn', folder, '--batch-size', 3)  # of two sizes
    assert (code, found['finished'], found['task']) == (0, True, 'segmentation')
    host = MMSegInferencer(run.config, run.checkpoint, device='cpu')
    assert len(found['images']) == 3
    for entry in found['images']:
        expected = host(entry['image'])['predictions']
        labels = Image.open(tmp_path / 'out' / entry['labels'])
        assert labels.mode == 'P' and (np.asarray(labels) == expected).all()
        assert labels.getpalette()[:6] == np.asarray(host.model.dataset_meta['palette']).ravel().tolist()
        assert (entry['height'], entry['width']) == expected.shape
        assert sum(share['fraction'] for share in entry['classes']) == pytest.approx(1, abs=1e-5)
        for share in entry['classes']:
            assert share['label'] == ('dark', 'light')[share['label_id']]
            assert share['fraction'] == pytest.approx((expected == share['label_id']).mean(), abs=1e-6)
        assert cv2.imread(str(tmp_path / 'out' / entry['picture'])).shape[:2] == expected.shape


def test_an_image_of_one_pixel(predict, tmp_path):
    cv2.imwrite(str(tmp_path / 'dot.png'), np.full((1, 1, 3), 200, np.uint8))
    code, found, _ = predict('fpn', tmp_path / 'dot.png')
    assert (code, found['finished'], len(found['images'])) == (0, True, 1)


def test_broken_images_are_reported_and_left_out(predict, folder, broken, tmp_path):
    code, found, printed = predict('retinanet', tmp_path / 'gone.jpg', broken, folder / 'a.jpg', '--batch-size', 4)
    assert (code, found['finished']) == (1, True)
    assert [entry['image'] for entry in found['images']] == [str(folder / 'a.jpg')]
    reasons = {os.path.basename(entry['image']): entry['reason'] for entry in found['failed']}
    assert reasons.pop('cut.jpg').startswith('is damaged or cannot be read (image file is truncated')
    assert reasons.pop('cut.png').startswith('is damaged or cannot be read')
    assert reasons.pop('thin.png').startswith('cannot be prepared by the test pipeline (')
    assert reasons == {'gone.jpg': 'does not exist', 'empty.jpg': 'is an empty file', 'text.jpg': 'is no image'}
    assert f'predict.py: {broken / "empty.jpg"} is an empty file' in printed.err
    assert '1 of 7 predicted, 6 failed: ' in printed.out


def test_a_folder_without_images(predict, tmp_path):
    (tmp_path / 'void').mkdir()
    code, found, printed = predict('retinanet', tmp_path / 'void')
    assert (code, found['images']) == (1, [])
    assert found['failed'][0]['reason'].startswith('is a folder without images (.jpg, .jpeg, ')
    assert '0 of 1 predicted, 1 failed' in printed.out


def test_an_interruption_keeps_what_is_done(tool, predict, folder, monkeypatch):
    def interrupted(paths, task, results, *args):
        results.add(dict(image='done.jpg'))
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, 'predict', interrupted)
    code, found, _ = predict('retinanet', folder)
    assert (code, found['finished']) == (130, False)
    assert found['images'] == [dict(image='done.jpg')]


def test_the_json_is_whole_after_every_entry(tool, tmp_path):
    from prediction.files import ResultFile
    path = tmp_path / 'a.json'
    results = ResultFile(str(path), dict(task='x'))
    assert json.loads(path.read_text()) == dict(task='x', images=[], failed=[], finished=False)
    results.fail('b' * 99, 'reason')
    results.add(dict(image='ä'))
    results.add(dict(image='c'))
    failed = [dict(image='b' * 99, reason='reason')]
    images = [dict(image='ä'), dict(image='c')]
    assert json.loads(path.read_text()) == dict(task='x', images=images, failed=failed, finished=False)
    results.close(True)
    assert json.loads(path.read_text()) == dict(task='x', images=images, failed=failed, finished=True)


def test_folders_are_searched_without_own_pictures(tool, folder):
    from prediction.files import collect
    (folder / 'out').mkdir()
    (folder / 'out' / 'x.png').touch()
    everything = [str(folder / 'a.jpg'), str(folder / 'b.png'), str(folder / 'more' / 'a.JPG')]
    assert collect([str(folder)], str(folder / 'out')) == (everything, [])
    assert collect([str(folder / 'b.png'), str(folder)], str(folder / 'out'))[0] == [
        everything[1], everything[0], everything[2]]


def test_images_that_would_be_overwritten_are_refused(tool, folder):
    """An out-dir may be a folder of images, a second time too; what it would write over is refused."""
    from prediction.files import collect
    (folder / 'pictures').mkdir()
    (folder / 'pictures' / 'a.jpg').touch()
    words = ('--out-dir must be a folder in which pictures/ and labels/ hold no images to predict on, got --out-dir '
             f'{folder} and {folder / "pictures" / "a.jpg"}')
    for argument in (folder, folder / 'pictures', folder / 'pictures' / 'a.jpg'):
        with pytest.raises(ValueError, match=re.escape(words)):
            collect([str(argument)], str(folder))
    (folder / 'predictions.json').touch()
    assert len(collect([str(folder)], str(folder))[0]) == 3
    with pytest.raises(ValueError, match=re.escape(words)):
        collect([str(folder / 'pictures')], str(folder))


def test_orientation_of_the_camera(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (40, 20)).save(tmp_path / 'a.jpg', exif=exif)
    assert read_image(str(tmp_path / 'a.jpg')).size == (20, 40) == cv2.imread(str(tmp_path / 'a.jpg')).shape[1::-1]


@pytest.fixture()
def fails(tool, trained, tmp_path, capsys):
    """fails(*args) gives the message with which the script ends, before it has written anything."""

    def call(*args):
        with pytest.raises(SystemExit) as stop:
            tool.main([*map(str, args), '--out-dir', str(tmp_path / 'out')])
        assert not (tmp_path / 'out').exists()
        return str(stop.value.code) + capsys.readouterr().err

    return call


def test_a_checkpoint_that_does_not_fit(fails, trained):
    message = fails(trained('retinanet').config, trained('mask_rcnn').checkpoint, 'a.jpg')
    assert 'predict.py: error: the checkpoint does not fit RetinaNet of this config: ' in message
    assert 'missing: neck.fpn_convs.' in message and 'left over: neck.lateral_convs.' in message


def test_a_checkpoint_that_is_none(fails, trained, tmp_path):
    (tmp_path / 'a.pth').write_text('hello')
    assert 'predict.py: error: cannot read ' in fails(trained('fpn').config, tmp_path / 'a.pth', 'a.jpg')


@pytest.mark.parametrize('name', ['retinanet', 'fpn'])
def test_a_checkpoint_without_names_takes_those_of_the_config(predict, trained, folder, tmp_path, name, monkeypatch):
    run = trained(name)
    state = torch.load(run.checkpoint, weights_only=False)['state_dict']
    torch.save(state, tmp_path / 'bare.pth')
    monkeypatch.setattr(run, 'checkpoint', str(tmp_path / 'bare.pth'))
    code, found, _ = predict(name, folder / 'a.jpg', '--score-thr', 0)
    assert (code, found['class_names']) == (0, ['dark', 'light'])


def test_names_must_be_those_of_the_model(fails, trained, tmp_path):
    run = trained('retinanet')
    checkpoint = torch.load(run.checkpoint, weights_only=False)
    checkpoint['meta']['dataset_meta']['classes'] = ('dark', 'light', 'other')
    torch.save(checkpoint, tmp_path / 'three.pth')
    assert ('every class of the model must have a name, got 2 classes and 3 names: dark, light, other'
            in fails(run.config, tmp_path / 'three.pth', 'a.jpg'))


@pytest.mark.parametrize('args, message', [
    (['no.py', 'no.pth', 'a.jpg'], 'the config must be an existing file, got config=no.py'),
    ([None, 'no.pth', 'a.jpg'], 'the checkpoint must be an existing file, got checkpoint=no.pth'),
    ([None, None, 'a.jpg', '--batch-size', '0'], '--batch-size must be positive, got 0'),
    ([None, None, 'a.jpg', '--score-thr', '1.5'], '--score-thr must be at least 0 and below 1, got 1.5'),
    ([None, None, 'a.jpg', '--device', 'toaster'], '--device must name a device that torch can use here, got toaster'),
    ([None, None, 'a.jpg', '--cfg-options', 'default_scope=mmpretrain'],
     'default_scope=mmpretrain; for a classifier use mmpretrain.ImageClassificationInferencer'),
    ([None, None, 'a.jpg', '--cfg-options', 'test_dataloader=None'],
     'the config must say by test_dataloader.dataset.pipeline how images are prepared, got none'),
])
def test_wrong_arguments(fails, trained, args, message):
    run = trained('retinanet')
    given = [own if arg is None else arg for arg, own in zip(args, (run.config, run.checkpoint))]
    assert message in fails(*given, *args[2:])


def test_an_out_dir_that_cannot_be_made(tool, trained, folder, tmp_path):
    (tmp_path / 'file').touch()
    run = trained('retinanet')
    with pytest.raises(SystemExit) as stop:
        tool.main([run.config, run.checkpoint, str(folder), '--out-dir', str(tmp_path / 'file' / 'out'),
                   '--device', 'cpu'])
    assert str(stop.value.code).startswith('predict.py: error: [Errno ')


def test_out_dir_must_not_be_a_file(tool, tmp_path, capsys):
    (tmp_path / 'out').touch()
    with pytest.raises(SystemExit):
        tool.parse_args(['c.py', 'c.pth', 'a.jpg', '--out-dir', str(tmp_path / 'out')])
    assert '--out-dir must be a folder, got the file ' in capsys.readouterr().err


def test_data_inside_a_wrapper(tool, trained, tmp_path):
    """The test pipeline is found where data sets are joined or repeated."""
    path = tmp_path / 'joined.py'
    shutil.copy(trained('retinanet').config, path)
    with open(path, 'a') as file:
        file.write("\ntest_dataloader = dict(dataset=dict(\n    _delete_=True, type='ConcatDataset', "
                   "datasets=[val_dataloader['dataset']]))\n")
    args = tool.parse_args([str(path), trained('retinanet').checkpoint, 'a.jpg', '--out-dir', str(tmp_path / 'out')])
    assert 'pipeline' in tool.load_config(args).test_dataloader.dataset
