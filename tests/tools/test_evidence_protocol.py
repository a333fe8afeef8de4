"""docs/evidence.md says what the configs of its rows do, and the rows differ in their backbones alone."""
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'
sys.path += [str(TOOLS), *(str(TOOLS / name) for name in ('evidence', 'demo', 'benchmarks', 'analysis_tools'))]
import rows  # noqa: E402
from evidence import bfloat16  # noqa: E402
from evidence.classwise_iou import ClasswiseIoU  # noqa: E402
from evidence.hooks import StartHook  # noqa: E402
from evidence.plain_resnet import PlainResNet  # noqa: E402

from mmacmix.backbones import ResNetACmix  # noqa: E402
from mmacmix.layers.shift import init_shift_kernels  # noqa: E402

PAGE = (ROOT / 'docs' / 'evidence.md').read_text()
ALL = [rows.Run(task, row, 0) for task in rows.TASKS for row in rows.ROWS]
#: Models that differ; the other rows start them otherwise.
MODELS_OF = [run for run in ALL if not re.search('no-shift|rates|warm|-on', run.row)]


def cfg_of(run):
    return Config.fromfile(run.config())


def test_every_row_has_a_config_and_a_place():
    assert {run.config().name for run in ALL} == {path.name for path in rows.CONFIGS.glob('*.py')}
    others = {path.name for path in (ROOT / 'configs').rglob('*.py')}
    assert not {run.config().name for run in ALL} & others
    for name, group in rows.GROUPS.items():
        assert f'| `{name}` |' in PAGE
        for row in group.rows:
            assert f'`{row}`' in PAGE or f'`..._{row.partition("_")[2]}`' in PAGE, row


@pytest.mark.parametrize('run', ALL, ids=lambda run: run.name)
def test_header(run):
    first, second = run.config().read_text().splitlines()[:2]
    assert rows.label(run.row).split(',')[0] in first and 'Results: docs/evidence.md' in first
    # What starts from another run's weights is no training for train.py, which would start it at random.
    starts = 'start_from' in run.config().read_text()
    command = (f'evidence/run.py --tasks {run.task} --rows {run.row}' if starts
               else f'train.py docs/evidence/configs/{run.config().name}')
    assert second == f'# python tools/{command}'


#: Of a row: what it has of paths, StartHook, decay of the rates and start_from.
VARIANTS = {
    'attention': dict(paths=('attention',)),
    'convolution': dict(paths=('convolution',)),
    'no-shift': dict(hook=dict(type='StartHook', shift=False)),
    'rates-1-0': dict(hook=dict(type='StartHook', rates=(1., 0.))),
    'rates-1-1': dict(hook=dict(type='StartHook', rates=(1., 1.))),
    'rates-decay': dict(decay=1.),
    'rates-decay-long': dict(decay=dict(bccd=71000., camvid=31500.)),
    'warm': dict(start_from='attention'),
    'attention-on': dict(paths=('attention',), start_from='attention'),
}


@pytest.mark.parametrize('run', ALL, ids=lambda run: run.name)
def test_row_is_what_its_name_says(run):
    base, _, name = run.row.partition('_')
    variant = VARIANTS.get(name, {})
    assert variant or not name
    cfg = cfg_of(run)
    assert cfg.model.backbone.get('paths') == variant.get('paths')
    assert [hook for hook in cfg.custom_hooks if hook['type'] == 'StartHook'] == [
        hook for hook in (variant.get('hook'),) if hook]
    decay = variant.get('decay', 0.)
    decay = decay[run.task] if isinstance(decay, dict) else decay
    keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
    assert keys.rate1.decay_mult == keys.rate2.decay_mult == decay
    assert cfg.get('start_from') == (f'{base}_{variant["start_from"]}' if 'start_from' in variant else None)
    # And the rest of the backbone is that of the row without a variant.
    first = cfg_of(rows.Run(run.task, base, 0)).model.backbone.to_dict()
    assert {**cfg.model.backbone.to_dict(), 'paths': None} == {**first, 'paths': None}
    assert run.small == (base not in ('resnet-acmix-26', 'resnet-26', 'resnet-18'))


