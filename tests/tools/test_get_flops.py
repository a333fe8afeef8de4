"""Costs of whole models against complexity.py, mmengine's analysis and formulas."""
import importlib
import subprocess
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools' / 'analysis_tools'
R50 = Path(mmdet.__file__).parent / '.mim/configs/retinanet/retinanet_r50_fpn_1x_coco.py'
METHODS = ('retinanet', 'mask_rcnn', 'cascade_mask_rcnn', 'sem_fpn', 'upernet')
# The smallest of each method and family.
CONFIGS = [
    sorted((ROOT / 'configs' / method).glob(f'*_{size}_*'))[0]
    for method in METHODS for size in ('resnet-acmix-26', 'san-acmix-10', 'pvt-acmix-t', 'swin-acmix-t')
    if list((ROOT / 'configs' / method).glob(f'*_{size}_*'))
]


@pytest.fixture(scope='module')
def tool():
    """tool(name): a module of tools/analysis_tools."""
    names = [path.stem for path in TOOLS.glob('*.py')]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture()
def build(tool):
    """build(path, **settings): the model of a config."""
    whole = tool('whole_models')
    return lambda path, **settings: whole.build(whole.load(str(path), settings))


@pytest.fixture()
def count(tool):
    """count(model, height, width): the parts of a model by the first word of their titles."""

    def counted(model, height, width):
        rows = tool('get_flops').count_model(model, height, width)
        return {row.title.strip().split(' (')[0]: row.part for row in rows}

    return counted


def test_there_are_configs_of_every_method_and_family():
    assert len(CONFIGS) == 4 * 4 + 1


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_parts_of_the_zoo(tool, build, count, path):
    """The backbone is complexity.py's, all parameters count once, and the total is the sum."""
    model = build(path)
    parameters = sum(p.numel() for p in model.parameters())
    parts = count(model, 64, 96)
    complexity = tool('complexity')
    with torch.device('meta'):
        expected = complexity.count(MODELS.build(Config.fromfile(path).model.backbone), 64, 96)
    assert parts['backbone'] == expected['total']
    assert {name: parts[complexity.TITLES[name]] for name in complexity.PARTS} == {
        name: expected[name] for name in complexity.PARTS}
    outer = {name: part for name, part in parts.items() if name not in (*complexity.TITLES.values(), 'total')}
    assert set(outer) - {'backbone', 'neck', 'auxiliary_head'} == {
        'retinanet': {'bbox_head'},
        'mask_rcnn': {'rpn_head', 'roi_head.bbox_head', 'roi_head.mask_head'},
        'cascade_mask_rcnn': {'rpn_head', 'roi_head.bbox_head', 'roi_head.mask_head'},
        'sem_fpn': {'decode_head'},
        'upernet': {'decode_head'},
    }[path.parent.name]
    for i, figure in enumerate(parts['total']):
        assert figure == sum(part[i] for part in outer.values())
    assert parts['total'].parameters == parameters
    idle = [name for name, part in outer.items() if part.multiply_adds == 0]
    assert idle == (['auxiliary_head'] if path.parent.name == 'upernet' else [])


def test_convolutions_are_those_of_mmengine(build, count):
    """Of RetinaNet with ResNet-50, in which everything that counts is a convolution."""
    model = build(R50)
    model.eval()
    image = torch.randn(1, 3, 64, 96)

    class Run(nn.Module):
        """A part of the model on its own, which jit can trace: a flat tuple comes out."""

        def __init__(self, part):
            super().__init__()
            self.part = part

        def forward(self, *maps):
            found = self.part(maps if len(maps) > 1 else maps[0])
            return tuple(x for out in found for x in (out if isinstance(out, (list, tuple)) else (out,)))

    found = {}
    maps = (image,)
    for name, part in (('backbone', model.backbone), ('neck', model.neck), ('bbox_head', model.bbox_head)):
        run = Run(part)
        analyzer = FlopAnalyzer(run, maps).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        found[name] = analyzer.by_operator()['conv']
        with torch.no_grad():
            maps = run(*maps)
    assert min(found.values()) > 0
    assert {name: part.multiply_adds for name, part in count(model, 64, 96).items()} == dict(
        found, total=sum(found.values()))


