"""The hosts' own inferencers take our configs and checkpoints by path, in a process that imports nothing of ours."""
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest


@pytest.fixture()
def pictures(tmp_path):
    """A folder of images of several kinds and sizes."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    image = np.random.default_rng(0).integers(256, size=(45, 70, 3), dtype=np.uint8)
    cv2.imwrite(str(folder / 'a.jpg'), image)
    cv2.imwrite(str(folder / 'b_grey.png'), image[:31, :, 0])
    cv2.imwrite(str(folder / 'c_transparent.png'), np.dstack([image, image[..., 0]])[:, :33])
    cv2.imwrite(str(folder / 'd_16bit.png'), image.astype(np.uint16) * 256)
    return folder


def call(code, tmp_path, *args):
    """Run the code as a user would; returns what it printed last, as JSON."""
    script = tmp_path / 'script.py'
    script.write_text(code)
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    run = subprocess.run([sys.executable, str(script), *map(str, args)], env=env, cwd=tmp_path,
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return json.loads(run.stdout.splitlines()[-1])


DETECTION = """
import sys, json, cv2
from mmdet.apis import DetInferencer
folder, found = sys.argv[1], {}
for name, config, checkpoint in zip(sys.argv[2::3], sys.argv[3::3], sys.argv[4::3]):
    inferencer = DetInferencer(config, checkpoint, device='cpu', show_progress=False)
    one = inferencer(f'{folder}/a.jpg')['predictions']
    array = inferencer(cv2.imread(f'{folder}/a.jpg'))['predictions']
    several = inferencer(folder, batch_size=3, out_dir=name, no_save_pred=False)['predictions']
    found[name] = dict(one=one, array=array, several=several, names=inferencer.model.dataset_meta['classes'])
print(json.dumps(found))
"""


def test_det_inferencer(trained, pictures, tmp_path):
    boxes, masks = trained('retinanet'), trained('mask_rcnn')
    dumped = boxes.work_dir / 'retinanet.py'  # what a training writes beside its checkpoints is a config too
    found = call(DETECTION, tmp_path, pictures, 'boxes', boxes.config, boxes.checkpoint,
                 'masks', masks.config, masks.checkpoint, 'dumped', dumped, boxes.checkpoint)
    assert found['boxes'] == found['dumped']
    for name, result in found.items():
        assert result['names'] == ['dark', 'light']
        assert result['one'] == result['array'] and len(result['several']) == 4
        assert len(result['one'][0]['scores']) > 0
        for image in result['several']:
            assert len(image['bboxes']) == len(image['labels']) == len(image['scores'])
            assert ('masks' in image) == (name == 'masks')
        assert sorted(os.listdir(tmp_path / name / 'vis')) == sorted(os.listdir(pictures))
        assert cv2.imread(str(tmp_path / name / 'vis' / 'b_grey.png')).shape[:2] == (31, 70)


SEGMENTATION = """
import sys, json, cv2
from mmseg.apis import MMSegInferencer
config, checkpoint, folder = sys.argv[1:]
inferencer = MMSegInferencer(config, checkpoint, device='cpu')
one = inferencer(f'{folder}/a.jpg')['predictions']
array = inferencer(cv2.imread(f'{folder}/a.jpg'), batch_size=2)['predictions']
several = inferencer(folder, out_dir='out')['predictions']
meta = inferencer.visualizer.dataset_meta
print(json.dumps(dict(equal=bool((one == array).all()), shapes=[x.shape for x in several], names=meta['classes'],
                      colours=len(meta['palette']), highest=int(max(x.max() for x in several)))))
"""


def test_mmseg_inferencer(trained, pictures, tmp_path):
    found = call(SEGMENTATION, tmp_path, trained('fpn').config, trained('fpn').checkpoint, pictures)
    assert (found['names'], found['colours']) == (['dark', 'light'], 2)
    assert found['equal'] and found['highest'] <= 1
    assert sorted(found['shapes']) == [[31, 70], [45, 33], [45, 70], [45, 70]]
    assert sorted(os.listdir(tmp_path / 'out' / 'vis')) == sorted(os.listdir(pictures))
    assert len(os.listdir(tmp_path / 'out' / 'pred')) == 4

