import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import run_demo
from stages import StepFailed

SCRIPT = Path(run_demo.__file__)
SMALL = ['--train', '4', '--val', '2', '--iterations', '2', '--pictures', '2']


def start(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *SMALL, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, 'PYTHONUNBUFFERED': '1', 'OMP_NUM_THREADS': '1'},
    )


def demo(folder, *arguments):
    process = start(folder, *arguments)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def test_whole_demo_in_small(tmp_path):
    code, output = demo(tmp_path)
    assert code == 1, output
    # Two iterations teach nothing: the demo must say so.
    assert 'Targets missed:' in output and 'box AP50 0.' in output and 'is below 0.5' in output
    assert 'model' in output and 'mask AP50' in output and 'total, with data' in output
    assert '$ mim train mmacmix mask-rcnn_resnet-acmix_demo.py' in output
    assert '$ mim test mmacmix fpn_resnet-acmix_demo.py' in output
    assert 'train    2/2   loss' in output
    for task in run_demo.TASKS:
        for name in ('sheet.png', 'curves.png'):
            path = Path('work_dirs/demo') / task.name / 'pictures' / name
            assert str(path) in output
            assert cv2.imread(str(tmp_path / path)).std() > 10
    rows = json.loads((tmp_path / 'work_dirs/demo/results.json').read_text())['rows']
    assert set(rows[0]) == {'model', 'box AP50', 'mask AP50', 'minutes'}
    assert set(rows[1]) == {'model', 'mIoU', 'minutes'} and 0 <= rows[1]['mIoU'] <= 1

    # A training that ended before its step was finished is resumed, all else is reused.
    note = tmp_path / 'work_dirs/demo/detection/train/stage.json'
    note.write_text(note.read_text().replace('"finished": true', '"finished": false'))
    code, output = demo(tmp_path)
    assert code == 1, output
    assert output.count('already done') == 5
    assert '--resume' in output
    log = (note.parent / 'log.txt').read_text()
    assert 'resumed epoch: 0, iter: 2' in log


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGHUP'])
def test_interrupted_demo_ends_its_programs(tmp_path, name):
    process = start(tmp_path)
    log = tmp_path / 'work_dirs/demo/detection/train/log.txt'
    deadline = time.monotonic() + 60
    while not (log.exists() and 'Training command is' in log.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    process.send_signal(getattr(signal, name))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert 'Interrupted. The next run goes on from here.' in output
    stage = json.loads((log.parent / 'stage.json').read_text())
    assert not stage['finished'] and stage['seconds'] > 0
    assert not [pid for pid in running() if str(tmp_path) in pid], 'the training must be ended'


def running():
    """Command lines and working folders of all processes."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            found.append(f'{(folder / "cmdline").read_bytes()} {os.readlink(folder / "cwd")}')
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            pass  # it ended while we looked, or is somebody else's
    return found


def test_failing_step_is_reported(tmp_path):
    data = tmp_path / 'data/demo'
    run_demo.make_dataset(data, 4, 2)
    (data / 'coco/annotations/instances_train2017.json').write_text('{"images": []')
    code, output = demo(tmp_path)
    assert code == 1
    assert 'Training Mask R-CNN, ResNet-ACmix failed with exit code' in output
    assert 'JSONDecodeError' in output and 'log.txt' in output


def test_options():
    settings = run_demo.Demo.__new__(run_demo.Demo)
    detection, segmentation = run_demo.TASKS
    settings.data, settings.iterations = run_demo.DEFAULT_DATA, None
    assert settings.options(detection) == []
    settings.data = Path('elsewhere')
    assert settings.options(detection)[1:] == [
        'train_dataloader.dataset.data_root=elsewhere/coco/',
        'val_dataloader.dataset.data_root=elsewhere/coco/',
        'test_dataloader.dataset.data_root=elsewhere/coco/',
        'val_evaluator.ann_file=elsewhere/coco/annotations/instances_val2017.json',
        'test_evaluator.ann_file=elsewhere/coco/annotations/instances_val2017.json',
    ]
    assert len(settings.options(segmentation)) == 4


def test_targets():
    rows = [{'box AP50': 0.5, 'mask AP50': 0.1}, {'mIoU': 0.61}]
    assert run_demo.missed_targets(rows) == []
    rows = [{'box AP50': 0.499}, {'mIoU': float('nan')}]
    assert run_demo.missed_targets(rows) == [
        'Mask R-CNN, ResNet-ACmix: box AP50 0.499 is below 0.5',
        'Semantic FPN, ResNet-ACmix: mIoU nan is below 0.6',
    ]


def test_missing_checkpoint(tmp_path):
    with pytest.raises(StepFailed, match='The training must leave a checkpoint, got none in'):
        run_demo.last_checkpoint(tmp_path)
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'gone.pth'))
    assert not run_demo.has_checkpoint(tmp_path)


def test_checkpoint_of_a_folder_that_was_moved(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('/where/it/was/iter_2.pth')
    (tmp_path / 'iter_2.pth').write_text('weights')
    assert run_demo.last_checkpoint(tmp_path) == tmp_path / 'iter_2.pth'


@pytest.mark.parametrize('data', ['a b', 'a,b', "a'b"])
def test_data_folders_that_no_option_can_name(data, capsys):
    with pytest.raises(SystemExit):
        run_demo.main(['--data', data])
    assert '--data must be a path without blanks, commas' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['iterations', 'pictures'])
def test_bad_arguments(name, capsys):
    with pytest.raises(SystemExit) as caught:
        run_demo.main([f'--{name}', '0'])
    assert caught.value.code == 2
    assert f'--{name} must be at least 1, got 0' in capsys.readouterr().err


def test_bad_data_set_arguments(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run_demo.main(['--train', '0']) == 2
    assert 'error: train must be at least 1, got train=0' in capsys.readouterr().err
