import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import stages
from stages import Stage, StepFailed, fingerprint, progress, run


def finish(stage, file=None):
    with stage:
        if file:
            (stage.folder / file).write_text('result')


def test_finished_stage_is_remembered(tmp_path):
    stage = Stage(tmp_path / 'step', 'a')
    assert not stage.finished
    finish(stage, 'weights')
    again = Stage(tmp_path / 'step', 'a')
    assert again.finished and again.seconds == stage.seconds
    assert (tmp_path / 'step' / 'weights').exists()


def test_stage_made_from_something_else_starts_over(tmp_path):
    finish(Stage(tmp_path / 'step', 'a'), 'weights')
    stage = Stage(tmp_path / 'step', 'b')
    assert not stage.finished and stage.seconds == 0
    assert not (tmp_path / 'step' / 'weights').exists()


@pytest.mark.parametrize('error', [StepFailed, KeyboardInterrupt])
def test_failed_stage_goes_on_and_its_time_counts(tmp_path, error):
    stage = Stage(tmp_path / 'step', 'a')
    with pytest.raises(error), stage:
        (stage.folder / 'checkpoint').write_text('half way')
        time.sleep(0.02)
        raise error
    again = Stage(tmp_path / 'step', 'a')
    assert not again.finished
    assert (tmp_path / 'step' / 'checkpoint').exists()
    assert again.seconds >= 0.02
    finish(again)
    assert Stage(tmp_path / 'step', 'a').seconds > 0.02


def test_stage_with_a_broken_note_starts_over(tmp_path):
    finish(Stage(tmp_path / 'step', 'a'))
    (tmp_path / 'step' / 'stage.json').write_text('{"finger')
    assert not Stage(tmp_path / 'step', 'a').finished


def test_fingerprint_tells_texts_and_files_apart(tmp_path):
    file = tmp_path / 'file'
    file.write_text('one')
    first = fingerprint(file, 'x')
    assert fingerprint(file, 'x') == first
    assert fingerprint('ab', 'c') != fingerprint('a', 'bc')
    file.write_text('two')
    assert fingerprint(file, 'x') != first


@pytest.mark.parametrize(
    'line, expected',
    [
        (
            '11/23 06:45:04 - mmengine - INFO - Iter(train) [ 20/600]  base_lr: 9e-04 lr: 9e-04  '
            'eta: 0:02:45  time: 0.47  data_time: 0.01  loss: 1.9828  loss_cls: 0.7201',
            'train   20/600   loss 1.983   left 0:02:45',
        ),
        (
            '- INFO - Iter(val) [10/10]    coco/bbox_mAP: 0.1  coco/bbox_mAP_50: 0.2080  '
            'coco/segm_mAP_50: 0.1460  data_time: 0.01  time: 0.3',
            'val     10/10   box AP50 0.2080   mask AP50 0.1460',
        ),
        (
            '- INFO - Iter(test) [13/13]    aAcc: 90.1  mIoU: 71.2500  mAcc: 80.0  time: 0.1',
            'test    13/13   mIoU 71.2500',
        ),
        ('- INFO - Iter(val) [10/10]    eta: 0:00:00  time: 0.2775  data_time: 0.0178', None),
        ('- INFO - Checkpoints will be saved to somewhere.', None),
    ],
)
def test_progress(line, expected):
    assert progress(line) == expected


def test_run_shows_progress_and_keeps_everything(tmp_path, capsys):
    text = 'Iter(train) [1/2]  eta: 0:00:01  loss: 2.5'
    code = f'import sys; print("first"); print("{text}", file=sys.stderr)'
    run([sys.executable, '-c', code], tmp_path / 'log', 'Training')
    assert capsys.readouterr().out == '  train    1/2   loss 2.500   left 0:00:01\n'
    log = (tmp_path / 'log').read_text()
    assert 'first\n' in log and text in log


