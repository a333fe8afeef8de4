"""The demo's trainings with a small backbone of every family: half precision, and fast against plain."""

import contextlib
import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.runner import Runner
from reliability_plain import definitions

ROOT = Path(__file__).resolve().parents[2]
BACKBONES = {
    'resnet': (dict(type='mmacmix.ResNetACmix', depth=26, base_channels=8, stem_channels=8), [32, 64, 128, 256]),
    'swin': (
        dict(type='mmacmix.SwinACmix', arch=dict(embed_dims=8, depths=(2, 2, 2, 1), num_heads=(1, 2, 2, 4))),
        [8, 16, 32, 64],
    ),
    'pvt': (
        dict(
            type='mmacmix.PVTACmix',
            arch=dict(
                embed_dims=(8, 16, 40, 64),
                depths=(2, 1, 2, 1),
                num_heads=(1, 2, 5, 8),
                sr_ratios=(8, 4, 2, 1),
                mlp_ratios=(8, 8, 4, 4),
            ),
        ),
        [8, 16, 40, 64],
    ),
    'san': (dict(type='mmacmix.SANACmix', depth=10, stem_channels=32), [128, 256, 512, 1024]),
}
HALF = ['bfloat16', 'float16']


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(AmpOptimWrapper):
    """mmengine's own in all but its start, which asks for an accelerator, and its autocast, which refuses float16.

    `heads` tells whether heads are under autocast too: those of detectors need operators of mmcv, which take float32
    alone on a CPU.
    """

    def __init__(self, dtype, heads, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.heads = heads
        self.cast_dtype = getattr(torch, dtype)
        self.loss_scaler = torch.amp.GradScaler('cpu')
        self._scale_update_param = None

    @contextlib.contextmanager
    def optim_context(self, model):
        half = torch.autocast('cpu', self.cast_dtype)
        with OptimWrapper.optim_context(self, model), pytest.MonkeyPatch.context() as patch:
            if self.heads:
                with half:
                    yield
                return
            maps = model.extract_feat

            def extract_feat(images):
                with half:
                    return tuple(x.float() for x in maps(images))

            patch.setattr(model, 'extract_feat', extract_feat)
            yield


class Losses(Hook):
    def __init__(self):
        self.values = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.values.append(outputs['loss'].item())


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """The demo's data set, small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools' / 'demo'))
        from make_dataset import make_dataset

        out = tmp_path_factory.mktemp('data') / 'demo'
        make_dataset(out, train=16, val=1, size=64)
    return out


def segmenter(data):
    """The demo's, narrow."""
    cfg = Config.fromfile(str(ROOT / 'configs/demo/fpn_resnet-acmix_demo.py'))
    cfg.model.data_preprocessor.size = (64, 64)
    cfg.model.neck.out_channels = 16
    cfg.model.decode_head.update(in_channels=[16] * 4, channels=16)
    cfg.train_dataloader.dataset.data_root = f'{data}/ade/'
    return cfg


def detector(data):
    """The demo's, on smaller images."""
    cfg = Config.fromfile(str(ROOT / 'configs/demo/mask-rcnn_resnet-acmix_demo.py'))
    for step in cfg.train_dataloader.dataset.pipeline:
        if step.type == 'Resize':
            step.scale = (64, 64)
    cfg.train_dataloader.dataset.data_root = f'{data}/coco/'
    return cfg


@pytest.fixture()
def train(data, tmp_path):
    """train(family, steps, ...) trains one of the demo's models and returns the runner and the losses."""

    def run(family, steps, config=segmenter, autocast=None, dtype=torch.float32, nudge=False):
        cfg = config(data)
        cfg.model.backbone, cfg.model.neck.in_channels = BACKBONES[family]
        cfg.train_dataloader.update(batch_size=2, num_workers=0, persistent_workers=False)
        for split in ('val', 'test'):
            for name in ('cfg', 'dataloader', 'evaluator'):
                cfg[f'{split}_{name}'] = None
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps)
        cfg.param_scheduler = None  # no warm-up, in which little would happen
        cfg.default_hooks.checkpoint.update(interval=10**6, save_last=False)
        cfg.work_dir = str(tmp_path)
        cfg.experiment_name = f'{family}_{len(list(tmp_path.iterdir()))}'
        if autocast:
            cfg.optim_wrapper.update(type='CPUAmpOptimWrapper', dtype=autocast, heads=config is segmenter)
        runner, losses = Runner.from_cfg(cfg), Losses()
        runner.register_hook(losses)
        runner.model.to(dtype)
        runner.model.backbone.register_forward_pre_hook(lambda module, args: (args[0].to(dtype),))
        if nudge:
            eps, generator = torch.finfo(dtype).eps, torch.Generator().manual_seed(0)
            for parameter in runner.model.parameters():
                parameter.data.mul_(1 + eps * torch.randint(-1, 2, parameter.shape, generator=generator).to(dtype))
        runner.train()
        return runner, losses.values

    return run


