"""Export of backbones: files that agree with PyTorch, and no file otherwise."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmacmix.backbones import PVTACmix, SwinACmix

ROOT = Path(__file__).resolve().parents[2]
NAMES = ('export_backbone', 'exports', 'comparing', 'complexity')
# One stage or two of each family, with whatever its blocks have.
SMALL = {
    'resnet': ['ResNetACmix', 'depth=26', 'out_indices=(0,)'],
    'san': ['SANACmix', 'depth=10', 'stem_channels=32', 'out_indices=(0,)'],
    'pvt': ['PVTACmix', "arch={'embed_dims': (16, 32), 'depths': (1, 1), 'num_heads': (1, 2), 'sr_ratios': (8, 1), "
            "'mlp_ratios': (2, 2)}", 'out_indices=(0, 1)'],
    'swin': ['SwinACmix', "arch={'embed_dims': 12, 'depths': (2, 2), 'num_heads': (3, 6)}"],
}
SWIN = dict(arch={'embed_dims': 12, 'depths': (2, 2), 'num_heads': (3, 6)})


@pytest.fixture()
def tool(monkeypatch):
    path = list(sys.path)
    monkeypatch.syspath_prepend(str(ROOT / 'tools' / 'deployment'))
    before = {name: sys.modules.pop(name, None) for name in NAMES}
    yield importlib.import_module('export_backbone')
    sys.path[:] = path
    for name, module in before.items():
        sys.modules.pop(name, None)
        if module:
            sys.modules[name] = module


def refusal(tool, argv):
    with pytest.raises(SystemExit) as exit_info:
        tool.main([str(word) for word in argv])
    return str(exit_info.value.code)


@pytest.fixture()
def detector(tmp_path):
    """A backbone of SMALL['swin'], and the checkpoint of a detector with it."""
    torch.manual_seed(3)
    model = SwinACmix(**SWIN).eval()
    for name, p in model.named_parameters():
        if name.endswith('bias_table'):
            nn.init.normal_(p)
    path = tmp_path / 'detector.pth'
    torch.save({'state_dict': {f'backbone.{key}': value for key, value in model.state_dict().items()}}, path)
    return model, str(path)


@pytest.mark.parametrize('family', SMALL)
def test_onnx_agrees_at_every_size(tool, tmp_path, capsys, detector, family):
    path = tmp_path / 'new' / f'{family}.onnx'
    checkpoint = ['--checkpoint', detector[1]] if family == 'swin' else []
    assert tool.main([*SMALL[family], *checkpoint, '--out', str(path), '--rounds', '1', '--threads', '1']) == 0
    import onnx

    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} <= {'', 'ai.onnx'} and not model.functions
    assert [x.name for x in model.graph.input] == ['image']
    sizes = [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert sizes[0] and sizes[2] and sizes[3] and not sizes[1]
    data = {entry.key: entry.value for entry in model.metadata_props}
    assert data['backbone'] == SMALL[family][0]
    assert data['checkpoint'] == ('detector.pth' if checkpoint else 'random weights')
    assert json.loads(data['outputs']) == [x.name for x in model.graph.output]
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('| ') and ' x ' in line]
    assert len(lines) == 6
    assert all(float(line.split('|')[2]) < 1e-5 and float(line.split('|')[5]) > 0 for line in lines)
    assert list(path.parent.iterdir()) == [path]
    if family == 'swin':
        same_at_small_sizes(path, detector[0])


def same_at_small_sizes(path, model):
    """The windows of Swin-ACmix: where one covers the map nothing is shifted, whatever the example was."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    for size in ((1, 3, 28, 28), (2, 3, 29, 60), (1, 3, 13, 57), (5, 3, 100, 30)):
        image = torch.randn(size)
        found = session.run(None, {'image': image.numpy()})
        with torch.no_grad():
            for actual, expected in zip(found, model(image), strict=True):
                torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=1e-4, atol=1e-5)


def test_program_for_torch_runs_without_mmacmix(tool, tmp_path):
    path = tmp_path / 'pvt.pt2'
    assert tool.main([*SMALL['pvt'], '--format', 'torch', '--out', str(path), '--rounds', '0']) == 0
    code = (f"import sys; sys.modules['mmacmix'] = None\nimport torch\n"
            f"run = torch.export.load({str(path)!r}).module()\n"
            "print([tuple(x.shape) for x in run(torch.randn(3, 3, 97, 130))])")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.stdout.strip() == '[(3, 16, 24, 32), (3, 32, 12, 16)]', done.stderr


