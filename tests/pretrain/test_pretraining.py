"""Pretraining on ImageNet's layout with mmpretrain, and detectors that start from it."""
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONFIGS = sorted((ROOT / 'configs' / 'imagenet').glob('*.py'))
PROBE = 'import mmpretrain.models'
# optimiser, learning rate, weight decay, images per GPU of 8, epochs, epochs of warm-up, drop path
RECIPES = {
    'resnet': ('SGD', 0.1, 1e-4, 32, 90, 5, None),
    'san': ('SGD', 0.1, 1e-4, 32, 100, 0, None),
    'pvt': ('AdamW', 1e-3, 0.05, 128, 300, 5, 0.1),
    'swin': ('AdamW', 1e-3, 0.05, 128, 300, 20, 0.2),
}


def call(command, env, cwd=None):
    return subprocess.run(
        [str(part) for part in command], env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope='session')
def python():
    """python(*args, cwd=...): an interpreter that has mmpretrain; returns what it printed, and fails if it failed."""
    beside = Path(sys.prefix, 'pretrain', 'bin', 'python')
    plain = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1', PYTHONWARNINGS='ignore')
    declared = dict(plain, PYTHONPATH=os.pathsep.join([str(HERE / 'torchvision_operators'), str(ROOT)]))
    tried = []
    for interpreter in (sys.executable, beside):
        for env in (plain, declared):
            if Path(interpreter).exists():
                probe = call([interpreter, '-c', PROBE], env)
                if probe.returncode == 0:
                    return lambda *args, cwd=None: succeed([interpreter, *args], env, cwd)  # noqa: B023
                tried.append(probe.stdout.strip().splitlines()[-1])
    if (Path(sys.prefix) / 'pretrain').exists():
        pytest.fail(f'mmpretrain is installed but cannot be imported: {tried}')
    pytest.skip(f'mmpretrain is not installed: pip install mmacmix[pretrain] ({tried})')


def succeed(command, env, cwd):
    result = call(command, env, cwd)
    assert result.returncode == 0, result.stdout[-5000:]
    return result.stdout


@pytest.fixture(scope='session')
def imagenet(tmp_path_factory):
    """Three classes of pictures in ImageNet's layout, with the lists that name them."""
    root = tmp_path_factory.mktemp('imagenet')
    rng = np.random.default_rng(0)
    (root / 'meta').mkdir()
    for split, count in (('train', 4), ('val', 2)):
        lines = []
        for label in range(3):
            folder = root / split / f'class{label}'
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 100, (80, 64, 3), dtype=np.uint8)
                image[..., label] += 150
                cv2.imwrite(str(folder / f'{i}.jpg'), image)
                lines.append(f'class{label}/{i}.jpg {label}\n')
        (root / 'meta' / f'{split}.txt').write_text(''.join(lines))
    return root


@pytest.fixture(scope='session')
def found(python, imagenet, tmp_path_factory):
    """A folder of what check_configs.py found."""
    out = tmp_path_factory.mktemp('found')
    python(HERE / 'check_configs.py', imagenet, out)
    return out


@pytest.fixture(params=CONFIGS, ids=[path.stem for path in CONFIGS])
def path(request):
    return request.param


@pytest.fixture
def result(found, path):
    return json.loads((found / f'{path.stem}.json').read_text())


def test_there_is_one_for_every_backbone():
    zoo = {path.stem.split('_')[1] for path in (ROOT / 'configs' / 'retinanet').glob('*.py')}
    assert {path.stem.split('_')[0] for path in CONFIGS} == zoo
    assert len(CONFIGS) == len(zoo)


def test_recipe(path, result):
    optimiser, lr, decay, images, epochs, warm_up, drop_path = RECIPES[path.stem.split('-')[0]]
    cfg = Config.fromfile(path)
    assert cfg.default_scope == 'mmpretrain'
    assert [hook.type for hook in cfg.custom_hooks[:2]] == ['mmacmix.StartCheckHook', 'mmacmix.CheckpointGuardHook']
    found = cfg.optim_wrapper.optimizer
    assert (found.type, found.lr, found.weight_decay) == (optimiser, lr, decay)
    assert cfg.train_dataloader.batch_size == images and f'_8xb{images}_in1k' in path.stem
    assert cfg.auto_scale_lr == dict(enable=False, base_batch_size=8 * images)
    assert cfg.train_cfg.max_epochs == epochs
    assert cfg.model.backbone.get('drop_path_rate') == (0.3 if 'swin-acmix-s' in path.stem else drop_path)
    transformer = optimiser == 'AdamW'
    mixtures = [mixture.type for mixture in cfg.model.get('train_cfg', {}).get('augments', ())]
    assert mixtures == (['Mixup', 'CutMix'] if transformer else [])
    steps = {step.type for step in cfg.train_dataloader.dataset.pipeline}
    assert ({'RandAugment', 'RandomErasing'} <= steps) == transformer
    assert (cfg.train_dataloader.sampler.type == 'RepeatAugSampler') == ('pvt' in path.stem)
    assert cfg.model.head.loss == dict(type='LabelSmoothLoss', label_smooth_val=0.1, mode='original')
    assert ('clip_grad' in cfg.optim_wrapper) == ('swin' in path.stem)
    schedule = result['schedule']
    assert schedule['highest'] == pytest.approx(lr)
    assert math.ceil(schedule['warm_up']) == warm_up  # in epochs of 4 iterations
    assert schedule['last'] < 2e-5
    header = path.read_text()
    assert f'mim train mmacmix {path.name} ' in header and 'not trained' in header
    assert f'8 GPUs x {images} images' in header and f'{epochs} epochs' in header


