"""Nothing that a checkpoint file holds is ever run, and no file takes more memory than it has bytes."""

import importlib.util
import resource
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import MODELS
from mmengine.runner import Runner, load_checkpoint

from mmacmix.checkpoint_files import _allowing_few, check_file, load_file
from mmacmix.checkpoints import load_pretrained, read_checkpoint
from mmacmix.safe_globals import mmengine_globals

ROOT = Path(__file__).parents[1]


def module_of(path):
    spec = importlib.util.spec_from_file_location(f'malice_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CRAFTED = module_of(Path(__file__).with_name('crafted_files.py'))
FILES = CRAFTED.FILES


@MODELS.register_module()
class Attacked(BaseModel):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.backbone = torch.nn.Linear(2, 4)

    def forward(self, *inputs, mode):
        return dict(loss=self.backbone(torch.stack(inputs)).square().mean())


def runner(path, tmp_path, **options):
    return Runner.from_cfg(Config(dict(
        model=dict(type='Attacked'), work_dir=str(tmp_path / 'work'), default_scope='mmengine',
        custom_hooks=[dict(type='mmacmix.CheckpointGuardHook')],
        experiment_name=f'{tmp_path.name}_{torch.rand(1).item()}', load_from=str(path), **options)))


def tested(path, tmp_path):
    """As tools/test.py and the hosts' own do."""
    loader = dict(dataset=[torch.ones(2)], sampler=dict(type='DefaultSampler'), batch_size=1)
    options = dict(test_dataloader=loader, test_cfg=dict(), test_evaluator=dict(
        type='DumpResults', out_file_path=str(tmp_path / 'results.pkl')))
    runner(path, tmp_path, **options).test()


def resumed(path, tmp_path):
    """As tools/train.py and the hosts' own do; mmengine would run meta['config']."""
    loader = dict(dataset=[torch.ones(2)], sampler=dict(type='DefaultSampler'), batch_size=1)
    options = dict(train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=2),
                   optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)))
    runner(path, tmp_path, resume=True, **options).train()


def init_cfg(path, tmp_path):
    """Of the backbones here, which load by themselves."""
    load_pretrained(torch.nn.Linear(2, 4), str(path), prefix='backbone')


def init_cfg_of_mmengine(path, tmp_path):
    """Of any other module, and `pretrained` of a whole model."""
    module = BaseModule(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    module.backbone = torch.nn.Linear(2, 4)
    module.init_weights()


def loaded(path, tmp_path):
    """As the hosts' inferencers do."""
    load_checkpoint(Attacked(), str(path), map_location='cpu')


def converter(path, tmp_path, monkeypatch):
    tool = module_of(ROOT / 'tools/model_converters/convert_checkpoint.py')
    monkeypatch.setattr(sys, 'argv', ['convert', str(path), str(tmp_path / 'out.pth'), '--source', 'resnet'])
    with pytest.raises(SystemExit) as stop:
        tool.main()
    assert not (tmp_path / 'out.pth').exists()
    raise ValueError(str(stop.value.code))


DOORS = dict(tested=tested, resumed=resumed, init_cfg=init_cfg, init_cfg_of_mmengine=init_cfg_of_mmengine,
             loaded=loaded)


@pytest.fixture
def crafted(tmp_path):
    """crafted(name) makes the file; its `path`, and `canary`, which must not come into being."""

    def make(name):
        path, canary = tmp_path / f'{name}.pth', tmp_path / 'canary'
        FILES[name](path, canary)
        return SimpleNamespace(path=path, canary=canary)

    return make


def peak():
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_the_files_would_do_harm(crafted):
    """Those that are valid for an unpickler without care run."""
    for name in ('os_system', 'eval', 'exec', 'open', 'in_the_message_hub', 'nested_reduce', 'legacy_pickle'):
        file = crafted(name)
        torch.load(file.path, weights_only=False)
        assert file.canary.exists(), name
        file.canary.unlink()


@pytest.mark.parametrize('door', DOORS)
@pytest.mark.parametrize('name', FILES)
def test_refused(crafted, tmp_path, name, door):
    file, before = crafted(name), peak()
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        DOORS[door](file.path, tmp_path)
    assert str(file.path) in str(refused.value)
    assert not file.canary.exists()
    assert peak() - before < 2**28


@pytest.mark.parametrize('name', FILES)
def test_converter(crafted, tmp_path, monkeypatch, capsys, name):
    file = crafted(name)
    with pytest.raises(ValueError) as refused:
        converter(file.path, tmp_path, monkeypatch)
    assert str(file.path) in str(refused.value) + capsys.readouterr().err
    assert not file.canary.exists()
