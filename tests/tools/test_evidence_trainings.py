"""The queue of docs/evidence.md goes on where it was, whatever is left of its folders."""
import copy
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path += [str(ROOT / 'tools'), *(
    str(ROOT / 'tools' / name) for name in ('evidence', 'demo', 'benchmarks', 'analysis_tools'))]
import facts  # noqa: E402
import run_files  # noqa: E402
import trainings  # noqa: E402
from rows import digest  # noqa: E402

BASE = "_base_ = '{configs}/_base_/camvid.py'\n".format(configs=ROOT / 'docs' / 'evidence' / 'configs')
#: Trains nothing: leaves what a training of 3 steps leaves, and may stop after 2 of them.
FAKE = '''
import json, shutil, sys
from pathlib import Path
work = Path(sys.argv[sys.argv.index('--work-dir') + 1])
with open(work.parent / 'calls.txt', 'a') as file:
    file.write(' '.join(sys.argv[1:]) + '\\n')
last = work / 'last_checkpoint'
done = int(last.read_text().split('_')[-1][:-4]) if last.exists() and '--resume' in sys.argv else 0
for step in range(done + 1, 4):
    logs = work / f'2000010{step}' / 'vis_data'
    logs.mkdir(parents=True, exist_ok=True)
    entry = dict(loss=4. - step, time=1., seconds=10. * step, peak_memory_mib=5., step=step)
    if step == 3:
        entry.update({'mIoU': 40., 'aAcc': 80., 'IoU/sky': 90.})
    with open(logs / 'scalars.json', 'a') as file:
        file.write(json.dumps(entry) + '\\n')
    checkpoint = work / f'iter_{step}.pth'
    shutil.copy(Path(__file__).with_name(checkpoint.name), checkpoint)
    last.write_text(str(checkpoint))
    print(f'Iter(train) [{step}/3]  loss: {4. - step}', flush=True)
    if step == 2 and (work.parent / 'stop').exists() and (work.parent / 'stop').read_text() in work.name:
        raise SystemExit('stopped')
'''


@pytest.fixture()
def run_tool(monkeypatch, tmp_path):
    """The module of run.py, with trainings that take no time."""
    spec = importlib.util.spec_from_file_location('evidence_run', ROOT / 'tools' / 'evidence' / 'run.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(trainings, 'TRAIN', tmp_path / 'train.py')
    monkeypatch.setattr(trainings, 'facts_of', lambda run, config, digest, more: {
        name: str(value) for name, value in dict(task=run.task, row=run.row, config=digest, **more).items()})
    return module


@pytest.fixture()
def words(tmp_path):
    """words(*rows, **options): a command line, whose data and configs are there."""
    (tmp_path / 'data' / 'camvid').mkdir(parents=True)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'train.py').write_text(FAKE)
    for step in (1, 2, 3):
        checkpoint = dict(meta=dict(iter=step), state_dict=dict(step=torch.tensor(step)), optimizer={})
        torch.save(checkpoint, tmp_path / f'iter_{step}.pth')
    for row in ('resnet-26', 'resnet-18'):
        (tmp_path / 'configs' / f'camvid_{row}.py').write_text(f"{BASE}model = dict(backbone=dict(name='{row}'))\n")

    def make(*rows, seeds='0'):
        return ['--rows', *rows, '--tasks', 'camvid', '--seeds', *seeds.split(), '--threads', '1',
                *(word for name in ('data', 'configs', 'out', 'runs') for word in (f'--{name}', str(tmp_path / name)))]

    return make


def calls(tmp_path):
    file = tmp_path / 'out' / 'calls.txt'
    return file.read_text().splitlines() if file.exists() else []


