"""Nothing that a checkpoint file holds is ever run, and no file takes more memory than it has bytes."""

import faulthandler
import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import METRICS, MODELS
from mmengine.runner import Runner, load_checkpoint

from mmacmix import checkpoint_files
from mmacmix.checkpoint_files import _allowing_few, load_file
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
        loss = self.backbone(torch.stack(inputs)).square().mean()
        return dict(loss=loss) if mode == 'loss' else [loss.item()]


def runner(path, tmp_path, **options):
    return Runner.from_cfg(Config(dict(
        model=dict(type='Attacked'), work_dir=str(tmp_path / 'work'), default_scope='mmengine',
        custom_hooks=[dict(type='mmacmix.CheckpointGuardHook')],
        experiment_name=f'{tmp_path.name}_{torch.rand(1).item()}', load_from=str(path), **options)))


def evaluated(path, tmp_path):
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
    again = runner(path, tmp_path, resume=True, **options)
    again.train()
    return again


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


def read(path, tmp_path):
    """As tools/predict.py, tools/deployment/export_backbone.py and the analysis tools do."""
    read_checkpoint(str(path))


def converter(path, tmp_path, monkeypatch):
    tool = module_of(ROOT / 'tools/model_converters/convert_checkpoint.py')
    monkeypatch.setattr(sys, 'argv', ['convert', str(path), str(tmp_path / 'out.pth'), '--source', 'resnet'])
    with pytest.raises(SystemExit) as stop:
        tool.main()
    assert not (tmp_path / 'out.pth').exists()
    raise ValueError(str(stop.value.code))


DOORS = dict(evaluated=evaluated, resumed=resumed, init_cfg=init_cfg, init_cfg_of_mmengine=init_cfg_of_mmengine,
             loaded=loaded, read=read)


@pytest.fixture
def crafted(tmp_path):
    """crafted(name) makes the file; its `path`, and `canary`, which must not come into being."""

    def make(name):
        path, canary = tmp_path / f'{name}.pth', tmp_path / 'canary'
        FILES[name](path, canary)
        return SimpleNamespace(path=path, canary=canary)

    return make


@pytest.fixture(autouse=True)
def in_time():
    """Nothing else ends what hangs in C: the process stops and shows where."""
    faulthandler.dump_traceback_later(300, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


class Growth:
    """Bytes that the process has at most while a block runs, more than at its start.

    The system's mark of the most memory is set back first: one that is never set back hides all that is less than
    an earlier peak.
    """

    def read(self, name):
        line = next(x for x in Path('/proc/self/status').read_text().splitlines() if x.startswith(name))
        return int(line.split()[1]) * 1024

    def __enter__(self):
        Path('/proc/self/clear_refs').write_text('5')
        self.start = self.read('VmRSS')
        return self

    def __exit__(self, *error):
        self.most = self.read('VmHWM') - self.start


on_linux = pytest.mark.skipif(not sys.platform.startswith('linux'), reason='memory is measured by /proc')


@on_linux
def test_the_measure_sees_what_is_less_than_an_earlier_peak():
    np.ones(2**26)
    with Growth() as growth:
        np.ones(2**25)
    assert abs(growth.most - 2**28) < 2**25


def test_the_files_would_do_harm(crafted):
    """Those that are valid for an unpickler without care run."""
    for name in ('os_system', 'eval', 'exec', 'open', 'in_the_message_hub', 'nested_reduce', 'legacy_pickle'):
        file = crafted(name)
        torch.load(file.path, weights_only=False)
        assert file.canary.exists(), name
        file.canary.unlink()
    torch.load(crafted('two_directories').path, weights_only=False)
    assert file.canary.exists()


@on_linux
@pytest.mark.parametrize('door', DOORS)
@pytest.mark.parametrize('name', FILES)
def test_refused(crafted, tmp_path, name, door):
    file = crafted(name)
    with Growth() as growth, pytest.raises((ValueError, FileNotFoundError)) as refused:
        DOORS[door](file.path, tmp_path)
    assert str(file.path) in str(refused.value)
    assert not file.canary.exists()
    assert growth.most < 2**28


@pytest.mark.parametrize('name', FILES)
def test_converter(crafted, tmp_path, monkeypatch, capsys, name):
    file = crafted(name)
    with pytest.raises(ValueError) as refused:
        converter(file.path, tmp_path, monkeypatch)
    assert str(file.path) in str(refused.value) + capsys.readouterr().err
    assert not file.canary.exists()


@on_linux
@pytest.mark.parametrize('name', FILES)
def test_older_torch(crafted, monkeypatch, name):
    """Before 2.6 torch is given another unpickler."""
    monkeypatch.setattr(checkpoint_files, 'SAFE_MODE', False)
    file = crafted(name)
    with Growth() as growth, pytest.raises((ValueError, FileNotFoundError)) as refused:
        load_file(str(file.path))
    assert str(file.path) in str(refused.value)
    assert not file.canary.exists()
    assert growth.most < 2**28


@pytest.mark.parametrize('name', CRAFTED.UNKNOWN_NAMES)
def test_older_torch_alone(crafted, name):
    """Without our own check first."""
    file = crafted(name)
    with pytest.raises(Exception, match='Unsupported global|may only refer to the statistics|no attribute'):
        torch.load(file.path, pickle_module=_allowing_few(), weights_only=False)
    assert not file.canary.exists()


# The allow-list.


NUMBERS = ('bool', 'int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64', 'float16', 'float32',
           'float64')


@METRICS.register_module()
class Single(BaseMetric):
    """As mmseg's IoUMetric gives its figures."""

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(mIoU=np.float32(0.5))


@pytest.fixture(scope='session')
def own(tmp_path_factory):
    """A checkpoint of mmengine's runner with what a metric and a loss leave in its message hub."""
    folder = tmp_path_factory.mktemp('own')
    loader = dict(dataset=[torch.ones(2)], sampler=dict(type='DefaultSampler'), batch_size=1)
    run = Runner.from_cfg(Config(dict(
        model=dict(type='Attacked'), work_dir=str(folder), default_scope='mmengine', experiment_name='own',
        train_dataloader=loader, train_cfg=dict(by_epoch=True, max_epochs=2),
        val_dataloader=loader, val_cfg=dict(), val_evaluator=dict(type='Single'),
        param_scheduler=[
            dict(type='MultiStepLR', milestones=[1, 2]),
            *(dict(type='OneCycleLR', eta_max=0.1, total_steps=2, anneal_strategy=curve)
              for curve in ('cos', 'linear'))],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='mIoU')),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)))))
    for kind in NUMBERS:
        run.message_hub.update_info(kind, np.dtype(kind).type(1))
    run.train()
    return folder / 'epoch_2.pth'