def test_fixed_size(tool, tmp_path):
    import onnx

    path = tmp_path / 'swin.onnx'
    argv = [*SMALL['swin'], 'out_indices=(0,)', '--fixed-size', '--shape', '50', '61', '--out', str(path)]
    assert tool.main([*argv, '--rounds', '0']) == 0
    sizes = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    assert sizes[0].dim_param and [dim.dim_value for dim in sizes][1:] == [3, 50, 61]


@pytest.fixture()
def quick(tool, monkeypatch):
    """Nothing is recorded: a file of three bytes is compared."""
    monkeypatch.setattr(tool, 'export', lambda model, path, args: path.write_text('abc'))
    monkeypatch.setattr(tool, 'runner', lambda path: quick.call)
    quick.call = None
    return quick


@pytest.mark.parametrize('wrong, words', [
    (lambda maps: [x * 1.001 for x in maps],
     'at 1 x 97 x 131 differ from those of PyTorch by 1.0e-03, 1e-04 is allowed'),
    (lambda maps: [x * float('nan') for x in maps], 'differ from those of PyTorch by inf'),
    (lambda maps: [x[..., :-1] for x in maps], 'differ from those of PyTorch by inf'),
    (lambda maps: maps[:1], 'differ from those of PyTorch by inf'),
    (lambda maps: 1 / 0, 'does not run at 1 x 97 x 131: division by zero'),
])
def test_what_does_not_agree_is_not_kept(tool, quick, tmp_path, monkeypatch, wrong, words):
    model = PVTACmix(**{'arch': dict(embed_dims=(8, 8), depths=(1, 1), num_heads=(1, 1), sr_ratios=(2, 1),
                                     mlp_ratios=(1, 1)), 'out_indices': (0, 1)}).eval()
    monkeypatch.setattr(tool, 'build', lambda *args: model)
    quick.call = lambda image: wrong(model(image))
    path = tmp_path / 'x.onnx'
    path.write_text('what was there before')
    assert words in refusal(tool, ['PVTACmix', '--out', path])
    assert path.read_text() == 'what was there before' and len(list(tmp_path.iterdir())) == 1


def test_refusals(tool, tmp_path, monkeypatch, capsys):
    argv = [*SMALL['pvt'], '--out', tmp_path / 'x.onnx']
    checkpoint = tmp_path / 'swin.pth'
    torch.save(SwinACmix(**SWIN).state_dict(), checkpoint)
    assert 'swin.pth does not fit PVTACmix: ' in refusal(tool, [*argv, '--checkpoint', checkpoint])
    assert 'no.pth' in refusal(tool, [*argv, '--checkpoint', tmp_path / 'no.pth'])
    assert 'is not a backbone of mmacmix' in refusal(tool, ['ResNet', *argv[-2:]])
    for more, words in (
        (['--shape', '63', '300'], '--shape must be at least 64 x 64, or 1 x 1 with --fixed-size, got 63 x 300'),
        (['--out', 'x.pt2'], '--out must end in .onnx for --format onnx, got x.pt2'),
        (['--out', f'{tmp_path}/a.onnx'], '--out must be a file, got the folder'),
        (['--opset', '11'], '--opset must be at least 18, got 11'),
        (['--rounds', '-1'], '--rounds must be at least 0, got -1'),
    ):
        (tmp_path / 'a.onnx').mkdir(exist_ok=True)
        assert refusal(tool, [*argv, *more]) == '2'
        assert words in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    assert 'the packages onnxscript are needed: pip install onnxscript' in refusal(tool, argv)
    monkeypatch.delattr(torch.compiler, 'is_exporting')
    assert 'export needs torch 2.7 or later, got ' in refusal(tool, argv)


def test_custom_operators_and_what_torch_cannot_record_are_refused(tool, tmp_path, monkeypatch):
    argv = [*SMALL['pvt'], '--out', tmp_path / 'x.onnx']
    exports = sys.modules['exports']
    with monkeypatch.context() as patch:
        patch.setattr(exports, 'STANDARD', {'ai.onnx'})
        assert 'the ONNX model must have standard operators only, got .' in refusal(tool, argv)
    forward = nn.LayerNorm.forward
    monkeypatch.setattr(nn.LayerNorm, 'forward', lambda self, x: forward(self, x) if x.sum() else x)
    text = refusal(tool, argv)
    assert 'torch cannot record this backbone; with --fixed-size it may be possible: ' in text
    assert not list(tmp_path.iterdir())


def test_names_with_dots_are_kept(tool):
    assert str(tool.parse_args(['mine.v2.py']).out) == 'work_dirs/deployment/mine.v2.onnx'


def test_swin_says_from_which_size(tool, tmp_path):
    argv = ['SwinACmix', 'arch=tiny', '--out', tmp_path / 'x.onnx', '--shape', '224', '300']
    assert '--shape must be at least 225 x 225 for this backbone, got 224 x 300' in refusal(tool, argv)
