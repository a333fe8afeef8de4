"""Attention over an image: what is drawn is what the layers compute, for both hosts and all families."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

TOOLS = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools'
SMALL = dict(embed_dims=8, depths=(2, 2), num_heads=(2, 2))
BACKBONES = dict(
    resnet=dict(type='mmacmix.ResNetACmix', depth=26, stem_channels=8, base_channels=8),
    swin=dict(type='mmacmix.SwinACmix', arch=SMALL, out_indices=(0, 1)),
    pvt=dict(type='mmacmix.PVTACmix', arch='tiny'),
    san=dict(type='mmacmix.SANACmix', depth=10),
)
PREPROCESSORS = dict(mmdet='DetDataPreprocessor', mmseg='SegDataPreProcessor')


@pytest.fixture(scope='module')
def maps():
    sys.path.insert(0, str(TOOLS))
    yield importlib.import_module('attention_maps')
    sys.path.remove(str(TOOLS))


def write_config(folder, host, backbone, scale=(96, 64)):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=scale, keep_ratio=True)]
    pipeline += [dict(type='LoadAnnotations')]
    pipeline += [dict(type='PackDetInputs' if host == 'mmdet' else 'PackSegInputs')]
    preprocessor = dict(type=PREPROCESSORS[host], mean=[100.0] * 3, std=[50.0] * 3, bgr_to_rgb=True)
    preprocessor.update(dict(pad_size_divisor=32) if host == 'mmdet' else {})
    text = Config(dict(
        default_scope=host,
        model=dict(backbone=backbone, data_preprocessor=preprocessor),
        test_dataloader=dict(dataset=dict(type='RepeatDataset', dataset=dict(pipeline=pipeline)))))
    path = folder / f'{host}.py'
    text.dump(str(path))
    return path


def write_checkpoint(maps, config, path, whole=True):
    torch.manual_seed(0)
    backbone = maps.MODELS.build(dict(Config.fromfile(config).model.backbone))
    backbone.init_weights()
    state = backbone.state_dict()
    if whole:
        state = dict({f'backbone.{key}': value for key, value in state.items()}, head=torch.zeros(1))
    torch.save(dict(state_dict=state), path)


def write_image(path, height=50, width=90):
    rng = np.random.default_rng(0)
    cv2.imwrite(str(path), cv2.resize(rng.integers(0, 255, (5, 9, 3), dtype=np.uint8), (width, height)))


@pytest.mark.parametrize('host', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('family', BACKBONES)
def test_layers_weights_and_summands(maps, family, host, tmp_path):
    config = write_config(tmp_path, host, BACKBONES[family])
    write_checkpoint(maps, config, tmp_path / 'model.pth', whole=family != 'swin')
    write_image(tmp_path / 'image.png')
    cfg = Config.fromfile(config)
    backbone = maps.build_backbone(cfg, str(tmp_path / 'model.pth'))
    image = maps.load_image(cfg, tmp_path / 'image.png')
    assert image.picture.shape == (53, 96, 3)
    assert image.scale == pytest.approx((96 / 90, 53 / 50))
    assert image.inputs.shape[2:] == ((64, 96) if host == 'mmdet' else (53, 96))
    # RGB, normalised: the picture and what the backbone sees are the same image.
    seen = image.inputs[0, :, :53, :96].permute(1, 2, 0).numpy() * 50 + 100
    assert np.abs(seen - image.picture).mean() < 12
    layers = maps.run_layers(backbone, image.inputs)
    assert len(layers) == sum(hasattr(module, 'attention_weights') for module in backbone.modules())
    chosen = maps.choose_layers(layers, ())
    assert len({layer.out_size for layer in chosen}) == len(chosen) == len({x.out_size for x in layers.values()})
    for layer in chosen:
        weights = maps.weights_at(layer, image, 95, 52)
        assert weights.shape[1:] == layer.size and np.abs(weights).max() > 0
        parts = maps.summands(layer)
        assert list(parts) == ['attention', 'convolution']
        assert all(part.shape == layer.out_size and part.max() > 0 for part in parts.values())
        assert layer.module.rate1.item() == 0.5
        # Twice the rate is twice the length.
        layer.module.rate1.data.mul_(2)
        again = maps.summands(layer)
        np.testing.assert_allclose(again['attention'], 2 * parts['attention'], rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(again['convolution'], parts['convolution'], rtol=1e-3, atol=1e-3)


@pytest.fixture()
def run(maps, tmp_path, monkeypatch, capsys):
    """run(*args): the tool in the folder tmp_path; returns returncode, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    tool = importlib.import_module('visualize_attention')

    def call(*args):
        code = None
        try:
            tool.main([str(arg) for arg in args])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=0 if code is None else 1, stdout=out, stderr=f'{err}{code}')

    return call


