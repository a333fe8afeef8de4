"""Configs in pure Python, whose types are classes, with the options of tools/train.py and tools/test.py."""
import pickle
from collections import OrderedDict
from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

TEXT = Path(__file__).with_name('pure_python_config.py').read_text()


@pytest.fixture(name='config')
def _config(coco, tmp_path, monkeypatch):
    monkeypatch.setattr(DefaultScope, '_instance_dict', OrderedDict())  # of runs before in this process
    path = tmp_path / 'pure.py'
    path.write_text(TEXT.replace('ROOT', str(coco)))
    return str(path)


def test_trains_tests_and_goes_on(train_tool, test_tool, config, tmp_path):
    work_dir = tmp_path / 'work'
    train_tool.main([config, '--work-dir', str(work_dir)])
    checkpoint = str(work_dir / 'epoch_1.pth')
    test_tool.main([config, checkpoint, '--work-dir', str(work_dir), '--tta', '--out', str(tmp_path / 'out.pkl')])
    assert [len(sample['pred_instances']['scores']) for sample in pickle.loads((tmp_path / 'out.pkl').read_bytes())]
    train_tool.main([config, '--work-dir', str(work_dir), '--resume', '--cfg-options', 'train_cfg.max_epochs=2'])
    assert (work_dir / 'epoch_2.pth').is_file()


def test_mixed_precision(train_tool, config, monkeypatch):
    args = [config, '--amp']
    with pytest.raises(ValueError, match='--amp must run on an accelerator .* got device=cpu'):
        train_tool.prepare(train_tool.parse_args(args))
    monkeypatch.setattr(train_tool, 'get_device', lambda: 'cuda')
    assert train_tool.prepare(train_tool.parse_args(args)).optim_wrapper.type == 'AmpOptimWrapper'
    with pytest.raises(ValueError, match='--amp-dtype bfloat16 must meet a segmenter .* got a config of mmdet'):
        train_tool.prepare(train_tool.parse_args([*args, '--amp-dtype', 'bfloat16']))


def test_mixed_precision_of_the_config(train_tool, config):
    text = Path(config).read_text().replace('OptimWrapper', 'AmpOptimWrapper')
    Path(config).write_text(text)
    with pytest.raises(ValueError, match='optim_wrapper.type=AmpOptimWrapper of the config must run on an accelerator'):
        train_tool.prepare(train_tool.parse_args([config]))


def test_folders_of_predictions(test_tool, config):
    cfg = test_tool.read_config(config)
    with pytest.raises(ValueError, match='--out must end with .pkl or .pickle, got --out labels'):
        test_tool.check_out(cfg, 'labels')
