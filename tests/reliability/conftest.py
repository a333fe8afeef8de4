"""The small data and configs of the tools' tests, in copies that may be broken."""
import importlib.util
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

TOOLS = Path(__file__).resolve().parents[1] / 'tools' / 'conftest.py'
spec = importlib.util.spec_from_file_location('tools_conftest', TOOLS)
shared = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shared)

ade, coco, own_config, trained = shared.ade, shared.coco, shared.own_config, shared.trained


@pytest.fixture()
def user(tmp_path, monkeypatch, coco, ade, own_config, trained):
    """A user with data of two images a split (`user.coco`, `user.ade`), who trains and tests a config of OWN.

    `train(name, *arguments, text=..., options=[...])` and `test` run the tool; `text` ends the config.
    """
    roots = dict(coco=coco, ade=ade)
    for kind, root in roots.items():
        shutil.copytree(root, tmp_path / kind)

    def config(name, text=''):
        own = own_config(name).read_text()
        for kind, root in roots.items():
            own = own.replace(str(root), str(tmp_path / kind))
        path = tmp_path / f'{name}.py'
        path.write_text(own + text)
        return str(path)

    def run(tool):
        def call(name, *arguments, text='', options=()):
            work_dir = [] if '--work-dir' in arguments else ['--work-dir', str(tmp_path / 'work')]
            path = name if name.endswith('.py') else config(name, text)
            given = ['--cfg-options', *options] if options else []
            shared.load_tool(tool, monkeypatch).main([path, *map(str, arguments), *work_dir, *given])

        return call

    return SimpleNamespace(
        folder=tmp_path, coco=tmp_path / 'coco', ade=tmp_path / 'ade', config=config, trained=trained,
        train=run('train'), test=run('test'))
