"""Two processes that share a batch train the weights that one process trains on the whole of it."""
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location('processes', HERE / 'processes.py')
processes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(processes)

# Of weights in float64. SAN-ACmix takes its last statistics from 4 pixels: with attention alone, weights that one
# process starts with one rounding away end up to 3e-9 apart after the three steps.
TOLERANCE = 1e-7


@pytest.fixture(scope='module')
def pair(tmp_path_factory, pytestconfig):
    """The folder with what two processes left of all cases."""
    folder = tmp_path_factory.mktemp('pair')
    env = dict(os.environ, OMP_NUM_THREADS='1')
    which = ['all'] if pytestconfig.getoption('--nightly') else []
    running = [
        subprocess.Popen(
            [sys.executable, str(HERE / 'processes.py'), str(rank), str(folder), *which], env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for rank in range(2)]
    try:
        outputs = [process.communicate(timeout=1200)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], '\n'.join(outputs)
    return folder


CASES = [*processes.cases(False), *(pytest.param(case, marks=pytest.mark.nightly) for case in processes.cases(True))]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_two_processes_train_as_one(pair, case):
    net = processes.build(case)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    losses = processes.train(case, net, processes.optimizer(net))
    expected = net.state_dict()
    halves = [torch.load(pair / f'{case}.{rank}.pth') for rank in range(2)]
    for half in halves:
        assert list(half['state_dict']) == list(expected)
        for name, value in expected.items():
            assert (half['state_dict'][name] - value).abs().max() <= TOLERANCE, name
    # The halves have losses of their own, of which the whole is the mean, and every weight has moved.
    means = [sum(pair) / 2 for pair in zip(*(half['losses'] for half in halves))]
    assert means == pytest.approx(losses, rel=1e-9) and halves[0]['losses'] != halves[1]['losses']
    assert max((expected[name] - value).abs().max() for name, value in before.items()) > 1e-3
