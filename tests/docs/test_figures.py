"""The figures can be drawn again, and each is used."""
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip('matplotlib', reason='matplotlib is not installed')

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / 'docs' / 'figures'
SCRIPTS = sorted(path.stem for path in FIGURES.glob('draw_*.py'))


def test_every_figure_has_its_script_and_its_place():
    pictures = {path.stem for path in FIGURES.glob('*.png')}
    assert {name[len('draw_'):] for name in SCRIPTS} == pictures
    pages = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')]
    text = '\n'.join(path.read_text() for path in pages)
    assert [name for name in pictures if f'figures/{name}.png)' not in text] == []


@pytest.mark.parametrize('script', SCRIPTS)
def test_it_draws(script, tmp_path, monkeypatch):
    import matplotlib.image
    for path in FIGURES.glob('*.py'):
        shutil.copy(path, tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__(script).main()
    for name in (script, 'drawing'):
        del sys.modules[name]
    drawn = matplotlib.image.imread(tmp_path / f'{script[len("draw_"):]}.png')
    kept = matplotlib.image.imread(FIGURES / f'{script[len("draw_"):]}.png')
    # Fonts differ from machine to machine: by a few pixels, not in what is drawn.
    assert all(abs(a - b) < 0.1 * b for a, b in zip(drawn.shape[:2], kept.shape[:2]))
    assert abs(drawn.mean() - kept.mean()) < 0.02
