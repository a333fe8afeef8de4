"""The shell scripts of tools/ hand their arguments on as they are."""
import os
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'
SCRIPTS = sorted(path.name for path in TOOLS.glob('*.sh'))


def call(name, *args, **environment):
    env = dict(os.environ, PYTHON='echo', **environment)
    return subprocess.run([str(TOOLS / name), *args], env=env, capture_output=True, text=True)


def test_there_are_four_scripts():
    assert SCRIPTS == ['dist_test.sh', 'dist_train.sh', 'slurm_test.sh', 'slurm_train.sh']


@pytest.mark.parametrize('name', SCRIPTS)
def test_too_few_arguments_print_the_usage(name):
    result = call(name, 'one')
    assert result.returncode == 2
    assert f'tools/{name} ' in result.stderr and '[options of ' in result.stderr


def test_dist_train():
    result = call('dist_train.sh', 'a b.py', '4', '--cfg-options', 'x=[1, 2]', NNODES='2',
                  NODE_RANK='1', MASTER_ADDR='head', PORT='29511')
    assert result.stdout.strip() == (
        '-m torch.distributed.run --nnodes=2 --node_rank=1 --nproc_per_node=4 --master_addr=head '
        f'--master_port=29511 {TOOLS}/train.py a b.py --launcher pytorch --cfg-options x=[1, 2]')


def test_dist_test():
    result = call('dist_test.sh', 'a.py', 'a.pth', '2', '--tta')
    assert result.stdout.strip().endswith(f'{TOOLS}/test.py a.py a.pth --launcher pytorch --tta')


@pytest.fixture()
def srun(tmp_path):
    """A stand-in for Slurm's srun on PATH: it prints its arguments, one a line."""
    path = tmp_path / 'srun'
    path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    path.chmod(0o755)
    return dict(PATH=f'{tmp_path}{os.pathsep}{os.environ["PATH"]}')


def test_slurm_train(srun):
    result = call('slurm_train.sh', 'part', 'job', 'a b.py', 'work', '--amp', GPUS='16',
                  GPUS_PER_NODE='4', CPUS_PER_TASK='3', SRUN_ARGS='--quiet --time=5', **srun)
    assert result.stdout.splitlines() == [
        '--partition=part', '--job-name=job', '--gres=gpu:4', '--ntasks=16',
        '--ntasks-per-node=4', '--cpus-per-task=3', '--kill-on-bad-exit=1', '--quiet', '--time=5',
        'echo', '-u', f'{TOOLS}/train.py', 'a b.py', '--work-dir=work', '--launcher=slurm',
        '--amp']


def test_slurm_test(srun):
    result = call('slurm_test.sh', 'part', 'job', 'a.py', 'a.pth', '--tta', **srun)
    assert result.stdout.splitlines()[-7:] == [
        'echo', '-u', f'{TOOLS}/test.py', 'a.py', 'a.pth', '--launcher=slurm', '--tta']