@pytest.mark.parametrize('run', ALL, ids=lambda run: run.name)
def test_rows_differ_in_backbone_and_start_alone(run):
    def rest(cfg):
        cfg.model.pop('backbone')
        cfg.model.neck.pop('in_channels')
        keys = cfg.optim_wrapper.paramwise_cfg.custom_keys
        if 'rates-decay' in run.row:
            assert keys.rate1.decay_mult == keys.rate2.decay_mult
            keys.update(rate1=dict(decay_mult=0.), rate2=dict(decay_mult=0.))
        cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'StartHook']
        if run.row.startswith((rows.SAN, rows.PVT)):
            assert cfg.optim_wrapper.type in ('OptimWrapper', 'BFloat16OptimWrapper')
            cfg.optim_wrapper.type = None
        return {key: value for key, value in cfg.to_dict().items() if key not in ('start_from', 'arch')}

    first = rows.RESNET if run.row in rows.GROUPS['pass'].rows else rows.HALF
    assert rest(cfg_of(run)) == rest(cfg_of(rows.Run(run.task, first, 0)))
    assert cfg_of(run).model.backbone.get('norm_eval', False) is False
    if run.row.startswith((rows.SWIN, rows.PVT)):
        assert cfg_of(run).model.backbone.drop_path_rate == 0
    assert ('start_from' in cfg_of(run)) == run.row.endswith(('_warm', '-on'))


