"""The benchmark of whole models: what it runs is the whole work, and what it compares fits the same heads."""
import contextlib
import gc
import importlib
import json
import logging
import sys
from pathlib import Path

import mmdet
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [ROOT / 'tools' / name for name in ('analysis_tools', 'benchmarks')]
DETECTOR = str(ROOT / 'configs/demo/mask-rcnn_resnet-acmix_demo.py')
SEGMENTER = str(ROOT / 'configs/demo/fpn_resnet-acmix_demo.py')
FAMILIES = ('resnet-acmix-26', 'san-acmix-10', 'pvt-acmix-t', 'swin-acmix-t')


@pytest.fixture()
def tool(monkeypatch):
    """tool(name): a module of the tools; afterwards as if it had never been imported."""
    names = [path.stem for folder in FOLDERS for path in folder.glob('*.py')]
    path = list(sys.path)
    for folder in FOLDERS:
        monkeypatch.syspath_prepend(str(folder))
    before = {name: sys.modules.pop(name, None) for name in names}
    yield importlib.import_module
    sys.path[:] = path
    for name in names:
        sys.modules.pop(name, None)
        if before[name]:
            sys.modules[name] = before[name]


@pytest.fixture()
def cost(tool):
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # initialisation of every layer
    yield tool('whole_model_cost')
    logging.disable(level)


@pytest.fixture()
def here(tool, cost, monkeypatch):
    """Jobs are done in this process."""
    worker = tool('worker')

    @contextlib.contextmanager
    def kept():
        threads = torch.get_num_threads()
        allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
        yield
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed

    def ask(job):
        with kept():
            yield from worker.answer(json.loads(json.dumps(job)))

    monkeypatch.setattr(tool('runs'), 'ask', ask)
    for name in ('collect', 'freeze'):
        monkeypatch.setattr(gc, name, lambda: 0)
    return tool('benchmark')


def case_of(name, height=192, width=256, batch=2):
    case = dict(height=height, width=width, device='cpu', dtype='float32', batch=batch)
    return {'pass': name, **case}


@pytest.fixture()
def prepared(cost, monkeypatch):
    """prepared(config, plain, pass): the call that is measured, and its model."""

    def prepare(path, plain, name):
        models, build = [], cost.build

        def remember(cfg):
            models.append(build(cfg))
            return models[-1]

        monkeypatch.setattr(cost, 'build', remember)
        case = case_of(name)
        at = cost.prepare(case, cost.Side(path, plain).name())
        return at(case['height'], case['width']), models[-1]

    return prepare


@pytest.mark.parametrize('plain', [False, True], ids=['ours', 'plain'])
def test_inference_has_as_many_objects_as_the_config_lets_through(prepared, monkeypatch, plain):
    call, model = prepared(DETECTOR, plain, 'forward')
    found, step = [], model.test_step
    monkeypatch.setattr(model, 'test_step', lambda data: found.extend(step(data)))
    call()
    most = model.roi_head.test_cfg.max_per_img
    assert [len(sample.pred_instances) for sample in found] == [most] * 2
    assert found[0].pred_instances.masks.shape == (most, 192, 256)
    assert not model.training


