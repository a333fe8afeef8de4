"""A training that is killed, at any moment, and resumed ends with the weights of an undisturbed one, bit by bit."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name('killed_training.py')
COMMON = '''
randomness = dict(seed=0, deterministic=True)
val_dataloader = val_cfg = val_evaluator = None
train_dataloader.update(num_workers={workers}, persistent_workers={workers} > 0)
'''
ITERATIONS = '''
train_cfg = dict(type='IterBasedTrainLoop', max_iters=8)
param_scheduler = [dict(type='PolyLR', power=0.9, eta_min=0., by_epoch=False, begin=0, end=8)]
default_hooks = dict(checkpoint=dict(interval=2, max_keep_ckpts=1))
'''
EPOCHS = '''
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=6)
train_dataloader.update(batch_size=1)
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=2))
'''


@pytest.fixture
def killed(own_config, tmp_path):
    """killed(name, workers, kinds) trains a config of OWN, with kills and without, and gives what came of it."""

    def call(name, workers, kinds, seed=0):
        text = own_config(name).read_text() + (ITERATIONS if name in ('fpn', 'upernet') else EPOCHS) + COMMON
        config = tmp_path / f'{name}.py'
        config.write_text(text.replace('{workers}', str(workers)))
        done = subprocess.run([sys.executable, str(SCRIPT), str(config), str(tmp_path), str(seed), *kinds],
                              capture_output=True, text=True, env=dict(os.environ, OMP_NUM_THREADS='1'))
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return call


def test_segmenter(killed):
    """Swin with dropped paths and augmented images, in the middle of an endless epoch."""
    result = killed('upernet', 0, ['any', 'write', 'name'])
    print(result)
    assert result['wrong'] == []
    assert result['kills'] == 3


def test_detector(killed):
    """Epochs, and a worker that lives through all of them."""
    result = killed('retinanet', 1, ['write', 'any'])
    print(result)
    assert result['wrong'] == []
    assert result['kills'] == 2


@pytest.mark.nightly
@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('name', ['retinanet', 'mask_rcnn', 'cascade', 'fpn'])
def test_every_kind_of_model(killed, name, workers):
    result = killed(name, workers, ['any', 'write', 'any', 'name', 'write', 'any'], seed=workers)
    print(name, workers, result)
    assert result['wrong'] == []
    assert result['kills'] == 6