def test_what_is_smaller_in_the_groups_but_pass():
    """Sizes are as the page says, and all else is as in `pass`."""
    text = ' '.join(PAGE.split())
    wide, small = ({task: cfg_of(rows.Run(task, row, 0)) for task in rows.TASKS} for row in (rows.RESNET, rows.HALF))
    det, seg = (small[task].model for task in rows.TASKS)
    assert det.neck.out_channels == seg.neck.out_channels == det.bbox_head.feat_channels
    assert (f'{det.neck.out_channels} channels in the neck, {det.bbox_head.feat_channels} channels and '
            f'{det.bbox_head.stacked_convs} convolutions in RetinaNet\'s head, {seg.decode_head.channels} channels in '
            'that of Semantic FPN') in text
    anchors, before = (cfg['bccd'].model.bbox_head.anchor_generator.octave_base_scale for cfg in (small, wide))
    assert anchors * 2 == before
    sizes = {}
    for task, cfg in small.items():
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            resize, = (step for step in loader.dataset.pipeline if step.type == 'Resize')
            sizes[task] = resize.scale
            assert resize.keep_ratio
            names = [step.type for step in loader.dataset.pipeline]
            if loader is cfg.train_dataloader:  # labels are made smaller too
                assert names.index('Resize') == names.index('LoadAnnotations') + 1
            else:  # what is found is held against labels of the size that they have
                assert names.index('Resize') == names.index('LoadAnnotations') - 1
        for row in (rows.SAN, rows.PVT):
            assert cfg_of(rows.Run(task, row, 0)).optim_wrapper.type == 'OptimWrapper'
        assert cfg_of(rows.Run(task, rows.SWIN, 0)).optim_wrapper.type == 'BFloat16OptimWrapper'
        assert cfg.optim_wrapper.type == 'BFloat16OptimWrapper' and wide[task].optim_wrapper.type == 'OptimWrapper'
    crop = small['camvid'].train_pipeline[3].crop_size
    assert '({} x {}; CamVid: {} x {}, crops of {} x {})'.format(*sizes['bccd'], *sizes['camvid'], *crop) in text
    assert rows.Run('camvid', rows.HALF, 0).shape == crop == seg.data_preprocessor.size
    assert rows.Run('bccd', rows.HALF, 0).shape == (-(-sizes['bccd'][1] // 32) * 32, sizes['bccd'][0])
    assert rows.Run('bccd', rows.RESNET, 0).shape == rows.TASKS['bccd'].shape

    # With those put back, nothing differs.
    det.neck.out_channels = 256
    det.bbox_head.update(in_channels=256, feat_channels=256, stacked_convs=4)
    det.bbox_head.anchor_generator.octave_base_scale = before
    seg.data_preprocessor.size = (256, 256)
    seg.neck.out_channels = 128
    seg.decode_head.update(in_channels=[128] * 4, channels=64)
    for task in rows.TASKS:
        rest = []
        for cfg in (wide[task], small[task]):
            model = cfg.model.to_dict()
            model.pop('backbone')
            model['neck'].pop('in_channels')
            loaders = [cfg[f'{split}_dataloader'].to_dict() for split in ('train', 'val', 'test')]
            for loader in loaders:
                steps = loader['dataset'].pop('pipeline')
                loader['steps'] = [{**step, 'crop_size': None} for step in steps if step['type'] != 'Resize']
            optimizer = {**cfg.optim_wrapper.to_dict(), 'type': None}
            imports = [name for name in cfg.custom_imports.imports if name != 'evidence.bfloat16']
            rest.append((model, loaders, optimizer, cfg.param_scheduler, cfg.train_cfg, cfg.val_evaluator, imports,
                         cfg.custom_hooks, cfg.default_hooks))
        assert rest[0] == rest[1]


def test_bfloat16_is_of_the_loss_alone():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4)
    wrapper = build_optim_wrapper(
        model, dict(type='BFloat16OptimWrapper', optimizer=dict(type='SGD', lr=0.1), clip_grad=dict(max_norm=1e-3)))
    assert isinstance(wrapper, bfloat16.BFloat16OptimWrapper)
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        loss = model(torch.ones(1, 4))
        assert loss.dtype == torch.bfloat16
    wrapper.backward(loss.float().sum())
    assert model.weight.dtype == model.weight.grad.dtype == torch.float32
    assert model(torch.ones(1, 4)).dtype == torch.float32
    wrapper.step()
    assert 0 < (model.weight - before).norm() < 1.01e-4


class Seen(TorchDispatchMode):
    """Notes in which numbers products are computed."""

    def __init__(self):
        super().__init__()
        self.dtypes = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        if re.search('convolution|mm', str(operator)):
            self.dtypes += [x.dtype for x in args if isinstance(x, torch.Tensor)]
        return operator(*args, **(kwargs or {}))


class Products(torch.nn.Module):
    """Every product that a model can have: convolution, matrices and batches of them."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.Linear(8, 8)
        self.plain = torch.nn.Linear(8, 8, bias=False)

    def forward(self, x):
        x = self.fc(self.conv(x).flatten(2).transpose(1, 2))
        x = torch.baddbmm(x, x @ x.transpose(1, 2), x).relu()
        return self.plain(x.flatten(0, 1)).float().square().mean()


def bfloat16_step():
    torch.manual_seed(0)
    model = Products()
    wrapper = build_optim_wrapper(
        model, dict(type='BFloat16OptimWrapper', optimizer=dict(type='SGD', lr=0.1), clip_grad=dict(max_norm=1e-3)))
    with Seen() as seen:
        with wrapper.optim_context(model):
            loss = model(torch.randn(2, 3, 6, 6) / 4)
        wrapper.backward(loss)
    return set(seen.dtypes), [loss.detach(), *(weight.grad for weight in model.parameters())]


@pytest.mark.parametrize('capability, kernels', [('AVX2', torch.float32), ('AVX512', torch.bfloat16)])
def test_bfloat16_has_kernels_of_float32_where_it_is_slow(capability, kernels, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: capability)
    assert bfloat16_step()[0] == {kernels}


def test_bfloat16_has_its_own_kernels_on_other_devices(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda: 'AVX2')
    wrapper = build_optim_wrapper(
        Products().to('meta'), dict(type='BFloat16OptimWrapper', optimizer=dict(type='SGD', lr=0.1)))
    assert wrapper.kernels is contextlib.nullcontext


def test_bfloat16_by_kernels_of_float32_is_bfloat16(monkeypatch, relative_error):
    """As close to torch's own as these, which add in another order, are to themselves; not exact as in float32."""
    values = []
    for capability in ('AVX2', 'AVX512'):
        monkeypatch.setattr(torch.backends.cpu, 'get_cpu_capability', lambda name=capability: name)
        values.append(bfloat16_step()[1])
    torch.manual_seed(0)
    exact = Products()
    loss = exact(torch.randn(2, 3, 6, 6) / 4)
    loss.backward()
    exact = [loss.detach(), *(weight.grad for weight in exact.parameters())]
    apart = [[relative_error(*pair) for pair in zip(values[0], other)] for other in (values[1], exact)]
    assert max(apart[0]) < max(apart[1]) / 2
    assert sum(apart[0]) < sum(apart[1]) / 2


def test_bfloat16_accumulates_without_synchronising():
    class Replicated(torch.nn.Linear):
        waited = 0

        @contextlib.contextmanager
        def no_sync(self):
            self.waited += 1
            yield

    model = Replicated(4, 4)
    wrapper = build_optim_wrapper(
        model, dict(type='BFloat16OptimWrapper', accumulative_counts=2, optimizer=dict(type='SGD', lr=0.1)))
    for _ in range(4):
        with wrapper.optim_context(model):
            loss = model(torch.ones(1, 4)).float().sum()
        wrapper.update_params(loss)
    assert model.waited == 2


@pytest.mark.parametrize('task', rows.TASKS)
def test_small_configs_import_what_they_name(task):
    """In a process of their own, where no test has registered anything."""
    code = """
import sys
from mmengine.config import Config
from mmengine.registry import HOOKS, METRICS, OPTIM_WRAPPERS

cfg = Config.fromfile(sys.argv[1])
assert OPTIM_WRAPPERS.get(cfg.optim_wrapper.type)
assert all(HOOKS.get(hook.type) for hook in cfg.custom_hooks)
assert cfg.default_scope == 'mmdet' or METRICS.get(cfg.val_evaluator.type)
"""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / 'tools')]))
    config = rows.Run(task, f'{rows.HALF}_no-shift', 0).config()
    subprocess.run([sys.executable, '-c', code, str(config)], check=True, env=env, timeout=300)


