"""Every config of a detector or segmenter is a test case: `config_path` runs over all, `zoo_path` leaves out the demo,
`data_path` runs over configs of the zoo that differ in their data. Those of imagenet are tested in tests/pretrain."""
import importlib.util
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / 'configs'


def pytest_generate_tests(metafunc):
    others = ('_base_', 'imagenet')
    every = [p for p in sorted(CONFIGS.glob('*/**/*.py')) if p.relative_to(CONFIGS).parts[0] not in others]
    zoo = [p for p in every if p.parent.name != 'demo']
    by_data = {}
    if 'data_path' in metafunc.fixturenames:
        for path in zoo:
            cfg = Config.fromfile(path)
            parts = [f'{split}_{part}' for split in ('train', 'val', 'test') for part in ('dataloader', 'evaluator')]
            data = [cfg.get(part) for part in (*parts, 'tta_pipeline')] + [cfg.model.data_preprocessor]
            by_data.setdefault(str(data), path)
    for name, paths in (('config_path', every), ('zoo_path', zoo), ('data_path', list(by_data.values()))):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, paths, ids=[p.stem for p in paths], scope='module')


@pytest.fixture(scope='session')
def configs_dir() -> Path:
    return CONFIGS


@pytest.fixture
def cfg(request) -> Config:
    """A fresh copy of the config of this test case, free to be changed."""
    name, = {'config_path', 'zoo_path', 'data_path'} & set(request.fixturenames)
    return Config.fromfile(request.getfixturevalue(name))


@pytest.fixture(scope='session')
def complexity():
    """The module of tools/analysis_tools/complexity.py."""
    spec = importlib.util.spec_from_file_location(
        'complexity', CONFIGS.parent / 'tools/analysis_tools/complexity.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """On maps of a few pixels, threads that wait for one another cost more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