@pytest.mark.parametrize('path', [DETECTOR, SEGMENTER], ids=['detector', 'segmenter'])
@pytest.mark.parametrize('plain', [False, True], ids=['ours', 'plain'])
def test_training_is_a_step_that_can_be_repeated(prepared, path, plain):
    call, model = prepared(path, plain, 'training')
    before = {name: p.clone() for name, p in model.named_parameters()}
    reached = set()
    for name, p in model.named_parameters():
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda _, name=name: reached.add(name))
    call()
    assert reached == {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


def test_optimizer_does_its_work(cost):
    model = torch.nn.Linear(2, 2)
    cfg = Config(dict(optim_wrapper=dict(
        type='AmpOptimWrapper', loss_scale='dynamic', clip_grad=dict(max_norm=1), optimizer=dict(type='AdamW', lr=1))))
    wrapper = cost.optimizer_of(model, cfg)
    wrapper.update_params(model(torch.ones(1, 2)).sum())
    assert type(wrapper).__name__ == 'OptimWrapper' and wrapper.clip_grad_kwargs == dict(max_norm=1)
    assert wrapper.optimizer.state[model.weight]['exp_avg'].abs().min() > 0


@pytest.mark.parametrize('family', FAMILIES)
@pytest.mark.parametrize('method', ['retinanet', 'sem_fpn'])
def test_plain_backbone_fits_the_same_heads(cost, method, family):
    (path,) = (ROOT / 'configs' / method).glob(f'*_{family}_*')
    shapes = []
    for plain in (False, True):
        cfg = cost.config_of(cost.Side(str(path), plain))
        init_default_scope(cfg.default_scope)
        backbone = MODELS.build(cfg.model.backbone).to('meta')
        backbone.eval()  # returns None in some hosts
        maps = backbone(torch.empty(1, 3, 64, 64, device='meta'))
        shapes.append([tuple(x.shape) for x in maps])
    assert shapes[0] == shapes[1]
    assert [shape[1] for shape in shapes[0]] == list(cfg.model.neck.in_channels)


def test_settings_reach_both_backbones(cost):
    options = ('model.backbone.drop_path_rate=0.3', 'model.backbone.with_cp=True')
    (path,) = (ROOT / 'configs/retinanet').glob('*_swin-acmix-t_*')
    for plain in (False, True):
        backbone = cost.config_of(cost.Side(str(path), plain, options)).model.backbone
        assert (backbone.drop_path_rate, backbone.with_cp) == (0.3, True)
        assert tuple(backbone.out_indices) == (1, 2, 3)


def test_names_of_sides_tell_contents_apart(cost):
    one = cost.Side(DETECTOR, True, ('model.backbone.norm_eval=True', 'model.backbone.out_indices=[1, 2]'))
    assert cost.Side.of(one.name()) == one
    names = {side.name() for side in (
        one, one._replace(plain=False), cost.Side(DETECTOR), cost.Side(DETECTOR, options=('model.backbone.depth=38',)))}
    assert len(names) == len({name.rpartition('#')[2] for name in names}) == 4


def test_command_line(here, tmp_path, capsys):
    out = tmp_path / 'rows.csv'
    argv = [SEGMENTER, '--shape', '64', '96', '--rounds', '1', '--threads', '1', '--out', str(out)]
    assert here.main(argv) == 0
    printed = capsys.readouterr().out
    table = printed.splitlines()[-7:]
    assert '\n64 x 96, batch 2, float32' in printed
    rows = here.records.read(out)
    assert [(row['pass'], '--plain' in row['side'], row['status']) for row in rows] == [
        (name, plain, 'ok') for name in ('forward', 'training') for plain in (False, True)]
    speeds = [float(line.split('|')[4]) for line in table if 'fpn_resnet' in line]
    assert speeds == pytest.approx([2 / float(row['median_s']) for row in rows], rel=0.01)
    ratio = float(rows[1]['median_s']) / float(rows[0]['median_s'])
    assert float(table[3].split('|')[4].strip(' x')) == pytest.approx(ratio, abs=0.006)
    assert [line.split('|')[2].strip() for line in table[1:3]] == ['ResNetACmix 26', 'ResNet 50']

    # The same again is read from the file; other settings are measured.
    assert here.main(argv) == 0
    printed = capsys.readouterr().out
    assert printed.count('already') == 2 and printed.splitlines()[-7:] == table
    argv += ['--against', 'none', '--passes', 'training', '--cfg-options', 'model.backbone.norm_eval=True']
    assert here.main(argv) == 0
    printed = capsys.readouterr().out
    assert 'already' not in printed and 'first / second' not in printed
    assert '| fpn_resnet-acmix_demo model.backbone.norm_eval=True | ResNetACmix 26 | training |' in printed


def test_a_failure_is_told(here, tmp_path, capsys):
    argv = [SEGMENTER, '--shape', '64', '64', '--rounds', '1', '--threads', '1', '--against', 'none',
            '--passes', 'training', '--batch', '1', '--out', str(tmp_path / 'rows.csv'),
            '--cfg-options', 'model.decode_head.in_channels=[1,1,1,1]']
    assert here.main(argv) == 1
    printed = capsys.readouterr().out
    assert 'failed: RuntimeError' in printed and '| training | failed |' in printed


@pytest.mark.parametrize('argv, words', [
    (['missing.py'], 'the config must be an existing file, got config=missing.py'),
    ([DETECTOR, '--against', SEGMENTER], '--against must have default_scope=mmdet'),
    ([str(next((ROOT / 'configs/imagenet').glob('*.py')))], 'mmpretrain'),  # is not installed, or not served
    ([str(Path(mmdet.__file__).parent / '.mim/configs/retinanet/retinanet_r50_fpn_1x_coco.py')],
     'only ACmix backbones have a plain counterpart, got model.backbone.type=ResNet'),
    ([DETECTOR, '--shape', '0', '3'], '--shape must be above 0'),
])
def test_mistakes(here, tmp_path, capsys, argv, words):
    with pytest.raises(SystemExit) as exit_info:
        here.main([*argv, '--out', str(tmp_path / 'rows.csv')])
    assert words in str(exit_info.value.code)


@pytest.mark.parametrize('out', ['file/rows.csv', 'folder.csv'])
def test_where_nothing_can_be_written(here, tmp_path, capsys, out):
    """It is said before anything is measured."""
    (tmp_path / 'file').touch()
    (tmp_path / 'folder.csv').mkdir()
    with pytest.raises(SystemExit):
        here.parse_args([DETECTOR, '--out', str(tmp_path / out)])
    assert f'--out must be a file that can be written, got {tmp_path / out}' in capsys.readouterr().err


def test_options_are_written_out(here, capsys):
    """The name of a side has the settings as they were written: a shortened --cfg-options would be lost there."""
    with pytest.raises(SystemExit):
        here.parse_args([DETECTOR, '--cfg-opt', 'model.backbone.depth=38'])
    assert 'unrecognized arguments: --cfg-opt' in capsys.readouterr().err


def test_the_document_has_no_figure_of_its_own(tool):
    """Its tables are what the program prints for the committed file."""
    rows = tool('records').read(ROOT / 'docs' / 'whole_models' / 'cpu.csv')
    text = (ROOT / 'docs' / 'whole_models.md').read_text()
    models = {}
    for row in rows:
        models.setdefault(tool('whole_model_cost').Side.of(row['side']).path, []).append(row)
    tables = [tool('benchmark').table(members) for members in models.values()]
    assert [table in text for table in tables] == [True] * len(models)
    assert text.count('| model |') == len(models) and text.count('x |') == sum(table.count('x |') for table in tables)