def check_half(train, family, dtype, steps, record_property, config=segmenter):
    runner, losses = train(family, steps, config, autocast=dtype)
    assert len(losses) == steps and all(map(math.isfinite, losses))
    state = runner.model.state_dict()
    assert [name for name, x in state.items() if x.is_floating_point() and not x.isfinite().all()] == []
    ends = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
    skipped = steps - _steps_taken(runner)
    record_property(
        'cases', f'{config.__name__}, {family}, {dtype}: loss {ends[0]:.3f} to {ends[1]:.3f}, {skipped} steps skipped')
    return ends, skipped


def _steps_taken(runner):
    return int(max((state['step'] for state in runner.optim_wrapper.optimizer.state.values()), default=0))


@pytest.mark.skipif(torch.__version__ < (2, 6), reason='no float16 on a CPU before')
@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('family', BACKBONES)
def test_half_precision_stays_finite(train, family, dtype, request, record_property):
    steps = 200 if request.config.getoption('--nightly') else 6
    ends, skipped = check_half(train, family, dtype, steps, record_property)
    # mmengine starts with a scale of 2**16, which float16 may halve a few times; bfloat16 has the range of float32.
    assert skipped <= (4 if dtype == 'float16' else 0)
    if steps == 200:
        assert ends[1] < 0.8 * ends[0]


@pytest.mark.nightly
@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('family', BACKBONES)
def test_detectors_in_half_precision_stay_finite(train, family, dtype, record_property):
    ends, skipped = check_half(train, family, dtype, 200, record_property, detector)
    # From 2**16 to 2**8: what else is too large in float16, no scale that mmengine would ever come to could mend.
    assert skipped <= (8 if dtype == 'float16' else 0) and ends[1] < 0.8 * ends[0]


@pytest.mark.parametrize('family', BACKBONES)
def test_fast_paths_give_the_losses_of_the_definitions(train, family, request, record_property):
    """Within 1e-4, as long as the definition itself, with weights of which each may be the next number, stays within
    1e-4 of what it was: a training can be chaotic, and enlarge any rounding."""
    steps = 100 if request.config.getoption('--nightly') else 4
    _, fast = train(family, steps, dtype=torch.float64)
    with definitions():
        _, plain = train(family, steps, dtype=torch.float64)
        _, nudged = train(family, steps, dtype=torch.float64, nudge=True)
    apart, own = ([abs(a - b) for a, b in zip(losses, plain)] for losses in (fast, nudged))
    judged = next((i for i, x in enumerate(own) if x >= 1e-4), steps)
    record_property(
        'cases', f'{family}, float64: losses of {judged} steps {max(apart[:judged], default=0):.1e} apart, of all '
        f'{max(apart):.1e}; the definition {max(own):.1e} from itself')
    assert len(apart) == steps and fast[0] != fast[-1] and judged >= 4
    assert max(apart[:judged]) < 1e-4


@pytest.mark.nightly
@pytest.mark.parametrize('family', BACKBONES)
def test_float32_drifts_by_its_roundings(train, family, record_property):
    """Training enlarges a rounding: the definition, with weights of which each may be the next number, ends elsewhere
    too. The first losses are those of the definition; how far the others are apart is told, not judged."""
    _, fast = train(family, 100)
    with definitions():
        _, plain = train(family, 100)
        _, nudged = train(family, 100, nudge=True)
    apart, own = ([abs(a - b) for a, b in zip(losses, plain)] for losses in (fast, nudged))
    record_property('cases', f'{family}, float32: {max(apart):.1e} apart, the definition {max(own):.1e} from itself')
    assert apart[0] <= 1e-6