def test_heads_on_regions_by_hand(build, count):
    path = ROOT / 'configs/mask_rcnn/mask-rcnn_resnet-acmix-26_fpn_1x_coco.py'
    model = build(path, **{'model.test_cfg.rpn.max_per_img': 7, 'model.test_cfg.rcnn.max_per_img': 3})
    parts = count(model, 64, 96)
    linear = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * 81 + 1024 * 320
    assert parts['roi_head.bbox_head'].multiply_adds == 7 * linear
    convolutions = 4 * 14 * 14 * 9 * 256 * 256
    upsampled = 14 * 14 * 4 * 256 * 256 + 28 * 28 * 256 * 80
    assert parts['roi_head.mask_head'].multiply_adds == 3 * (convolutions + upsampled)


def test_a_cascade_runs_every_stage(build, count):
    """Four convolutions and two linear layers in each of three stages, and three mask heads."""
    path = ROOT / 'configs/cascade_mask_rcnn/cascade-mask-rcnn_swin-acmix-t_fpn_1x_coco.py'
    parts = count(build(path), 64, 64)
    stage = 4 * 7 * 7 * 9 * 256 * 256 + 256 * 7 * 7 * 1024 + 1024 * (81 + 320)
    assert parts['roi_head.bbox_head'].multiply_adds == 3 * 1000 * stage
    masks = 4 * 14 * 14 * 9 * 256 * 256 + 14 * 14 * 4 * 256 * 256 + 28 * 28 * 256 * 80
    assert parts['roi_head.mask_head'].multiply_adds == 3 * 100 * masks


def test_a_head_that_all_regions_share(build, count):
    """Detectors whose last stage runs on regions: its parameters count once, its products in every head."""
    path = R50.parents[1] / 'faster_rcnn/faster-rcnn_r50-caffe-c4_ms-1x_coco.py'
    one, two = (count(build(path, **{'model.test_cfg.rpn.max_per_img': n}), 64, 64) for n in (1, 2))
    assert 'neck' not in one and one['roi_head.shared_head'].multiply_adds == 0
    assert one['roi_head.shared_head'].parameters > 14e6
    assert two['roi_head.bbox_head'].multiply_adds == 2 * one['roi_head.bbox_head'].multiply_adds > 1e9


@pytest.mark.parametrize('plain, ours, image', [
    (dict(type='mmdet.PyramidVisionTransformer', num_layers=[2, 2, 2, 2]), dict(type='mmacmix.PVTACmix'), 128),
    (dict(type='mmdet.SwinTransformer'), dict(type='mmacmix.SwinACmix'), 224),
])
def test_plain_backbones_are_ours_without_convolution(tool, plain, ours, image):
    """Two classes and two ways of counting: torch's for the host's, formulas for attention alone."""
    backbones = [MODELS.build(config) for config in (plain, dict(ours, paths=('attention',)))]
    host, alone = (tool('get_flops').backbone_rows(backbone, image, image)[0] for backbone in backbones)
    assert len(host) == 1 and len(alone) == 5
    assert host[0].part.multiply_adds == pytest.approx(alone[0].part.multiply_adds, rel=0.01)
    assert host[0].part.parameters == pytest.approx(alone[0].part.parameters, rel=0.001)


def test_output_of_a_detector(tool, capsys):
    tool('get_flops').main([str(ROOT / 'configs/mask_rcnn/mask-rcnn_resnet-acmix-26_fpn_1x_coco.py')])
    text = capsys.readouterr().out
    assert 'MaskRCNN, one image of 800 x 1344 (default of a detector: 1333 x 800, padded to multiples of 32)' in text
    lines = {line.split('  ')[0].strip() or line.split()[0]: line for line in text.splitlines()}
    assert lines['backbone (ResNetACmix)'].split()[2:6] == ['8.44', 'M', '47.45', 'G']
    assert lines['total'].split()[1:3] == ['29.33', 'M']  # the figure of the method's README
    assert 'roi_head.bbox_head (Shared2FCBBoxHead, 1000 regions)' in text
    assert 'roi_head.mask_head (FCNMaskHead, 100 regions)' in text
    assert 'RoIAlign is not counted. Regions: as many as test_cfg lets through at most' in text
    assert 'auxiliary' not in text


