"""A directive that prints what every command-line tool of a folder says about itself: ``{tool-help} ../tools``.

Python tools (files with an ArgumentParser that can be run) tell it by ``--help``, all in this process, which has to
import torch only once; shell scripts by the comment at their beginning. A tool that is added is on the page with the
next build.
"""

import contextlib
import io
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Iterator, List
from unittest import mock

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

WIDTH = 90  # columns: what fits beside the menu


def tools_of(folder: Path) -> List[Path]:
    """Tools in a folder and below: those at its top first."""
    found = [path for path in folder.rglob('*') if path.suffix == '.sh' or path.suffix == '.py' and _is_tool(path)]
    return sorted(found, key=lambda path: (len(path.parts), str(path)))


def help_of(tool: Path) -> str:
    """What a tool says about itself.

    Raises:
        RuntimeError: It ends otherwise than a call for help does.
    """
    if tool.suffix == '.sh':
        comment = re.search(r'(?m)^# .*\n(?:^#.*\n)*', tool.read_text(encoding='utf-8'))
        return re.sub(r'(?m)^# ?', '', comment[0]) if comment else ''
    shown = io.StringIO()
    before = set(sys.modules)
    environment = dict(COLUMNS=str(WIDTH), NO_COLOR='1')
    with mock.patch.object(sys, 'argv', [tool.name, '--help']), mock.patch.dict(os.environ, environment):
        # Tools import the files beside them, which may have the names of those beside another tool.
        with mock.patch.object(sys, 'path', [str(tool.parent), *sys.path]), contextlib.redirect_stdout(shown):
            try:
                runpy.run_path(str(tool), run_name='__main__')
                code = None
            except SystemExit as end:
                code = end.code
    for name in set(sys.modules) - before:
        if tool.parent in Path(getattr(sys.modules[name], '__file__', None) or '').parents:
            del sys.modules[name]
    if code != 0 or not shown.getvalue():
        raise RuntimeError(f'{tool.name} --help must print its help and end with 0, got {code}')
    return shown.getvalue()


def _is_tool(path: Path) -> bool:
    text = path.read_text(encoding='utf-8')
    return "__name__ == '__main__'" in text and 'ArgumentParser(' in text


class ToolHelp(SphinxDirective):
    """A section for each tool of the folder that the argument names, relative to the page."""

    required_arguments = 1

    def run(self) -> List[nodes.Node]:
        page = Path(self.env.doc2path(self.env.docname))
        folder = (page.parent / self.arguments[0]).resolve()
        tools = tools_of(folder)
        if not tools:
            raise self.error(f'tool-help must name a folder with tools, got {self.arguments[0]}')
        return list(self._sections(folder, tools))

    def _sections(self, folder: Path, tools: List[Path]) -> Iterator[nodes.Node]:
        for tool in tools:
            self.env.note_dependency(str(tool))
            name = f'{folder.name}/{tool.relative_to(folder).as_posix()}'
            section = nodes.section(ids=[nodes.make_id(name)], names=[nodes.fully_normalize_name(name)])
            section += nodes.title('', name)
            try:
                section += nodes.literal_block('', help_of(tool).strip('\n'), language='text')
            except (ImportError, RuntimeError) as error:
                raise self.error(f'{name}: {error}') from error
            yield section


def setup(app) -> dict:
    app.add_directive('tool-help', ToolHelp)
    return dict(parallel_read_safe=False)