def test_a_queue(run_tool, words, tmp_path, capsys):
    assert run_tool.main(words('resnet-26', 'resnet-18', seeds='0 1')) == 0
    names = [f'camvid_{row}_seed{seed}' for seed in '01' for row in ('resnet-26', 'resnet-18')]
    assert [next(n for n in names if n in call) for call in calls(tmp_path)] == names
    assert {p.stem for p in (tmp_path / 'runs').iterdir()} == set(names)
    content = run_files.read(tmp_path / 'runs' / f'{names[0]}.csv')
    assert content.facts['config'] == digest(tmp_path / 'configs' / 'camvid_resnet-26.py')
    assert content.facts['threads'] == '1' and float(content.facts['wall_seconds']) > 0
    assert content.series == {
        'loss': [(1, 3.), (2, 2.), (3, 1.)], 'seconds': [(1, 10.), (2, 20.), (3, 30.)], 'mIoU': [(3, 40.)],
        'peak_memory_mib': [(1, 5.), (2, 5.), (3, 5.)], 'aAcc': [(3, 80.)], 'IoU/sky': [(3, 90.)]}
    first = calls(tmp_path)[0]
    assert '--resume --cfg-options randomness.seed=0 ' in first
    assert f' train_dataloader.dataset.data_root={tmp_path}/data/camvid/ ' in first
    assert 'randomness.seed=1' in calls(tmp_path)[2]
    out = capsys.readouterr().out
    assert '0 of 4 runs finished\n' in out and '4 of 4 runs finished\n' in out
    assert '3 of 4 runs finished, about 0.0 h left\n' in out
    assert 'camvid_resnet-26_seed0: train    1/3   loss 3.000\n' in out
    # Of the checkpoints the weights are left, without what only resuming needs.
    left = [p.name for p in (tmp_path / 'out' / names[0]).glob('*.pth')]
    assert left == ['weights.pth']
    weights = torch.load(tmp_path / 'out' / names[0] / 'weights.pth', weights_only=True)
    assert set(weights) == {'meta', 'state_dict'} and weights['state_dict']['step'] == 3


def test_finished_runs_are_known_by_their_files_alone(run_tool, words, tmp_path):
    run_tool.main(words('resnet-26'))
    (tmp_path / 'out').rename(tmp_path / 'lost')
    assert run_tool.main(words('resnet-26', 'resnet-18')) == 0
    assert len(calls(tmp_path)) == 1 and 'resnet-18' in calls(tmp_path)[0]
    assert run_tool.main(words('resnet-26', 'resnet-18')) == 0
    assert len(calls(tmp_path)) == 1


def test_another_config_is_another_run(run_tool, words, tmp_path):
    run_tool.main(words('resnet-26'))
    config = tmp_path / 'configs' / 'camvid_resnet-26.py'
    config.write_text(config.read_text() + 'train_cfg = dict(max_iters=7)\n')
    assert run_tool.main(words('resnet-26')) == 0
    assert len(calls(tmp_path)) == 2
    assert run_files.read(tmp_path / 'runs' / 'camvid_resnet-26_seed0.csv').facts['config'] == digest(config)


def test_interrupted_trainings_go_on(run_tool, words, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'stop').write_text('resnet-26')
    assert run_tool.main(words('resnet-26', 'resnet-18')) == 1
    said = capsys.readouterr()
    assert 'camvid_resnet-26_seed0: the training failed with exit code 1' in said.err and 'stopped' in said.err
    assert 'run.py: 1 failed: camvid_resnet-26_seed0' in said.err and '1 of 2 runs finished' in said.out
    assert [p.stem for p in (tmp_path / 'runs').iterdir()] == ['camvid_resnet-18_seed0']
    assert len(calls(tmp_path)) == 2  # a failed run is not tried again by the same command
    (tmp_path / 'out' / 'stop').unlink()
    assert run_tool.main(words('resnet-26', 'resnet-18')) == 0
    assert len(calls(tmp_path)) == 3
    assert 'train    3/3' in capsys.readouterr().out
    content = run_files.read(tmp_path / 'runs' / 'camvid_resnet-26_seed0.csv')
    assert content.series['loss'] == [(1, 3.), (2, 2.), (3, 1.)]
    assert not list((tmp_path / 'out' / 'camvid_resnet-26_seed0').glob('iter_*.pth'))