def test_rates_and_norms_are_not_decayed(path, result):
    transformer = path.stem.split('-')[0] in ('pvt', 'swin')
    rates = 0
    for name, decay in result['decays'].items():
        leaf = name.rsplit('.', 1)[-1]
        rates += leaf in ('rate1', 'rate2')
        free = leaf in ('rate1', 'rate2') or transformer and (
            leaf in ('bias', 'relative_position_bias_table') or 'norm' in name or 'pos_embed' in name)
        assert decay == (0 if free else 1), name
    assert rates >= 16


def test_trains_a_step_and_predicts(result):
    assert 5 < result['loss'] < 9  # log(1000) is 6.9
    assert result['no gradient'] == []
    assert [count for count, _ in result['scores']] == [1000, 1000]
    assert [total for _, total in result['scores']] == pytest.approx([1, 1])
    assert result['metrics'] == ['accuracy/top1', 'accuracy/top5']


def test_pipelines(result):
    for split in ('train', 'val'):
        assert result[split]['shape'] == [3, 3, 224, 224]
    assert abs(result['val']['mean']) < 1  # normalised: pictures of noise around the mean of ImageNet


def test_documented_parameters_are_counted(path, result):
    meta = yaml.safe_load((path.parent / 'metafile.yml').read_text())
    entry, = (model for model in meta['Models'] if model['Name'] == path.stem)
    count = round(result['parameters'] / 1e6, 2)
    assert entry['Metadata']['Parameters (M)'] == count
    row, = (line for line in (path.parent / 'README.md').read_text().splitlines() if f'({path.name})' in line)
    assert f'| {count:.2f} |' in row


def options(root, work_dir):
    settings = [f'{split}_dataloader.{setting}' for split in ('train', 'val', 'test') for setting in (
        f'dataset.data_root={root}', 'num_workers=0', 'persistent_workers=False', 'pin_memory=False')]
    settings += ['train_dataloader.batch_size=4', 'train_cfg.max_epochs=1']
    return ['--work-dir', work_dir, '--cfg-options', *settings]


@pytest.fixture(scope='session')
def trained(python, imagenet, tmp_path_factory):
    """The checkpoint of an epoch of `mim train mmpretrain`."""
    work_dir = tmp_path_factory.mktemp('pretrained')
    config = ROOT / 'configs/imagenet/resnet-acmix-26_8xb32_in1k.py'
    output = python('-m', 'mim', 'train', 'mmpretrain', config, '--gpus', '0', *options(imagenet, work_dir))
    assert 'Epoch(val) [1]' in output and 'accuracy/top1' in output
    return work_dir / 'epoch_1.pth'


def test_mim_test_mmpretrain(python, imagenet, trained, tmp_path):
    config = ROOT / 'configs/imagenet/resnet-acmix-26_8xb32_in1k.py'
    output = python(
        '-m', 'mim', 'test', 'mmpretrain', config, '--checkpoint', trained, '--gpus', '0',
        *options(imagenet, tmp_path)[:-1])
    assert 'accuracy/top1' in output


def test_tools_train_serves_mmpretrain(python, imagenet, tmp_path):
    config = ROOT / 'configs/imagenet/swin-acmix-t_8xb128_in1k.py'
    output = python(ROOT / 'tools' / 'train.py', config, *options(imagenet, tmp_path))
    assert 'accuracy/top1' in output
    assert (tmp_path / 'epoch_1.pth').is_file()


def backbone_from(checkpoint, name):
    """The backbone of a detector's config, from random numbers but for the checkpoint."""
    cfg = Config.fromfile(ROOT / 'configs' / 'retinanet' / f'retinanet_{name}_fpn_1x_coco.py')
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint), prefix='backbone.')
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    return detector.backbone


def test_a_detector_starts_from_a_trained_checkpoint(trained):
    weights = torch.load(trained, map_location='cpu', weights_only=False)['state_dict']
    state = backbone_from(trained, 'resnet-acmix-26').state_dict()
    assert {f'backbone.{key}' for key in state} == {key for key in weights if key.startswith('backbone.')}
    for key, value in state.items():
        assert torch.equal(value, weights[f'backbone.{key}']), key


@pytest.mark.parametrize('name', ['resnet-acmix-26', 'san-acmix-10', 'pvt-acmix-t', 'swin-acmix-t'])
def test_a_detector_starts_from_a_classifier(found, name):
    checkpoint, = found.glob(f'{name}_*.pth')
    weights = torch.load(checkpoint, map_location='cpu')['state_dict']
    state = backbone_from(checkpoint, name).state_dict()
    own = {key for key in state if f'backbone.{key}' not in weights}
    # those of the maps that a classifier has no use for
    assert {key.split('.')[0] for key in own} == ({'norm1', 'norm2'} if 'swin' in name else set())
    for key in set(state) - own:
        assert torch.equal(state[key], weights[f'backbone.{key}']), key


def test_weights_of_another_family_are_refused(found):
    checkpoint, = found.glob('pvt-acmix-t_*.pth')
    with pytest.raises(ValueError, match='does not fit SwinACmix'):
        backbone_from(checkpoint, 'swin-acmix-t')