@pytest.mark.parametrize('task, example', [('bccd', 'retinanet_bccd'), ('camvid', 'fpn_camvid')])
def test_schedule_is_that_of_the_example(task, example):
    ours, theirs = cfg_of(rows.Run(task, rows.RESNET, 0)), Config.fromfile(ROOT / 'docs' / 'examples' / f'{example}.py')
    for name in ('param_scheduler', 'train_pipeline', 'test_pipeline'):
        assert ours[name] == theirs[name], name
    for name in ('optimizer', 'clip_grad'):
        a, b = (dict(cfg.optim_wrapper.get(name) or {}) for cfg in (ours, theirs))
        assert {**dict(betas=None), **a} == {**dict(betas=None), **b}
    backbone = dict(frozen_stages=-1, norm_eval=False)
    ours.model.backbone.update(backbone)
    theirs.model.backbone.update(backbone)
    assert ours.model == theirs.model
    assert ours.train_dataloader.batch_size == theirs.train_dataloader.batch_size == 8


def cells(name):
    """(BCCD, CamVid) of a line of the protocol's table."""
    return re.search(rf'(?m)^\| {name} \| (.*?) \| (.*?) \|$', PAGE).groups()


def test_protocol_says_what_the_configs_say():
    det, seg = (cfg_of(rows.Run(task, rows.RESNET, 0)) for task in rows.TASKS)
    assert cells('batch') == (str(det.train_dataloader.batch_size), str(seg.train_dataloader.batch_size))
    epochs, steps = det.train_cfg.max_epochs, seg.train_cfg.max_iters
    assert cells('length') == (f'{epochs} epochs, {epochs * -(-292 // 8)} steps', f'{steps} steps')
    for cfg, cell in zip((det, seg), cells('optimiser')):
        optimizer = cfg.optim_wrapper.optimizer
        clip = cfg.optim_wrapper.get('clip_grad')
        numbers = [float(x) for x in re.findall(r'\d(?:e-\d)?', cell)]
        assert cell.startswith(optimizer.type)
        assert numbers == [optimizer.lr, optimizer.weight_decay, *([clip.max_norm] if clip else [])]
    warm, step = det.param_scheduler
    assert cells('schedule')[0] == f'linear warm-up over {warm.end} steps, a tenth after {step.milestones[0]} and ' \
                                   f'{step.milestones[1]} epochs' and step.gamma == 0.1
    poly, = seg.param_scheduler
    assert cells('schedule')[1] == f'polynomial, power {poly.power}, to {poly.eta_min:.0f}' and poly.end == steps
    at = [list(range(every, last + 1, every)) for every, last in (
        (det.train_cfg.val_interval, epochs), (seg.train_cfg.val_interval, steps))]
    for points, cell in zip(at, cells('evaluated')):
        assert [int(n) for n in re.findall(r'\d+', cell)] == points
    width, height = det.train_pipeline[2]['scale']
    crop = seg.train_pipeline[2]['crop_size']
    assert cells('images')[0].startswith(f'{width} x {height},')
    assert cells('images')[1].startswith(f'crops of {crop[0]} x {crop[1]},')
    assert rows.TASKS['camvid'].shape == crop and rows.TASKS['bccd'].shape == (-(-height // 32) * 32, width)
    assert cells('model')[1] == f'Semantic FPN, {seg.model.neck.out_channels} channels in the neck, ' \
                                f'{seg.model.decode_head.channels} in the head'


def test_anchors_are_those_of_the_page():
    text = ' '.join(PAGE.split())
    det, seg = (task.anchor for task in rows.TASKS.values())
    assert f'AP {det["coco/bbox_mAP"]} and AP50 {det["coco/bbox_mAP_50"]} on BCCD, mIoU {seg["mIoU"]} on CamVid' in text


@pytest.mark.parametrize('task, steps', [('bccd', 37), ('camvid', 600)])
def test_long_decay(task, steps):
    """Learning rate times decay, over all steps, is 1 in the row of the long training."""
    cfg = cfg_of(rows.Run(task, f'{rows.HALF}_rates-decay-long', 0))
    model = torch.nn.Module()
    model.rate1 = torch.nn.Parameter(torch.ones(1))
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    group, = wrapper.param_groups
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=wrapper.optimizer)) for s in cfg.param_scheduler]
    total = 0
    for _ in range(cfg.train_cfg.get('max_epochs', 1)):
        for _ in range(steps):
            total += group['lr'] * group['weight_decay']
            wrapper.optimizer.step()
            for scheduler in schedulers:
                if not scheduler.by_epoch:
                    scheduler.step()
        for scheduler in schedulers:
            if scheduler.by_epoch:
                scheduler.step()
    assert total == pytest.approx(1, abs=0.02)
    multiple = cfg.optim_wrapper.paramwise_cfg.custom_keys.rate1.decay_mult
    assert f'{multiple:.0f}' in PAGE
    # And the plain row decays by what the page says at most.
    assert total / multiple == pytest.approx(3e-5, rel=0.6) and '0.003 %' in PAGE