def test_a_run_that_another_command_has_is_left_to_it(run_tool, words, tmp_path):
    (tmp_path / 'out').mkdir()
    lock = tmp_path / 'out' / 'camvid_resnet-26_seed0.lock'
    holder = subprocess.Popen(
        [sys.executable, '-c', f'import fcntl, time; f = open({str(lock)!r}, "w"); fcntl.flock(f, fcntl.LOCK_EX); '
                               'print("held", flush=True); time.sleep(2)'], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == 'held\n'
    start = time.monotonic()
    assert run_tool.main(words('resnet-26', 'resnet-18')) == 0
    assert time.monotonic() - start > 1
    # The free one first; the other after its holder ended without a result.
    assert [('resnet-18' in call) for call in calls(tmp_path)] == [True, False]
    holder.wait()


def test_several_jobs_share_the_work(words, tmp_path):
    """Commands of one --out, as --jobs starts them, train each run once."""
    code = (f'import sys, importlib.util; sys.path += {sys.path!r}\n'
            f'spec = importlib.util.spec_from_file_location("run", {str(ROOT / "tools/evidence/run.py")!r})\n'
            'run = importlib.util.module_from_spec(spec); spec.loader.exec_module(run)\n'
            'import trainings; from pathlib import Path\n'
            f'trainings.TRAIN = Path({str(tmp_path / "train.py")!r})\n'
            'trainings.facts_of = lambda run, config, digest, more: dict(config=digest, wall_seconds="1")\n'
            f'raise SystemExit(run.main({words("resnet-26", "resnet-18", seeds="0 1")!r}))')
    both = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert len(calls(tmp_path)) == 4 == len(set(calls(tmp_path)))


def test_jobs_start_commands_like_this_one(run_tool, words, monkeypatch):
    started = []
    monkeypatch.setattr(run_tool.subprocess, 'Popen', started.append)
    argv = [*words('resnet-26'), '--jobs', '3']
    run_tool.helpers(run_tool.parse_args(argv), argv)
    assert started == [[sys.executable, run_tool.__file__, *argv, '--jobs', '1', '--threads', '1']] * 2


def test_list_trains_nothing(run_tool, words, tmp_path, capsys):
    assert run_tool.main([*words('resnet-26', 'resnet-18'), '--list']) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ['camvid_resnet-26_seed0', 'camvid_resnet-18_seed0']
    assert not calls(tmp_path)


@pytest.mark.parametrize('option, value, message', [
    ('--rows', 'no-such', 'rows must be groups'),
    ('--jobs', '0', '--jobs must be positive, got 0'),
    ('--threads', '-1', '--threads must be positive, got -1'),
])
def test_wrong_options(run_tool, words, option, value, message, capsys):
    with pytest.raises(SystemExit):
        run_tool.main([*words('resnet-26'), option, value])
    assert message in capsys.readouterr().err


def test_missing_data_and_configs_are_said_at_once(run_tool, words, tmp_path):
    with pytest.raises(SystemExit, match='--configs must have camvid_san-acmix-10.py, got --configs'):
        run_tool.main(words('san-acmix-10'))
    with pytest.raises(SystemExit, match='--data must be a folder with camvid in it, got --data nowhere'):
        run_tool.main([*words('resnet-26'), '--data', 'nowhere'])


def test_runs_are_listed_without_data(run_tool, words, capsys):
    assert run_tool.main([*words('resnet-26'), '--data', 'nowhere', '--list']) == 0
    assert 'camvid_resnet-26_seed0' in capsys.readouterr().out


def test_folders_that_are_files(run_tool, words, tmp_path):
    (tmp_path / 'out').write_text('')
    with pytest.raises(SystemExit, match='--out must be a folder, got --out '):
        run_tool.main(words('resnet-26'))


@pytest.mark.parametrize('entries, got', [
    ([dict(loss=1., step=1)], 'none'),
    ([dict(mIoU=1., step=1), dict(mIoU=2., step=2), dict(loss=1., step=3)], '1, 2'),  # the last one was interrupted
])
def test_a_log_without_the_last_metric_is_an_error(tmp_path, entries, got):
    logs = tmp_path / '1' / 'vis_data'
    logs.mkdir(parents=True)
    (logs / 'scalars.json').write_text(''.join(json.dumps(entry) + '\n' for entry in entries))
    with pytest.raises(ValueError, match=f'of a training of camvid must have mIoU after step 3, got it after {got} in'):
        trainings.log_of('camvid', tmp_path, 3)


def test_a_run_without_its_last_metric_is_said_and_the_others_go_on(run_tool, words, tmp_path, capsys):
    train = tmp_path / 'train.py'
    argv = words('resnet-26', 'resnet-18')
    train.write_text(FAKE.replace('if step == 3:', "if step == 3 and 'resnet-18' in work.name:"))
    assert run_tool.main(argv) == 1
    message = 'camvid_resnet-26_seed0: the log of a training of camvid must have mIoU after step 3, got it after none'
    assert message in capsys.readouterr().err
    assert [p.stem for p in (tmp_path / 'runs').iterdir()] == ['camvid_resnet-18_seed0']


def test_code_and_machine_of_all_tries_are_kept(run_tool, words, tmp_path, monkeypatch):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'stop').write_text('resnet-26')
    for commit, outcome in (('aaa', 1), ('bbb', 0), ('ccc', 0)):
        now, changed = dict(torch='2', commit=commit, source=f's{commit}'), ' M tools/x.py' * (commit == 'bbb')
        monkeypatch.setattr(facts, 'versions', lambda now=now: dict(now))
        monkeypatch.setattr(facts, 'git', lambda *args, changed=changed: changed)
        monkeypatch.setattr(facts, '_device', lambda commit=commit: f'machine of {commit}')
        threads = dict(aaa='1', bbb='4', ccc='8')[commit]
        assert run_tool.main([*words('resnet-26'), '--threads', threads]) == outcome
        (tmp_path / 'out' / 'stop').write_text('nothing')
        if commit == 'bbb':
            (tmp_path / 'runs' / 'camvid_resnet-26_seed0.csv').unlink()  # written again, trained no more
    found = run_files.read(tmp_path / 'runs' / 'camvid_resnet-26_seed0.csv').facts
    assert (found['torch'], found['commit'], found['source']) == ('2', 'aaa, bbb+dirty', 'saaa, sbbb')
    assert (found['device'], found['threads']) == ('machine of aaa, machine of bbb', '1, 4')
    assert re.fullmatch(r'20\d\d-\d\d-\d\d(, 20\d\d-\d\d-\d\d)?', found['date'])
    assert len(calls(tmp_path)) == 2