def spelt(path, target, old, new):
    """The same checkpoint as another numpy writes it."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, 'w') as made:
        for name in source.namelist():
            made.writestr(name, source.read(name).replace(old, new))
    return target


def test_own_checkpoints_load(own, tmp_path, monkeypatch):
    for old, new in ((b'numpy._core.', b'numpy.core.'), (b'numpy.core.', b'numpy._core.')):
        path = spelt(own, tmp_path / 'spelt.pth', old, new)
        hub = load_file(str(path))['message_hub']
        best = hub['runtime_info']['best_score']
        assert hub['log_scalars']['train/loss'].mean() > 0 and best == 0.5 and type(best) is np.float32
        assert all(type(hub['runtime_info'][kind]) is np.dtype(kind).type for kind in NUMBERS)
        with monkeypatch.context() as older:
            older.setattr(checkpoint_files, 'SAFE_MODE', False)
            same = load_file(str(path))['message_hub']
        assert same['log_scalars']['train/loss'].mean() == hub['log_scalars']['train/loss'].mean()
        assert same['runtime_info'] == hub['runtime_info']


def test_own_checkpoints_resume(own, tmp_path):
    """Also the best one."""
    best, = own.parent.glob('best_mIoU_*.pth')
    for path in (own, best):
        assert resumed(path, tmp_path / path.stem).epoch == 2


@pytest.mark.skipif(torch.__version__ < (2, 6), reason='has no list')
@pytest.mark.parametrize('name', mmengine_globals())
def test_every_name_is_needed(own, tmp_path, name):
    allowed = mmengine_globals()
    del allowed[name]
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        torch.serialization.add_safe_globals([(value, key) for key, value in allowed.items()])
        refused = 0
        for old, new in ((b'numpy._core.', b'numpy.core.'), (b'numpy.core.', b'numpy._core.')):
            try:
                load_file(str(spelt(own, tmp_path / 'spelt.pth', old, new)))
            except ValueError:
                refused += 1
        assert refused
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


@pytest.mark.skipif(torch.__version__ < (2, 6), reason='has no list')
def test_nothing_else_is_allowed():
    """The builtin getattr least of all."""
    allowed = torch.serialization.get_safe_globals()
    pairs = [entry for entry in allowed if isinstance(entry, tuple)]
    assert {name for _, name in pairs} == set(mmengine_globals()) and getattr not in [value for value, _ in pairs]
    # Classes without a name are torch's own.
    assert {entry.__module__.split('.')[0] for entry in allowed if not isinstance(entry, tuple)} <= {'torch'}
    assert set(mmengine_globals()) == {
        'builtins.getattr', 'mmengine.logging.history_buffer.HistoryBuffer', 'numpy.ndarray', 'numpy.dtype',
        'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler',
        'numpy.core.multiarray._reconstruct', 'numpy._core.multiarray._reconstruct', 'numpy.core.multiarray.scalar',
        'numpy._core.multiarray.scalar', *(f'{type(np.dtype(kind)).__module__}.{type(np.dtype(kind)).__qualname__}'
                                          for kind in NUMBERS)}


def test_a_whole_process(crafted, tmp_path):
    """tools/train.py as a user starts it; `mim test` is with the other tests of mim."""
    config = tmp_path / 'config.py'
    config.write_text("default_scope, model, optim_wrapper = 'mmengine', dict(type='ImgDataPreprocessor'), dict()\n")
    file = crafted('config_text')
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), str(config), '--resume', str(file.path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert f'train.py: error: cannot read {file.path} as a checkpoint: its meta' in done.stderr
    assert not file.canary.exists()
