"""The README's examples run as they stand there."""
import importlib.util
import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / 'README.md').read_text()


def block(first_line):
    """The code block of the README that begins with this line."""
    for code in re.findall(r'```python\n(.*?)```', README, flags=re.S):
        if code.startswith(first_line):
            return code
    raise AssertionError(f'README.md has no block that begins with {first_line}')


@pytest.fixture
def workspace(tmp_path):
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    (tmp_path / 'data').mkdir()
    return tmp_path


def test_own_detection_data(workspace, coco, mim):
    (workspace / 'data' / 'mine').symlink_to(coco)
    code = block('# my_detector.py').replace("('cat', 'dog', 'bird')", "('dark', 'light')")
    (workspace / 'my_detector.py').write_text(code.replace('num_classes=3', 'num_classes=2'))
    short = ['train_cfg.max_epochs=1', 'train_dataloader.dataset.pipeline.2.scale=(64,64)',
             'test_dataloader.dataset.pipeline.1.scale=(64,64)',
             'val_dataloader.dataset.pipeline.1.scale=(64,64)']
    every_box = 'model.test_cfg.score_thr=0'  # an untrained head is sure of nothing
    run = mim('train', 'mmacmix', 'my_detector.py', '--work-dir', 'work_dirs/detector',
              '--cfg-options', *short, cwd=workspace)
    assert run.code == 0, run.output
    run = mim('test', 'mmdet', 'my_detector.py', '--checkpoint', 'work_dirs/detector/epoch_1.pth',
              '--cfg-options', short[2], every_box, cwd=workspace)
    assert run.code == 0 and 'coco/bbox_mAP' in run.output, run.output


def test_own_segmentation_data(workspace, ade, mim):
    (workspace / 'data' / 'mine').symlink_to(ade)
    code = block('# my_segmenter.py').replace("('road', 'house', 'tree')", "('dark', 'light')")
    (workspace / 'my_segmenter.py').write_text(code.replace('num_classes=3', 'num_classes=2'))
    short = ['train_cfg.max_iters=1', 'param_scheduler.0.end=2', 'train_dataloader.batch_size=2',
             'train_dataloader.dataset.pipeline.2.scale=(64,64)',
             'train_dataloader.dataset.pipeline.3.crop_size=(64,64)', 'model.data_preprocessor.size=(64,64)',
             'test_dataloader.dataset.pipeline.1.scale=(64,64)']
    run = mim('train', 'mmacmix', 'my_segmenter.py', '--work-dir', 'work_dirs/segmenter',
              '--cfg-options', *short, cwd=workspace)
    assert run.code == 0, run.output
    run = mim('test', 'mmseg', 'my_segmenter.py', '--checkpoint', 'work_dirs/segmenter/iter_1.pth',
              '--cfg-options', short[-1], cwd=workspace)
    assert run.code == 0 and 'mIoU' in run.output, run.output


@pytest.mark.parametrize('name', ['retinanet_bccd.py', 'fpn_camvid.py'])
def test_examples_build(name):
    """The configs behind the measured figures: model and classes agree."""
    assert f'docs/examples/{name}' in README
    config = Config.fromfile(ROOT / 'docs' / 'examples' / name)
    init_default_scope(config.default_scope)
    model = MODELS.build(config.model)
    head = model.bbox_head if config.default_scope == 'mmdet' else model.decode_head
    assert head.num_classes == len(config.train_dataloader.dataset.metainfo.classes)


def test_layer_and_operator():
    """Each line of the example ends with the shape it gives."""
    code = block('import torch\nfrom mmacmix.layers')
    names = {}
    checked = 0
    for line in code.splitlines():
        statement, _, comment = line.partition('#')
        if '.shape' in statement:
            assert str(tuple(eval(statement, names))) == comment.strip(), line
            checked += 1
        else:
            exec(statement, names)
    assert checked == 2


def test_table_of_backbones():
    """The figures of the table are those of the counter."""
    path = ROOT / 'tools' / 'analysis_tools' / 'complexity.py'
    spec = importlib.util.spec_from_file_location('complexity', path)
    complexity = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(complexity)
    rows = re.findall(r"^\|[^|]*\| `dict\(type='mmacmix\.(\w+)', (.*?)\)` \|(.*)\|$", README, flags=re.M)
    assert len(rows) == 10
    for name, option, cells in rows:
        _, parameters, small, large = (cell.strip() for cell in cells.split('|'))
        for (height, width), shown in (((224, 224), small), ((800, 1344), large)):
            backbone = complexity.build(name, [option])
            figures = complexity.count(backbone, height, width)
            total = figures['total']
            assert f'{total.parameters / 1e6:.2f}' == parameters
            assert f'{total.multiply_adds / 1e9:.2f}' == shown
