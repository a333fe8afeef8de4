"""The tool that draws rates over depth: right numbers in the table, pictures that are not empty, clear errors."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from mmacmix.backbones import PVTACmix, ResNetACmix, SANACmix, SwinACmix

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'plot_mixing_rates.py'
SMALL = dict(embed_dims=8, depths=(1, 2), num_heads=(2, 2))
BACKBONES = {
    'resnet': lambda **options: ResNetACmix(26, stem_channels=8, base_channels=8, **options),
    'san': lambda **options: SANACmix(10, **options),
    'pvt': lambda **options: PVTACmix('tiny', **options),
    'swin': lambda **options: SwinACmix(SMALL, out_indices=(1,), **options),
}


@pytest.fixture()
def run(tmp_path, monkeypatch, capsys):
    """run(*args): the tool in the folder tmp_path; returns returncode, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location('plot_mixing_rates', TOOL)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def call(*args):
        code = None
        try:
            tool.main([str(arg) for arg in args])
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=0 if code is None else 1, stdout=out, stderr=f'{err}{code}')

    return call


def drawn(path):
    """Share of the pixels of a picture that are not white."""
    return (cv2.imread(str(path)) < 250).any(2).mean()


def rows(text):
    """Printed rates by layer."""
    cells = [line.split() for line in text.splitlines() if line.startswith('  ')]
    return {line[0]: [float(value) for value in line[1:]] for line in cells if line[0] != 'layer'}


@pytest.mark.parametrize('family', BACKBONES)
def test_checkpoints_of_every_family(family, tmp_path, run):
    backbone = BACKBONES[family]()
    state = backbone.state_dict()
    names = [name[: -len('.rate1')] for name in state if name.endswith('.rate1')]
    for i, name in enumerate(names):
        state[f'{name}.rate1'].fill_(0.1 * (i + 1))
        state[f'{name}.rate2'].fill_(-1.0)
    torch.save(dict(state_dict={f'backbone.{key}': value for key, value in state.items()}), tmp_path / 'whole.pth')
    state[f'{names[0]}.rate2'].fill_(0.0)
    torch.save(state, tmp_path / 'alone.pth')
    result = run('whole.pth', 'alone.pth', '--out', 'rates.png')
    assert result.returncode == 0, result.stderr
    whole, alone = (rows(part) for part in result.stdout[result.stdout.index('whole') :].split('alone\n'))
    assert list(whole) == list(alone) == names
    for i, name in enumerate(names):
        attention = 0.1 * (i + 1)
        assert whole[name] == pytest.approx([attention, -1, np.log10(attention)], abs=0.006)
    assert alone[names[0]] == pytest.approx([0.1, 0, 5])  # a rate of 0 counts as 1e-6
    assert 0.01 < drawn(tmp_path / 'rates.png') < 0.5


def test_models_of_different_depth(tmp_path, run):
    for name, depth in (('small', 26), ('large', 38)):
        backbone = ResNetACmix(depth, stem_channels=8, base_channels=8)
        torch.save(dict(model=backbone.state_dict()), tmp_path / f'{name}.pth')
    result = run('small.pth', 'large.pth', '--labels', 'A', 'B')
    assert result.returncode == 0, result.stderr
    assert '\nA\n' in f'\n{result.stdout}' and '\nB\n' in result.stdout
    assert drawn(tmp_path / 'mixing_rates.png') > 0.01


def test_models_of_one_name(tmp_path, run):
    """None of them is lost: neither two of one name nor two in folders of one name."""
    state = ResNetACmix(26, stem_channels=8, base_channels=8).state_dict()
    names = ['a/run/best.pth', 'b/run/best.pth', 'b/other/best.pth']
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True)
        torch.save(state, tmp_path / name)
    result = run(*names)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    labels = [before for before, line in zip(lines, lines[1:]) if line.startswith('  layer ')]
    assert labels == [*names[:2], 'other/best']
    for args, message in (
        ((names[0], names[0]), 'checkpoints must differ, got a/run/best.pth more than once'),
        ((*names[:2], '--labels', 'A', 'A'), '--labels must differ, got A more than once'),
    ):
        result = run(*args)
        assert result.returncode != 0 and message in result.stderr


def write_log(folder, steps, last=''):
    (folder / 'vis_data').mkdir(parents=True)
    lines = [dict(loss=1.0, step=1)]
    for step in steps:
        names = [f'layer{i}.0.conv2.{path}' for i in (1, 2) for path in ('attention', 'convolution')]
        rates = {f'mixing_rates/{name}': step / 10 for name in names}
        lines.append(dict(rates, step=step))
    text = ''.join(f'{json.dumps(line)}\n' for line in lines)
    (folder / 'vis_data' / 'scalars.json').write_text(text + last)


def test_log_of_a_training_in_two_runs(tmp_path, run):
    write_log(tmp_path / 'work/1', [0, 2, 4], last='{"mixing_rates/layer1.0.conv2.atten')
    write_log(tmp_path / 'work/2', [4, 6])
    result = run('--log', 'work', '--out', 'log.png')
    assert result.returncode == 0, result.stderr
    assert 'after 6 iterations' in result.stdout
    assert rows(result.stdout) == {f'layer{i}.0.conv2': [0.6, 0.6, 0] for i in (1, 2)}
    assert drawn(tmp_path / 'log.png') > 0.1
    assert run('--log', 'work/2/vis_data/scalars.json').returncode == 0


def test_log_of_a_training_that_was_started_anew(tmp_path, run):
    """A shorter second run from iteration 0 is not continued by the first one."""
    write_log(tmp_path / 'work/1', [0, 2, 4, 6])
    write_log(tmp_path / 'work/2', [0, 2])
    result = run('--log', 'work', '--out', 'log.png')
    assert result.returncode == 0, result.stderr
    assert 'after 2 iterations' in result.stdout


def test_errors(tmp_path, run):
    backbone = ResNetACmix(26, stem_channels=8, base_channels=8)
    torch.save(backbone.state_dict(), tmp_path / 'fine.pth')
    torch.save(dict(a=torch.zeros(1)), tmp_path / 'none.pth')
    (tmp_path / 'broken.pth').write_bytes(b'nothing')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'scalars.json').write_text('{"loss": 1.0}\n')
    for args, message in (
        ((), 'either checkpoints or --log'),
        (('fine.pth', '--log', 'empty'), 'either checkpoints or --log'),
        (('gone.pth',), 'the checkpoint must be an existing file, got gone.pth'),
        (('broken.pth',), 'cannot read broken.pth as a checkpoint'),
        (('none.pth',), 'none.pth must hold rate1 and rate2'),
        (('fine.pth', '--labels', 'a', 'b'), '--labels must name 1 checkpoints, got 2'),
        (('fine.pth', '--out', 'gone/x.png'), '--out must be a .png'),
        (('fine.pth', '--out', 'x.txt'), '--out must be a .png'),
        (('--log', 'empty'), '--log must be a work dir'),
        (('--log', 'gone'), '--log must be a work dir'),
        (('--log', 'scalars.json'), 'scalars.json must hold records'),
    ):
        result = run(*args)
        assert result.returncode != 0 and message in result.stderr, (args, result.stderr)
