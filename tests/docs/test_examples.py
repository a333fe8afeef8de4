"""The Python code of the pages runs, and prints what they say."""
import contextlib
import importlib.util
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS as HOST_MODELS
from mmengine.registry import init_default_scope

from mmacmix.backbones import ResNetACmix, SwinACmix
from mmacmix.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
PAGES = ('index', 'install', 'method', 'pretrained-starts', 'ablations', 'add-a-family')
RUN = 'work_dirs/retinanet_resnet-acmix-26_fpn_1x_coco/epoch_12.pth'


def code_of(page):
    return re.findall(r'(?ms)^```python\n(.*?)^```', (DOCS / f'{page}.md').read_text())


def is_config(code):
    return re.match(r'# \w+\.py\n_base_', code) is not None


@pytest.fixture(autouse=True)
def registry():
    """Classes that a page registers are gone afterwards."""
    before = dict(MODELS.module_dict)
    yield
    for name in set(MODELS.module_dict) - set(before):
        del MODELS._module_dict[name]


@pytest.fixture()
def workspace(tmp_path, monkeypatch):
    """A folder with the files that the code reads."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(page):
    """Runs the page's code in its order; returns the names it makes and what it prints."""
    names, printed = {}, io.StringIO()
    for code in code_of(page):
        if not is_config(code):
            with contextlib.redirect_stdout(printed):
                exec(compile(code, f'{page}.md', 'exec'), names)
    return names, printed.getvalue()


def run_alone(page):
    """:func:`run` in a process of its own: this one has Triton's interpreter, which users do not."""
    code = '\n'.join(code_of(page))
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {}, result.stdout


@pytest.mark.parametrize('page', PAGES)
def test_code_runs_and_prints_what_it_says(page, workspace):
    if page == 'pretrained-starts':
        torch.save(SwinACmix('tiny').state_dict(), 'backbone.pth')
    if page == 'ablations':
        Path(RUN).parent.mkdir(parents=True)
        weights = ResNetACmix(26).state_dict()
        weights['layer1.0.conv2.rate2'].fill_(0.125)
        torch.save({f'backbone.{name}': value for name, value in weights.items()}, RUN)
    names, printed = run_alone(page) if page == 'install' else run(page)
    promised = re.findall(r'# +(\[\(.*|\d+ \[.*)$', '\n'.join(code_of(page)), flags=re.M)
    assert [text for text in promised if text not in printed] == []
    assert len(promised) == dict(install=1, method=2).get(page, page == 'add-a-family')
    if page == 'install' and not torch.cuda.is_available():
        assert "backend='triton' cannot run: " in printed
    if page == 'ablations':
        assert 'layer1.0.conv2   attention  0.500   convolution  0.125' in printed
        assert printed.count('attention') == 8
        kernels = [layer.dep_conv.weight for layer in names['model'].modules() if hasattr(layer, 'dep_conv')]
        assert len(kernels) == 8 and all(kernel.count_nonzero() == kernel.numel() for kernel in kernels)


CONFIGS = [pytest.param(code, id=re.match(r'# (\w+)', code)[1])
           for page in sorted(DOCS.glob('*.md')) for code in code_of(page.stem) if is_config(code)]


@pytest.mark.parametrize('code', CONFIGS)
def test_configs_build(code, workspace):
    """Model and classes agree."""
    Path('mine.py').write_text(code)
    config = Config.fromfile('mine.py')
    init_default_scope(config.default_scope)
    model = HOST_MODELS.build(config.model)
    assert all(p.requires_grad for p in model.parameters())
    classes = config.train_dataloader.dataset.get('metainfo', {}).get('classes')
    if classes:
        heads = [m for name, m in model.named_modules() if re.fullmatch(r'(roi_head\.)?(?!rpn)\w+_head', name)]
        assert {head.num_classes for head in heads if hasattr(head, 'num_classes')} == {len(classes)}
        for split in ('val', 'test'):
            assert config[f'{split}_dataloader'].dataset.data_root == config.train_dataloader.dataset.data_root


def test_there_are_configs():
    assert {param.id for param in CONFIGS} >= {'my_masks', 'my_upernet', 'plain_detector'}


def test_shift_kernels_of_the_guides_family_survive(workspace):
    run('add-a-family')
    model = BaseModule([dict(type='Kaiming', layer='Conv2d')])
    model.backbone = MODELS.build(dict(type='mmacmix.PlainACmix', channels=8))
    model.init_weights()
    kernels = [p.flatten(2) for name, p in model.named_parameters() if name.endswith('dep_conv.weight')]
    assert len(kernels) == 4
    assert all(torch.equal(kernel, torch.eye(9).expand_as(kernel)) for kernel in kernels)


@pytest.mark.parametrize('size', [(1, 1), (33, 65)])
def test_the_family_of_the_guide_is_a_good_one(size, workspace):
    """It does what tests/backbones asks of every family."""
    run('add-a-family')
    for paths in (('attention', 'convolution'), ('attention',)):
        model = MODELS.build(dict(type='mmacmix.PlainACmix', channels=8, paths=paths, frozen_stages=1, with_cp=True))
        model.init_weights()
        frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
        assert frozen == {name for name, _ in model.named_parameters() if name.startswith(('stem.', 'stages.0.'))}
        outs = model(torch.randn(2, 3, *size))
        assert [out.shape[1:] for out in outs] == [
            (8 * 2**i, *(-(-n // (4 * 2**i)) for n in size)) for i in range(4)]
        sum((out * torch.randn_like(out)).sum() for out in outs).backward()
        assert {name for name, p in model.named_parameters() if p.grad is None} == frozen
        model.eval()
        with torch.no_grad():
            x = torch.randn(1, 3, *size)
            before = model(x)
            for a, b in zip(model.switch_to_deploy()(x), before):
                torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_what_the_converter_says(workspace):
    """The lines of the guide are those of the tool, in its order."""
    from mmdet.models.backbones import SwinTransformer
    torch.save(dict(state_dict=SwinTransformer().state_dict()), 'swin_tiny_patch4_window7_224.pth')
    text = (DOCS / 'pretrained-starts.md').read_text()
    command = re.search(r'(?m)^python (tools/model_converters/.* --source swin)$', text)[1].split()
    result = subprocess.run(
        [sys.executable, ROOT / command[0], *command[1:]], capture_output=True, text=True, check=True)
    shown = [line for line in re.search(r'(?s)```text\n(loaded.*?)```', text)[1].splitlines() if line != '...']
    said = result.stdout.splitlines()
    assert [line for line in said if line in shown] == shown and len(shown) == 14


def test_table_of_ablations():
    """Its figures are those of the counter."""
    path = ROOT / 'tools' / 'analysis_tools' / 'complexity.py'
    spec = importlib.util.spec_from_file_location('complexity', path)
    complexity = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(complexity)
    rows = re.findall(r'(?m)^\| `(\w+=.*?)` \| (.*) \|$', (DOCS / 'ablations.md').read_text())
    assert len(rows) == 8
    for option, cells in rows:
        parts = complexity.count(complexity.build('ResNetACmix', ['depth=26', option]), 224, 224)
        figures = [parts['total'].parameters / 1e6,
                   *(parts[name].multiply_adds / 1e9 for name in ('attention', 'convolution', 'total'))]
        assert cells.split(' | ') == [f'{figure:.2f}' for figure in figures], option