def test_what_a_training_ran_with_must_be_known(run_tool, words, tmp_path, capsys):
    run_tool.main(words('resnet-26'))
    (tmp_path / 'out' / 'camvid_resnet-26_seed0' / 'tries.json').unlink()
    (tmp_path / 'runs' / 'camvid_resnet-26_seed0.csv').unlink()
    assert run_tool.main(words('resnet-26')) == 1
    assert 'tries.json must say what the training was run with; without it, remove' in capsys.readouterr().err


def test_a_start_and_its_file_are_of_the_same_training(run_tool, words, tmp_path, monkeypatch):
    """Weights that are lost are made again, and so is the file that says how good they are."""
    argv = words('resnet-26', 'resnet-18')
    row = tmp_path / 'configs' / 'camvid_resnet-18.py'
    row.write_text(row.read_text() + "start_from = 'resnet-26'\n")
    monkeypatch.setattr(trainings, 'make_start', lambda *args: 0.)
    assert run_tool.main(words('resnet-26')) == 0
    (tmp_path / 'out').rename(tmp_path / 'lost')
    (tmp_path / 'train.py').write_text(FAKE.replace("'mIoU': 40.", "'mIoU': 41."))
    assert run_tool.main(argv) == 0
    assert run_files.read(tmp_path / 'runs' / 'camvid_resnet-26_seed0.csv').last('mIoU') == 41
    assert len(calls(tmp_path)) == 2  # one more of resnet-26


class OtherJob:
    """As run.py sees a command that --jobs has started."""

    def __init__(self, work=lambda: None):
        self.work = work
        self.ended = False

    def terminate(self):
        self.ended = True

    def wait(self):
        self.work()