@pytest.mark.parametrize('run', MODELS_OF, ids=lambda run: run.name)
def test_a_step(run):
    cfg = cfg_of(run)
    init_default_scope(cfg.default_scope)
    if cfg.default_scope == 'mmseg':
        from mmengine.structures import PixelData
        from mmseg.structures import SegDataSample
        cfg.model.data_preprocessor.size = (64, 64)
        samples = [SegDataSample(metainfo=dict(img_shape=(64, 64))) for _ in range(2)]
        for sample in samples:
            sample.gt_sem_seg = PixelData(data=torch.randint(11, (1, 64, 64)))
        images = [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in samples]
        batch = dict(inputs=images, data_samples=samples)
    else:
        from mmdet.testing import demo_mm_inputs
        # Not smaller: see BFloat16OptimWrapper.
        batch = demo_mm_inputs(2, [[3, 128, 128]] * 2, num_items=[2, 2], num_classes=3)
    model = MODELS.build(cfg.model)
    model.init_weights()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    losses = model.train_step(batch, build_optim_wrapper(model, cfg.optim_wrapper))
    assert losses['loss'].isfinite()
    assert sum(not torch.equal(a, b) for a, b in zip(before, model.parameters())) > 0.8 * len(before)


@pytest.mark.parametrize('run', [run for run in ALL if run.row in (rows.RESNET, rows.HALF)], ids=lambda run: run.name)
def test_costs_are_those_of_an_image_as_in_training(run, monkeypatch):
    import facts

    shapes = []
    count = facts.count_model
    monkeypatch.setattr(facts, 'count_model', lambda model, *shape: shapes.append(shape) or count(model, *shape))
    found = facts.facts_of(run, run.config(), 'digest', {})
    assert shapes == [run.shape] and 0 < int(found['backbone_multiply_adds']) < int(found['multiply_adds'])


