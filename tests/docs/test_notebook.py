"""The notebook runs from top to bottom, in any folder, and what is kept of its output belongs to it."""
import copy
import os
import time
from pathlib import Path

import pytest

nbformat = pytest.importorskip('nbformat', reason="nbformat is not installed: pip install '.[docs]'")
for _name in ('nbclient', 'ipykernel'):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install '.[docs]'")

PATH = Path(__file__).resolve().parents[2] / 'docs' / 'notebooks' / 'acmix_tour.ipynb'
LIMIT = 300  # seconds; on one busy core it takes a minute


@pytest.fixture(scope='module')
def notebook():
    notebook = nbformat.read(PATH, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_it_runs(notebook, tmp_path, monkeypatch):
    from nbclient import NotebookClient
    monkeypatch.setenv('OMP_NUM_THREADS', os.environ.get('OMP_NUM_THREADS', '1'))
    again = copy.deepcopy(notebook)
    for cell in again.cells:
        if cell.cell_type == 'code':
            cell.outputs, cell.execution_count = [], None
    start = time.perf_counter()
    client = NotebookClient(again, timeout=LIMIT, kernel_name='python3', resources=dict(metadata=dict(path=tmp_path)))
    client.execute()  # raises what a cell raises, its assertions among it
    assert time.perf_counter() - start < LIMIT
    assert list(tmp_path.iterdir()) == []
    for old, new in zip(notebook.cells, again.cells):
        if old.cell_type == 'code':
            assert kinds(new) == kinds(old), old.source


def kinds(cell):
    """What a cell puts out; lines may arrive in several pieces."""
    return {(output.output_type, output.get('name'), *sorted(output.get('data', ()))) for output in cell.outputs}


def test_the_outputs_are_those_of_one_run(notebook):
    code = [cell for cell in notebook.cells if cell.cell_type == 'code']
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert sum('image/png' in output.get('data', ()) for output in outputs) >= 5
    assert not any(output.output_type == 'error' or output.get('name') == 'stderr' for output in outputs)


def test_it_is_small_and_says_nothing_of_a_machine():
    text = PATH.read_text()
    assert len(text) < 300_000
    assert not any(word in text for word in ('/home/', '/root', '/tmp', '/usr', 'site-packages'))
