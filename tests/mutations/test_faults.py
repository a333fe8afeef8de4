"""The list of faults and the script that plants them; planting them all takes minutes: make mutations."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import run  # noqa: E402
from faults import FAULTS, Fault  # noqa: E402


@pytest.mark.parametrize('fault', FAULTS, ids=lambda fault: fault.name)
def test_every_fault_can_be_planted(fault):
    """What it replaces is in its file just once, what it makes is Python, and its tests are there."""
    text = run.planted((run.ROOT / fault.file).read_text(encoding='utf-8'), fault)
    compile(text, fault.file, 'exec')
    assert fault.tests and fault.why
    for test in fault.tests:
        path, _, name = test.partition('::')
        assert f'def {name.split("[")[0]}' in (run.ROOT / path).read_text(encoding='utf-8'), test


def test_names_are_unique():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


@pytest.mark.parametrize('old', ['no such text', 'def ', 'class Window(NamedTuple):'])
def test_stale_faults_are_refused(old):
    fault = Fault('stale', 'mmacmix/ops/window.py', old, 'class Window(NamedTuple):', ('tests/ops',), 'why')
    with pytest.raises(ValueError, match='stale: old must be in mmacmix/ops/window.py just once and differ from new'):
        run.planted((run.ROOT / fault.file).read_text(), fault)


TESTS = {
    'red': 'import mmacmix\ndef test_version():\n    assert mmacmix.__version__[0].isdigit()\n',
    'green': 'def test_nothing():\n    pass\n',
    'broken': 'import mmacmix.no_such_module\ndef test_nothing():\n    pass\n',
}


@pytest.mark.parametrize('kind', TESTS)
def test_what_counts_as_red(kind, tmp_path, monkeypatch, capsys):
    """A test that fails, and no other end."""
    test = tmp_path / 'test_it.py'
    test.write_text(TESTS[kind])
    fault = Fault('lettered', 'mmacmix/__init__.py', "__version__ = '", "__version__ = 'v", (str(test),), 'why')
    monkeypatch.setattr(run, 'FAULTS', [fault])
    if kind == 'broken':
        with pytest.raises(SystemExit, match='without a fault the tests must be green, got'):
            run.main([])
        with run.project(fault) as copy:
            assert run.run_tests(copy, fault.tests).code not in (0, run.FAILED)
        return
    assert run.main([]) == (kind == 'green')
    said = capsys.readouterr().out
    assert 'without a fault: green' in said
    assert ('1 of 1 faults turned the tests red' if kind == 'red' else 'survived: lettered') in said


def test_unknown_names(capsys):
    with pytest.raises(SystemExit):
        run.main(['--only', 'nothing'])
    assert '--only must name faults of faults.py, got nothing' in capsys.readouterr().err
