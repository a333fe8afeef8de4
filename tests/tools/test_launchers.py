"""Two processes on CPUs, started by mim or by tools/dist_*.sh, train and test a detector as one process does."""
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
# Three steps on batches that are the same however many processes share them. The statistics of batch normalisation
# are kept: torch cannot take them over several processes on CPUs.
STEPS = '''
model['backbone']['norm_eval'] = True
train[3]['prob'] = 0.
test_dataloader = dict(val_dataloader, batch_size=1)
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = []
train_cfg = dict(max_epochs=3, val_interval=3)
randomness = dict(seed=0)
sync_bn = None
'''
LAST, OUT = 'epoch_3.pth', 'out.pkl'
HALF = ['--cfg-options', 'train_dataloader.batch_size=1']


@pytest.fixture(scope='module')
def one(own_config, load_tool, tmp_path_factory):
    """A config, and the folders `trained` and `tested` that one process has made with it."""
    folder = tmp_path_factory.mktemp('one')
    config, trained, tested = folder / 'config.py', folder / 'trained', folder / 'tested'
    config.write_text(own_config('retinanet').read_text() + STEPS)
    with pytest.MonkeyPatch.context() as patch:
        load_tool('train', patch).main([str(config), '--work-dir', str(trained)])
        load_tool('test', patch).main([
            str(config), str(trained / LAST), '--work-dir', str(tested), '--out', str(tested / OUT)])
    return SimpleNamespace(config=config, trained=trained, tested=tested)


@pytest.fixture()
def port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


def by_mim(mim, folder, port, command, config, *args):
    done = mim(command, 'mmacmix', config, '--launcher', 'pytorch', '--gpus', 2, '--port', port, *args, cwd=folder)
    assert done.code == 0, done.output


def by_script(folder, port, name, *args):
    env = dict(os.environ, PORT=port, PYTHON=sys.executable, PYTHONPATH=str(TOOLS.parent), OMP_NUM_THREADS='1')
    done = subprocess.run(
        [str(TOOLS / name), *map(str, args)], cwd=folder, env=env, stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, done.stdout


def assert_trained_as(one, work_dir):
    first, expected, found = (
        torch.load(path)['state_dict'] for path in (one.trained / 'epoch_1.pth', one.trained / LAST, work_dir / LAST))
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-5, name
    assert max((expected[name] - value).abs().max() for name, value in first.items()) > 1e-3


def test_mim_train(mim, one, port, tmp_path):
    by_mim(mim, tmp_path, port, 'train', one.config, '--work-dir', 'work', *HALF)
    assert_trained_as(one, tmp_path / 'work')


def test_processes_that_find_different_checkpoints(one, port, tmp_path):
    """Each on a machine of its own, with its own work dir: without a seed, they would wait for each other for ever."""
    (tmp_path / '0').mkdir()
    shutil.copy(one.trained / 'epoch_1.pth', tmp_path / '0')
    env = dict(os.environ, PYTHONPATH=str(TOOLS.parent), OMP_NUM_THREADS='1', WORLD_SIZE='2', LOCAL_RANK='0',
               MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    command = [sys.executable, str(TOOLS / 'train.py'), str(one.config), '--launcher', 'pytorch', '--resume',
               '--cfg-options', 'randomness.seed=None', *HALF[1:]]
    started = [
        subprocess.Popen([*command[:3], '--work-dir', str(tmp_path / rank), *command[3:]], env=dict(env, RANK=rank),
                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in '01']
    try:
        said = [process.communicate(timeout=240)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [1, 1], said
    for words in said:
        assert 'train.py: error: --resume must find the same checkpoint in all processes, got a start from' in words
        assert 'in process 0 and anew in process 1' in words


@pytest.mark.nightly
def test_dist_train(one, port, tmp_path):
    by_script(tmp_path, port, 'dist_train.sh', one.config, 2, '--work-dir', 'work', *HALF)
    assert_trained_as(one, tmp_path / 'work')


@pytest.mark.nightly
def test_fsdp(one, port, tmp_path):
    config = tmp_path / 'fsdp.py'
    config.write_text(f"_base_ = {str(one.config)!r}\nrunner_type = 'FlexibleRunner'\n"
                      "strategy = dict(type='FSDPStrategy', state_dict_cfg='full')\n")
    by_script(tmp_path, port, 'dist_train.sh', config, 2, '--work-dir', 'work', *HALF)
    assert_trained_as(one, tmp_path / 'work')


def predictions(work_dir):
    """The image and the class of each prediction, its score, its box."""
    images = pickle.loads((work_dir / OUT).read_bytes())
    found = [image['pred_instances'] for image in images]
    named = [(image['img_id'], label) for image in images for label in image['pred_instances']['labels'].tolist()]
    return named, torch.cat([each['scores'] for each in found]), torch.cat([each['bboxes'] for each in found])


def metrics(work_dir):
    path, = work_dir.glob('*/*.json')
    return {name: value for name, value in json.loads(path.read_text()).items() if name.startswith('coco/')}


def assert_tested_as(one, work_dir):
    expected, found = predictions(one.tested), predictions(work_dir)
    assert len(expected[0]) > 50 and found[0] == expected[0]
    assert (found[1] - expected[1]).abs().max() <= 1e-5 and (found[2] - expected[2]).abs().max() <= 1e-3
    assert len(metrics(one.tested)) == 6 and metrics(work_dir) == metrics(one.tested)


def test_dist_test(one, port, tmp_path):
    by_script(tmp_path, port, 'dist_test.sh', one.config, one.trained / LAST, 2, '--work-dir', 'work',
              '--out', f'work/{OUT}')
    assert_tested_as(one, tmp_path / 'work')


@pytest.mark.nightly
def test_mim_test(mim, one, port, tmp_path):
    by_mim(mim, tmp_path, port, 'test', one.config, '--checkpoint', one.trained / LAST, '--work-dir', 'work',
           '--out', f'work/{OUT}')
    assert_tested_as(one, tmp_path / 'work')