def test_output_of_a_segmenter(tool, capsys):
    path = str(ROOT / 'configs/upernet/upernet_resnet-acmix-26_8xb2-160k_ade20k-512x512.py')
    tool('get_flops').main([path, '--shape', '64', '96', '--cfg-options', 'model.decode_head.channels=32'])
    text = capsys.readouterr().out
    assert 'EncoderDecoder, one image of 64 x 96\n' in text
    assert 'auxiliary_head (FCNHead, not run)' in text and 'its parameters count, its multiply-adds do not' in text
    assert 'RoIAlign' not in text and 'NMS' not in text


def test_it_is_a_script():
    done = subprocess.run([sys.executable, str(TOOLS / 'get_flops.py'), 'nothing.py'], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == 'get_flops.py: error: the config must be an existing file, got config=nothing.py'


RETINANET = str(ROOT / 'configs/retinanet/retinanet_resnet-acmix-26_fpn_1x_coco.py')
FPN = str(ROOT / 'configs/sem_fpn/fpn_resnet-acmix-26_8xb4-40k_ade20k-512x512.py')


@pytest.mark.parametrize('argv, message', [
    ([RETINANET, '--shape', '0', '64'], '--shape must be above 0, got --shape 0 64'),
    ([str(ROOT / 'configs/_base_/det_runtime.py')], 'must have a model with a backbone, got keys default_scope'),
    ([str(ROOT / 'configs/_base_/models/fpn.py')], 'must have a model with a backbone, got keys model'),
    ([RETINANET, '--cfg-options', 'default_scope=mmyolo'],
     'must have default_scope=mmdet or mmseg or mmpretrain, got default_scope=mmyolo'),
    ([RETINANET, '--cfg-options', 'model.backbone.depth=27'], 'the model cannot be built: .*depth must be one of'),
    ([RETINANET, '--cfg-options', 'model.neck.type=Nothing'], 'the model cannot be built: KeyError: .*Nothing'),
    ([RETINANET, '--cfg-options', 'model.backbone.depth.x=1'], '--cfg-options must fit '),
    ([RETINANET, '--cfg-options', 'model.neck.in_channels=[8,8,8]'], r'neck \(FPN\) cannot be counted: '),
    ([RETINANET, '--cfg-options', 'model.backbone.in_channels=4'],
     r'backbone \(ResNetACmix\) cannot be counted on images of 3 x 800 x 1344: '),
    ([str(R50.parents[1] / 'detr/detr_r50_8xb2-150e_coco.py'), '--cfg-options', 'model.backbone.init_cfg=None'],
     'the parts of a model must be backbone, .*, got model.encoder in DETR'),
    ([str(R50.parents[1] / 'htc/htc-without-semantic_r50_fpn_1x_coco.py')],
     'model.roi_head must be of type StandardRoIHead or CascadeRoIHead, got type=HybridTaskCascadeRoIHead'),
])
def test_bad_arguments_end_in_a_line(tool, argv, message):
    with pytest.raises(SystemExit, match=f'^get_flops.py: error: .*{message}'):
        tool('get_flops').main(argv)


def test_a_cascade_of_decode_heads_is_refused(tool):
    cfg = Config.fromfile(FPN)
    cfg.model.update(type='CascadeEncoderDecoder', num_stages=2, decode_head=[cfg.model.decode_head] * 2)
    with pytest.raises(ValueError, match='model.decode_head must be one head, got 2 in a cascade'):
        tool('get_flops').count_model(tool('whole_models').build(cfg), 64, 64)


def test_a_broken_config(tool, tmp_path):
    path = tmp_path / 'broken.py'
    path.write_text('model = dict(\n')
    with pytest.raises(SystemExit, match='broken.py, or a file in its _base_, has a mistake of syntax: '):
        tool('get_flops').main([str(path)])


def test_a_host_that_is_not_installed(tool, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(SystemExit, match='needs mmdet, which is not installed'):
        tool('get_flops').main([RETINANET])


def test_options_must_be_pairs(tool, capsys):
    with pytest.raises(SystemExit):
        tool('get_flops').main([RETINANET, '--cfg-options', 'model.backbone.depth'])
    assert "--cfg-options must be KEY=VALUE, got 'model.backbone.depth'" in capsys.readouterr().err
