"""Imports go one way: ops -> layers -> backbones; the lower parts work without the OpenMMLab packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mmacmix

PACKAGE = Path(mmacmix.__file__).parent
MM = {'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain', 'mim'}
ALLOWED = {  # part -> parts of our own, foreign packages it must not import
    'ops': ({'ops'}, MM),
    'layers': ({'ops', 'layers'}, MM),
    'backbones': ({'ops', 'layers', 'backbones', 'checkpoints', 'registry'}, {'mmdet', 'mmseg', 'mmpretrain', 'mim'}),
    'engine': (
        {'engine', 'checkpoint_files', 'checkpoints', 'registry', 'state_dicts'},
        {'mmdet', 'mmseg', 'mmpretrain', 'mim'},
    ),
    'registry': ({'checkpoint_files', 'safe_globals'}, MM - {'mmengine'}),
    'checkpoints': ({'checkpoint_files', 'converters', 'safe_globals', 'state_dicts'}, MM - {'mmengine'}),
    'checkpoint_calls': ({'checkpoint_stand_ins', 'safe_globals'}, MM - {'mmengine'}),
    'checkpoint_claims': ({'checkpoint_calls', 'checkpoint_stand_ins'}, MM),
    'checkpoint_files': (
        {'checkpoint_claims', 'checkpoint_stand_ins', 'checkpoint_zip', 'safe_globals', 'state_dicts'},
        MM - {'mmengine'},
    ),
    'checkpoint_stand_ins': (set(), MM),
    'checkpoint_zip': ({'checkpoint_stand_ins'}, MM),
    'converters': ({'converters', 'ops', 'state_dicts'}, MM),
    'state_dicts': (set(), MM),
    'safe_globals': (set(), MM - {'mmengine'}),
    'report': ({'ops'}, MM),
    '__init__': (set(), MM | {'torch'}),
}


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path}: relative import'
            yield node.module


def modules():
    return [p for p in sorted(PACKAGE.rglob('*.py')) if '.mim' not in p.parts]


def test_every_part_has_a_rule():
    parts = {p.relative_to(PACKAGE).parts[0].replace('.py', '') for p in modules()}
    assert parts == set(ALLOWED)


@pytest.mark.parametrize('path', modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_direction(path):
    own, foreign = ALLOWED[path.relative_to(PACKAGE).parts[0].replace('.py', '')]
    for name in imports(path):
        parts = name.split('.')
        if parts[0] == 'mmacmix':
            assert len(parts) == 1 or parts[1] in own, f'{path} imports {name}'
        assert parts[0] not in foreign, f'{path} imports {name}'
        if parts[0] == 'triton':
            assert path.name.startswith('triton'), f'{path} imports {name}'


def run_without(blocked, code):
    """What a fresh process prints in which some packages cannot be imported."""
    code = (
        'import sys\n'
        f'blocked = {sorted(blocked)}\n'
        'class Block:\n'
        '    def find_spec(self, name, path=None, target=None):\n'
        '        if name.split(".")[0] in blocked:\n'
        '            raise ImportError(f"blocked: {name}")\n'
        'sys.meta_path.insert(0, Block())\n'
    ) + code
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_lower_parts_work_alone():
    code = (
        'import torch, mmacmix.ops, mmacmix.layers, mmacmix.report\n'
        'mmacmix.layers.ACmix(8, 8)(torch.randn(1, 8, 5, 5)).sum().backward()\n'
        'print(mmacmix.report.report())\n'
        'print("fine")'
    )
    printed = run_without(MM | {'triton', 'torchvision'}, code)
    assert printed.strip().endswith('fine') and 'cannot run: triton cannot be imported' in printed


def test_backbones_work_without_the_hosts():
    """All of the package but the hosts' own parts; a training step of every family."""
    code = (
        'import torch, mmacmix.checkpoints, mmacmix.engine, mmacmix.report\n'
        'from mmacmix.registry import MODELS\n'
        'arch = dict(embed_dims=(8, 16, 40, 64), depths=(1, 1, 1, 1), num_heads=(1, 2, 5, 8),\n'
        '            sr_ratios=(8, 4, 2, 1), mlp_ratios=(2, 2, 2, 2))\n'
        'for config in (dict(type="ResNetACmix", depth=26, base_channels=8, stem_channels=8),\n'
        '               dict(type="SwinACmix", arch=dict(embed_dims=8, depths=(1, 1), num_heads=(1, 2)),\n'
        '                    out_indices=(0, 1)),\n'
        '               dict(type="PVTACmix", arch=arch), dict(type="SANACmix", depth=10, stem_channels=32)):\n'
        '    model = MODELS.build(config)\n'
        '    sum(out.sum() for out in model(torch.randn(2, 3, 32, 32))).backward()\n'
        '    print(type(model).__name__)\n'
    )
    printed = run_without({'mmdet', 'mmseg', 'mmpretrain', 'mim', 'triton', 'torchvision'}, code)
    assert printed.split()[-4:] == ['ResNetACmix', 'SwinACmix', 'PVTACmix', 'SANACmix']


def test_package_alone_is_light():
    code = 'import sys, mmacmix; print(sorted({"torch", "mmengine", "mmcv"} & set(sys.modules)), mmacmix.__version__)'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.stdout.strip() == f'[] {mmacmix.__version__}', run.stderr
