"""Links between pages lead to files and headings that are there, by the names that code hosts give to headings."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(path for path in (*ROOT.glob('*.md'), *(ROOT / 'docs').rglob('*.md')) if '_build' not in path.parts)
LINK = re.compile(r'\]\(([^)\s#]*)(?:#([^)\s]+))?\)')


def anchors(text):
    """Of the headings: small letters, punctuation left out, blanks as hyphens."""
    text = re.sub(r'(?ms)^```.*?^```', '', text)
    headings = re.findall(r'(?m)^#+ +(.+?) *$', text)
    return [re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings]


def broken(page, text):
    for path, anchor in LINK.findall(re.sub(r'(?ms)^```.*?^```', '', text)):
        if '://' in path or path.startswith('mailto:'):
            continue
        target = (page.parent / path).resolve() if path else page
        if path and not target.exists():
            yield path
        elif anchor and target.suffix == '.md' and anchor not in anchors(target.read_text() if path else text):
            yield f'{path}#{anchor}'


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links(page):
    assert list(broken(page, page.read_text())) == []


def test_broken_links_are_found():
    text = '# A title\n\n## 2. `It`, twice\n\n```\n# no heading\n[x](none.md)\n```\n'
    links = '\n[a](#a-title) [b](#2-it-twice) [c](#no-heading) [d](none.md) [e](http://x.org/#x) [f](data.md#data)'
    assert list(broken(ROOT / 'docs' / 'any.md', text + links)) == ['#no-heading', 'none.md', 'data.md#data']