def test_digest_follows_what_decides(tmp_path):
    def written(text):
        path = tmp_path / 'camvid_resnet-26.py'
        path.write_text(f"_base_ = '{rows.CONFIGS}/camvid_resnet-26.py'\n{text}")
        return rows.digest(path)

    source = tmp_path / 'camvid_resnet-18.py'
    source.write_text(f"_base_ = '{rows.CONFIGS}/camvid_resnet-18.py'\n")
    first = rows.digest(rows.CONFIGS / 'camvid_resnet-26.py')
    assert written('') == first
    assert written("default_hooks = dict(logger=dict(interval=5))\n") == first
    assert written("train_dataloader = dict(num_workers=4, dataset=dict(data_root='elsewhere'))\n") == first
    usual = "train_dataloader = dict(dataset=dict(ann_file='annotations/instances_train2017.json'))\n"
    assert written(usual) == first
    others = [written(text) for text in (
        'model = dict(backbone=dict(depth=38))\n', 'optim_wrapper = dict(optimizer=dict(lr=1.))\n',
        'train_cfg = dict(max_iters=5)\n', "start_from = 'resnet-18'\n", 'train_dataloader = dict(batch_size=4)\n',
        "custom_hooks = _base_.custom_hooks + [dict(type='StartHook', shift=False)]\n",
        "custom_hooks = _base_.custom_hooks + [dict(type='EMAHook')]\n", "load_from = 'x.pth'\n",
        'randomness = dict(deterministic=True)\n',
        usual.replace('train2017', 'few'), usual.replace('train2017', 'val2017'),
        'custom_hooks = []\n', "default_hooks = dict(ema=dict(type='EMAHook'))\n",
        'default_hooks = dict(param_scheduler=None)\n', 'auto_scale_lr = dict(enable=True)\n')]
    assert len({first, *others}) == 16
    assert written("custom_hooks = _base_.custom_hooks + [dict(type='evidence.StartHook', shift=False)]\n") == others[5]
    assert written('randomness = dict(seed=5)\n') == first
    with open(source, 'a') as file:
        file.write('train_cfg = dict(max_iters=5)\n')
    assert written("start_from = 'resnet-18'\n") not in others  # and what it starts from counts


def test_expand():
    assert rows.expand(['pass', 'resnet-18', 'san']) == [*rows.GROUPS['pass'].rows, *rows.GROUPS['san'].rows]
    with pytest.raises(ValueError, match=r"rows must be groups \(pass, .*\) or rows .*, got no-such"):
        rows.expand(['no-such'])


def test_plain_resnet_has_the_stages_of_ours():
    for depth, blocks in ResNetACmix.depths.items():
        assert PlainResNet.arch_settings[depth][1] == blocks
    shapes = [[tuple(x.shape) for x in model(torch.zeros(1, 3, 64, 64))] for model in (
        PlainResNet(26, base_channels=8, stem_channels=8),
        ResNetACmix(26, base_channels=8, stem_channels=8))]
    assert shapes[0] == shapes[1]


class FakeRunner:
    def __init__(self, model, iteration=0):
        self.model, self.iter = model, iteration


def test_start_hook():
    model = ResNetACmix(26, base_channels=8, stem_channels=8)
    model.init_weights()
    layer = model.layer1[0].conv2
    shift = torch.empty_like(layer.dep_conv.weight)
    init_shift_kernels(shift)
    StartHook(rates=(1., 0.)).before_train(FakeRunner(model, iteration=5))
    assert layer.rate1.item() == 0.5  # a resumed run
    StartHook(rates=(1., 0.)).before_train(FakeRunner(model))
    assert (layer.rate1.item(), layer.rate2.item()) == (1., 0.)
    assert torch.equal(layer.dep_conv.weight, shift)
    projection = layer.conv1.weight.detach().clone()
    StartHook(shift=False).before_train(FakeRunner(model))
    assert (layer.rate1.item(), layer.rate2.item()) == (1., 0.)
    assert layer.dep_conv.weight.std().item() == pytest.approx((2 / (9 * layer.out_channels)) ** 0.5, rel=0.2)
    assert not torch.equal(layer.dep_conv.weight, shift) and torch.equal(layer.conv1.weight, projection)
    with pytest.raises(ValueError, match=r'rates must be those of attention and convolution, got rates=\(1.0,\)'):
        StartHook(rates=(1.,))
    with pytest.raises(ValueError, match='StartHook must meet a model with ACmix layers, got none'):
        StartHook(shift=False).before_train(FakeRunner(torch.nn.Linear(1, 1)))


def test_classwise_iou():
    metric = ClasswiseIoU()
    metric.dataset_meta = dict(classes=('sky', 'road', 'tree'))
    truth = torch.tensor([[0, 0, 1, 255]])
    guess = torch.tensor([[0, 1, 1, 1]])
    metric.process({}, [dict(pred_sem_seg=dict(data=guess), gt_sem_seg=dict(data=truth))])
    metrics = metric.evaluate(1)
    assert (metrics['IoU/sky'], metrics['IoU/road']) == (50., 50.) and metrics['mIoU'] == 50.
