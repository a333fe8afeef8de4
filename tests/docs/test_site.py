"""The site builds without a warning, from any folder, and every page has its place."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

for _name in ('sphinx', 'furo', 'myst_nb'):
    pytest.importorskip(_name, reason=f"{_name} is not installed: pip install '.[docs]'")

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / 'docs'
PAGES = [p.relative_to(DOCS) for p in sorted(DOCS.rglob('*')) if p.suffix in ('.md', '.ipynb')]
PAGES = [p for p in PAGES if not {'_build', 'jupyter_execute', '.ipynb_checkpoints'} & set(p.parts)]


def build(source, target, *options):
    command = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-q', '-b', 'html', *options, source, target]
    result = subprocess.run(
        [str(part) for part in command], cwd=target.parent, env=dict(os.environ, PYTHONWARNINGS='ignore'),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return result.returncode, result.stdout


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    target = tmp_path_factory.mktemp('site') / 'html'
    code, output = build(DOCS, target)
    assert code == 0, output
    return target


def html(site, page):
    return (site / page).with_suffix('.html').read_text()


def test_every_page_is_in_a_toctree(site):
    """It is in the menu of the first page, which shows all toctrees."""
    menu = re.search(r'(?s)<div class="sidebar-tree">(.*?)</div>', html(site, 'index.md'))[1]
    linked = set(re.findall(r'href="([^"#]+)\.html"', menu))
    pages = {p.with_suffix('').as_posix() for p in PAGES} - {'index'}
    assert pages - linked == set(), 'add the page to a toctree of docs/index.md'


def test_a_missing_target_stops_the_build(tmp_path):
    """What keeps the links of all pages right."""
    source = tmp_path / 'source'
    source.mkdir()
    (source / 'conf.py').write_text((DOCS / 'conf.py').read_text().replace("    'tool_help',\n", '').replace(
        "html_static_path = ['_static']\nhtml_css_files = ['site.css']\n", ''))
    (source / 'index.md').write_text('# Title\n\n[good](#title) [bad](nowhere.md)\n')
    code, output = build(source, tmp_path / 'html')
    assert code != 0 and "'nowhere.md'" in output and output.count('WARNING') == 1, output


def test_the_reference_has_every_public_name(site):
    import mmacmix.backbones
    import mmacmix.converters
    import mmacmix.engine
    import mmacmix.layers
    import mmacmix.ops
    packages = dict(backbones=mmacmix.backbones, layers=mmacmix.layers, ops=mmacmix.ops,
                    weights=mmacmix.converters, runs=mmacmix.engine)
    for page, package in packages.items():
        text = html(site, Path('reference') / page)
        documented = set(re.findall(r'id="([\w.]+)"', text))
        names = {f'{package.__name__}.{name}' for name in package.__all__} - {'mmacmix.converters.SOURCES'}
        assert names - documented == set()


def test_tools_page_has_every_tool(site):
    text = html(site, 'reference/tools.md')
    shown = set(re.findall(r'<h2>(tools/[\w/.]+)<', text))
    files = [p for p in (ROOT / 'tools').rglob('*') if p.suffix in ('.py', '.sh')]
    tools = {p.relative_to(ROOT).as_posix() for p in files if p.suffix == '.sh' or '\nif __name__ ==' in p.read_text()}
    # Started by another tool, or by make.
    inner = {'tools/benchmarks/worker.py', 'tools/setup/make_env.py', 'tools/setup/make_core.py'}
    assert shown == tools - inner
    assert 'usage: train.py [-h]' in text and 'tools/dist_train.sh CONFIG GPUS [options of train.py]' in text


def test_pictures_are_there_and_described(site):
    for page in ('index', 'method'):
        images = re.findall(r'<img ([^>]*)>', html(site, page))
        assert images
        for attributes in images:
            source = re.search(r'src="([^"]+)"', attributes)[1]
            assert (site / source).is_file()
            assert len(re.search(r'alt="([^"]*)"', attributes)[1]) > 20


@pytest.fixture()
def tool_help(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS / '_ext'))
    import tool_help
    return tool_help


def test_help_of_a_tool(tool_help, tmp_path):
    (tmp_path / 'beside.py').write_text("TEXT = 'how many'\n")
    tool = tmp_path / 'count.py'
    tool.write_text(
        'import argparse\nfrom beside import TEXT\n'
        "if __name__ == '__main__':\n    parser = argparse.ArgumentParser()\n"
        "    parser.add_argument('--number', help=TEXT)\n    parser.parse_args()\n")
    assert tool_help.tools_of(tmp_path) == [tool]
    text = tool_help.help_of(tool)
    assert text.startswith('usage: count.py [-h] [--number NUMBER]') and 'how many' in text
    assert 'beside' not in sys.modules and sys.argv[-1] != '--help' and str(tmp_path) not in sys.path


@pytest.mark.parametrize('body', ['', "raise SystemExit('no')", 'raise SystemExit(0)'])
def test_a_tool_without_help_is_named(tool_help, tmp_path, body):
    tool = tmp_path / 'broken.py'
    tool.write_text(body)
    with pytest.raises(RuntimeError, match='broken.py --help must print its help and end with 0, got'):
        tool_help.help_of(tool)


@pytest.mark.parametrize('text, message', [
    ('```{tool-help} empty\n```', 'tool-help must name a folder with tools, got empty'),
    ('```{tool-help} broken\n```', 'broken/x.py: x.py --help must print its help and end with 0, got 3'),
])
def test_wrong_use_of_the_directive(tmp_path, text, message):
    source = tmp_path / 'source'
    (source / 'empty').mkdir(parents=True)
    (source / 'broken').mkdir()
    (source / 'broken' / 'x.py').write_text(
        "import argparse\nif __name__ == '__main__':\n    argparse.ArgumentParser()\n    raise SystemExit(3)\n")
    (source / 'conf.py').write_text(
        f"import sys\nsys.path.insert(0, {str(DOCS / '_ext')!r})\nextensions = ['myst_nb', 'tool_help']\n")
    (source / 'index.md').write_text(f'# Title\n\n{text}\n')
    code, output = build(source, tmp_path / 'html')
    assert code != 0 and message in output, output