def test_failing_program_is_reported_with_its_last_lines(tmp_path):
    code = 'print("early\\n" + "noise\\n" * 40 + "disk is full"); raise SystemExit(7)'
    with pytest.raises(StepFailed, match='Training failed with exit code 7') as caught:
        run([sys.executable, '-c', code], tmp_path / 'log', 'Training')
    message = str(caught.value)
    assert '| disk is full' in message and '| early' not in message
    assert str(tmp_path / 'log') in message
    assert 'early' in (tmp_path / 'log').read_text()


def test_interrupted_program_is_ended_with_its_children(tmp_path, monkeypatch):
    grandchild = 'import time; time.sleep(60)'
    code = (
        'import subprocess, sys; '
        f'p = subprocess.Popen([sys.executable, "-c", "{grandchild}"]); '
        'print("Iter(train) [1/2]", p.pid, flush=True); p.wait()'
    )
    pids = []

    def interrupt(line):
        pids.append(int(line.split()[-1]))
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, 'progress', interrupt)
    with pytest.raises(KeyboardInterrupt):
        run([sys.executable, '-c', code], tmp_path / 'log', 'Training')
    deadline = time.monotonic() + 10
    while alive(pids[0]):
        assert time.monotonic() < deadline, 'the grandchild is still running'
        time.sleep(0.05)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # An ended process that nobody has waited for yet still has a number.
    with open(f'/proc/{pid}/stat') as file:
        return file.read().rsplit(')', 1)[1].split()[0] != 'Z'


def test_stubborn_program_is_killed(tmp_path, monkeypatch):
    code = (
        'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); '
        'print("ready", flush=True); time.sleep(60)'
    )

    def interrupt(line):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, 'progress', interrupt)
    monkeypatch.setattr(stages, 'PATIENCE', 0.3)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run([sys.executable, '-c', code], tmp_path / 'log', 'Training')
    assert time.monotonic() - start < 20


def test_missing_mim_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(stages.sys, 'executable', str(tmp_path / 'python'))
    with pytest.raises(StepFailed, match='mim must be installed beside .*python, but there is no'):
        stages.find_mim()


def test_stage_note_is_plain_json(tmp_path):
    finish(Stage(tmp_path / 'step', 'a'))
    note = json.loads((tmp_path / 'step' / 'stage.json').read_text())
    assert note['finished'] is True and note['fingerprint'] == 'a'


def test_a_folder_is_taken_by_one_demo_at_a_time(tmp_path, capsys):
    """Also while a program lives that an earlier demo started, whatever became of that demo."""
    code = (
        f'import sys; sys.path.insert(0, {str(Path(stages.__file__).parent)!r})\n'
        'import subprocess, stages; from pathlib import Path\n'
        f'stages.take_folder(Path({str(tmp_path)!r}))\n'
        'subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)"], pass_fds=(stages._lock.fileno(),))'
    )
    subprocess.run([sys.executable, '-c', code], check=True)
    start = time.monotonic()
    stages.take_folder(tmp_path)
    assert time.monotonic() - start > 1
    assert 'Waiting for another demo, or for a program that one left behind' in capsys.readouterr().out


def test_programs_inherit_the_lock(tmp_path):
    stages.take_folder(tmp_path)
    code = f'import os; os.fstat({stages._lock.fileno()}); print("inherited")'
    run([sys.executable, '-c', code], tmp_path / 'log.txt', 'A step')
    assert (tmp_path / 'log.txt').read_text().endswith('inherited\n')


def test_work_dir_that_is_a_file(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(StepFailed, match='--work-dir must be a folder, got the file'):
        stages.take_folder(tmp_path / 'file')


def test_damaged_note_of_a_stage(tmp_path):
    finish(Stage(tmp_path / 'step', 'a'))
    (tmp_path / 'step' / 'stage.json').write_text('{}')
    assert not Stage(tmp_path / 'step', 'a').finished