def test_a_full_disk_ends_all_jobs(run_tool, words, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, 'No space left on device')

    other = OtherJob()
    monkeypatch.setattr(run_tool, 'helpers', lambda *args: [other])
    monkeypatch.setattr(run_files, 'write', full)
    with pytest.raises(SystemExit, match='run.py: error: .*No space left on device; the same command goes on'):
        run_tool.main(words('resnet-26', 'resnet-18'))
    assert other.ended and len(calls(tmp_path)) == 1


def test_what_another_job_finished_has_not_failed(run_tool, words, tmp_path, monkeypatch, capsys):
    argv, stopped, train = words('resnet-26'), [True], trainings.Trainings._train

    def train_at_the_second_try(self, run, *args):
        if stopped and stopped.pop():
            raise ValueError('stopped')
        train(self, run, *args)

    monkeypatch.setattr(trainings.Trainings, '_train', train_at_the_second_try)
    other = OtherJob(lambda: trainings.Trainings(run_tool.parse_args(argv)).work())
    monkeypatch.setattr(run_tool, 'helpers', lambda *args: [other])
    assert run_tool.main(argv) == 0
    assert 'camvid_resnet-26_seed0: stopped' in capsys.readouterr().err


def test_a_start_of_another_config_is_trained_again(run_tool, words, tmp_path, monkeypatch):
    argv = words('resnet-18')
    source, row = (tmp_path / 'configs' / f'camvid_{name}.py' for name in ('resnet-26', 'resnet-18'))
    row.write_text(row.read_text() + "start_from = 'resnet-26'\n")
    monkeypatch.setattr(trainings, 'make_start', lambda *args: 0.)
    assert run_tool.main(argv) == 0
    assert ['resnet-26' in call for call in calls(tmp_path)] == [True, False]
    before = digest(row)
    source.write_text(source.read_text() + 'train_cfg = dict(max_iters=7)\n')
    assert digest(row) != before
    assert run_tool.main(argv) == 0
    assert ['resnet-26' in call for call in calls(tmp_path)] == [True, False] * 2
    assert run_files.read(tmp_path / 'runs' / 'camvid_resnet-18_seed0.csv').facts['config'] == digest(row)


def test_the_lock_goes_to_the_training(run_tool, words, tmp_path):
    """A training whose command was killed keeps its run taken."""
    args = run_tool.parse_args(words('resnet-26'))
    queue = trainings.Trainings(args)
    run = queue.runs[0]
    with queue._taken(run, wait=False) as lock:
        child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(1.5)'], pass_fds=(lock,))
    with queue._taken(run, wait=False) as second:
        assert second is None
    child.wait()
    with queue._taken(run, wait=False) as third:
        assert third is not None


TINY = '''
mine = dict(metainfo=dict(classes=('dark', 'light')))
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(
        _delete_=True, type='mmacmix.SwinACmix', {paths}
        arch=dict(embed_dims=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2))),
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    decode_head=dict(in_channels=[16] * 4, channels=16, num_classes=2))
pipeline = _base_.train_pipeline
pipeline[2]['crop_size'] = (64, 64)
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=pipeline, **mine))
val_dataloader = dict(dataset=mine)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=1)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=2)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1))
custom_hooks = [*_base_.custom_hooks[:-1], dict(type='ProgressHook', interval=1)]
'''


