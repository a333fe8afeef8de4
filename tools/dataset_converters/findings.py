"""What a check of data finds: one line each, printed as it is found."""
from mmacmix.state_dicts import listing


class Findings:
    """Counts what was found, keeps the errors, and prints all of it unless it is to be quiet."""

    def __init__(self, quiet=False):
        self.counts = dict(ok=0, warning=0, error=0)
        self.errors = []
        self.quiet = quiet

    def part(self, title):
        if not self.quiet:
            print(f'\n{title}', flush=True)

    def ok(self, text):
        self._add('ok', text)

    def warning(self, text):
        self._add('warning', text)

    def error(self, text):
        self.errors.append(text)
        self._add('error', text)

    def _add(self, level, text):
        self.counts[level] += 1
        if not self.quiet:
            print(f'  {level:<9}{text}', flush=True)

    def summary(self):
        return f'{number(self.counts["error"], "error")}, {number(self.counts["warning"], "warning")}'


def some(names):
    """The first five names, and how many more there are."""
    return listing(map(str, names), most=5)


def number(count, thing):
    """'1 image', '2 images', '2 boxes'"""
    plural = f'{thing}es' if thing.endswith(('x', 's')) else f'{thing}s'
    return f'{count} {thing if count == 1 else plural}'
