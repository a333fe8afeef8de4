"""Every config is a test case: `config_path` runs over all, `zoo_path` leaves out the demo."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / 'configs'


def pytest_generate_tests(metafunc):
    every = [p for p in sorted(CONFIGS.glob('*/**/*.py')) if CONFIGS / '_base_' not in p.parents]
    zoo = [p for p in every if p.parent.name != 'demo']
    for name, paths in (('config_path', every), ('zoo_path', zoo)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, paths, ids=[p.stem for p in paths], scope='module')


@pytest.fixture(scope='session')
def configs_dir() -> Path:
    return CONFIGS


@pytest.fixture
def cfg(request) -> Config:
    """A fresh copy of the config of this test case, free to be changed."""
    name = 'zoo_path' if 'zoo_path' in request.fixturenames else 'config_path'
    return Config.fromfile(request.getfixturevalue(name))


@pytest.fixture(scope='session', autouse=True)
def one_thread():
    """On maps of a few pixels, threads that wait for one another cost more than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