def test_real_trainings(ade, tmp_path):
    """Two small ones by the command: a Swin, and a Swin-ACmix that starts from it."""
    configs = tmp_path / 'configs'
    configs.mkdir()
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'camvid').symlink_to(ade)
    names = {'swin-acmix_attention': "paths=('attention',), ", 'swin-acmix_warm': ''}
    for row, paths in names.items():
        text = BASE + TINY.replace('{paths}', paths) + "start_from = 'swin-acmix_attention'\n" * (not paths)
        (configs / f'camvid_{row}.py').write_text(text)
    command = [sys.executable, ROOT / 'tools' / 'evidence' / 'run.py', '--rows', 'swin-acmix_warm', '--tasks', 'camvid',
               '--seeds', '0', '--data', tmp_path / 'data', '--out', tmp_path / 'out', '--runs', tmp_path / 'runs',
               '--configs', configs, '--threads', '1']
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    files = {row: run_files.read(tmp_path / 'runs' / f'camvid_{row}_seed0.csv') for row in names}
    plain, warm = files.values()
    for content in files.values():
        assert [step for step, _ in content.series['mIoU']] == [1, 2]
        assert {'IoU/dark', 'IoU/light', 'loss', 'lr'} <= set(content.series)
        seconds = content.series['seconds']
        assert [step for step, _ in seconds] == [1, 2] and 0 < seconds[0][1] < seconds[1][1] < 60
        assert 100 < content.last('peak_memory_mib') < 8000
        assert int(content.facts['backbone_parameters']) < int(content.facts['parameters'])
        assert int(content.facts['backbone_multiply_adds']) < int(content.facts['multiply_adds'])
        assert content.facts['torch'] == torch.__version__ and content.facts['mmseg']
        assert torch.cuda.is_available() or f'({torch.backends.cpu.get_cpu_capability()})' in content.facts['device']
    assert int(plain.facts['parameters']) < int(warm.facts['parameters'])
    assert warm.facts['start_from'] == 'swin-acmix_attention' and float(warm.facts['start_difference']) < 1e-5
    assert 'start_from' not in plain.facts
    rates = {name for name in warm.series if name.startswith('mixing_rates/')}
    assert len(rates) == 8 and not any(name in plain.series for name in rates)
    for name in rates:
        assert warm.series[name][0] == (0, float(name.endswith('attention'))), name
    drawing = [sys.executable, ROOT / 'tools' / 'evidence' / 'draw_predictions.py', 'camvid', '--rows', *names,
               *command[command.index('--data'):command.index('--runs')], '--configs', configs, '--count', '2']
    picture = tmp_path / 'sheet.png'
    result = subprocess.run([str(word) for word in (*drawing, '--into', picture)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    sheet = cv2.imread(str(picture))
    assert sheet.shape == (34 + 2 * (64 + 6), 3 * (64 + 6), 3)
    # The truth has labels, and is grey where there are none.
    truth = sheet[37:37 + 64, 3:3 + 64]
    assert (truth[:3] == 102).all() and (truth[20:36, 10:50] != 102).any(-1).mean() > 0.9


def test_a_start_that_changes_the_function_is_refused(tmp_path, monkeypatch):
    import warm_start
    from mmengine.config import Config, ConfigDict
    (tmp_path / 'camvid_x.py').write_text(BASE + TINY.replace('{paths}', "paths=('attention',), "))
    (tmp_path / 'camvid_y.py').write_text(BASE + TINY.replace('{paths}', ''))
    plain, cfg = (Config.fromfile(tmp_path / f'camvid_{name}.py') for name in 'xy')
    torch.save(dict(state_dict=warm_start._build(plain, 0).state_dict()), tmp_path / 'plain.pth')
    arguments = plain, cfg, tmp_path / 'plain.pth', tmp_path / 'start.pth', 0, (256, 256)
    assert warm_start.make_start(*arguments) < 1e-5
    assert warm_start.make_start(plain, plain, *arguments[2:]) == 0
    original = warm_start.convert_with_report

    def broken(*args):
        converted = original(*args)
        for name, value in converted.state.items():
            if name.endswith('rate2'):
                value.fill_(0.5)
        return converted

    monkeypatch.setattr(warm_start, 'convert_with_report', broken)
    (tmp_path / 'start.pth').unlink()
    with pytest.raises(ValueError, match='the start must preserve the function of .*plain.pth, got maps that differ'):
        warm_start.make_start(*arguments)
    assert not (tmp_path / 'start.pth').exists()
    other = copy.deepcopy(cfg)
    other.model.backbone = ConfigDict(type='mmacmix.ResNetACmix', depth=26, paths=('attention',), base_channels=8)
    other.model.neck.in_channels = [32, 64, 128, 256]
    with pytest.raises(ValueError, match='plain.pth must fit .*, got backbone.* on top or of another shape'):
        warm_start.make_start(plain, other, *arguments[2:])
    with pytest.raises(ValueError, match='plain.pth must be of .*camvid_y.py: '):
        warm_start.make_start(other, cfg, *arguments[2:])