def test_pictures(maps, run, tmp_path):
    config = write_config(tmp_path, 'mmdet', BACKBONES['resnet'])
    write_checkpoint(maps, config, tmp_path / 'model.pth')
    write_image(tmp_path / 'image.png')
    result = run(config, 'model.pth', 'image.png', '--points', '0,0', '89.5,49', '--out-dir', 'out')
    assert result.returncode == 0, result.stderr
    names = ['image_paths.png', 'image_point1.png', 'image_point2.png']
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == names
    for name in names:
        picture = cv2.imread(str(tmp_path / 'out' / name))
        assert picture.std() > 20 and min(picture.shape[:2]) > 500
    result = run(config, 'model.pth', 'image.png', '--list-layers')
    assert 'layer1.0.conv2               16 x 24\n' in result.stdout
    result = run(config, 'model.pth', 'image.png', '--layers', 'layer2.1.conv2', '--heads', 2)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'attention' / 'image_point1.png').exists()


@pytest.mark.parametrize('path', ['attention', 'convolution'])
def test_one_path_alone(maps, run, path, tmp_path):
    config = write_config(tmp_path, 'mmseg', dict(BACKBONES['resnet'], paths=(path,)))
    write_checkpoint(maps, config, tmp_path / 'model.pth')
    write_image(tmp_path / 'image.png')
    result = run(config, 'model.pth', 'image.png')
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'attention/image_point1.png').exists() == (path == 'attention')
    assert (tmp_path / 'attention/image_paths.png').exists()


def test_the_whole_image_is_shown(maps, tmp_path):
    """Points are those of the whole image, also where the test pipeline cuts out its middle or fills it up."""
    config = write_config(tmp_path, 'mmseg', BACKBONES['resnet'])
    write_image(tmp_path / 'image.png')
    cfg = Config.fromfile(config)
    steps = cfg.test_dataloader.dataset.dataset.pipeline
    steps[2:2] = [dict(type='CenterCrop', crop_size=(32, 32)), dict(type='Pad', size=(128, 128))]
    image = maps.load_image(cfg, tmp_path / 'image.png')
    assert image.inputs.shape[2:] == (53, 96) and image.scale == pytest.approx((96 / 90, 53 / 50))


def test_errors(maps, run, tmp_path):
    config = write_config(tmp_path, 'mmdet', BACKBONES['resnet'])
    write_checkpoint(maps, config, tmp_path / 'model.pth')
    write_image(tmp_path / 'image.png')
    (tmp_path / 'text.png').write_text('no image')
    (tmp_path / 'broken.pth').write_bytes(b'nothing')
    (tmp_path / 'file').write_text('')
    whole = (tmp_path / 'image.png').read_bytes()
    (tmp_path / 'cut.png').write_bytes(whole[:len(whole) // 2])
    Image.fromarray(np.zeros((9, 9), np.float32)).save(tmp_path / 'float.tif')  # which OpenCV cannot read
    cfg = Config.fromfile(config)
    cfg.test_dataloader = None
    cfg.dump(str(tmp_path / 'untested.py'))
    other = tmp_path / 'other'
    other.mkdir()
    swin = write_config(other, 'mmdet', BACKBONES['swin'])
    plain = tmp_path / 'plain'
    plain.mkdir()
    plain = write_config(plain, 'mmdet', dict(type='ResNet', depth=50))
    good = (config, 'model.pth', 'image.png')
    for args, message in (
        (('gone.py', *good[1:]), 'CONFIG must be an existing file, got gone.py'),
        ((config, 'gone.pth', 'image.png'), 'CHECKPOINT must be an existing file, got gone.pth'),
        ((config, 'model.pth', 'gone.png'), 'IMAGE must be an existing file, got gone.png'),
        ((config, 'model.pth', 'text.png'), 'text.png cannot be read as an image: it is no image'),
        ((config, 'model.pth', 'cut.png'), 'cut.png cannot be read as an image: it is damaged'),
        ((config, 'model.pth', 'float.tif'), 'float.tif cannot be prepared by the test pipeline (failed to load image'),
        (('untested.py', 'model.pth', 'image.png'), 'the config must say by test_dataloader.dataset.pipeline how'),
        ((*good, '--out-dir', 'file/x'), '--out-dir must be a folder that can be written to: '),
        ((config, 'broken.pth', 'image.png'), 'cannot read broken.pth as a checkpoint'),
        ((swin, 'model.pth', 'image.png'), 'does not fit SwinACmix'),
        ((plain, 'model.pth', 'image.png'), 'must have a backbone of mmacmix, got model.backbone.type=ResNet'),
        ((*good, '--points', '12'), "a point must be x,y in pixels of the image, got '12'"),
        ((*good, '--points', '90,10', '3,4'), 'must lie in the image of 90 x 50 pixels, got 90,10'),
        ((*good, '--layers', 'conv1'), '--layers must be of layer1.0.conv2'),
        ((*good, '--heads', '0'), '--heads must be 1 or more, got 0'),
        ((*good, '--out-dir', 'file'), '--out-dir must be a folder, got the file file'),
    ):
        result = run(*args)
        assert result.returncode != 0 and message in result.stderr, (args, result.stderr)
