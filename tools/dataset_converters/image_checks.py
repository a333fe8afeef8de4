"""Checks that data of both layouts share: are the files there, and can they be read?"""
import os
import os.path as osp

from findings import number, some
from rich.console import Console
from rich.progress import track

from mmacmix.engine.image_files import read_image


def files_below(folder):
    """Paths of all files below a folder, relative to it."""
    return {osp.relpath(osp.join(parent, name), folder)
            for parent, _, names in os.walk(folder, followlinks=True) for name in names}


def spread(items, most):
    """At most `most` of the items, evenly spaced; all of them where most is None."""
    if most is None or len(items) <= most:
        return items
    return [items[i * len(items) // most] for i in range(most)]


def watched(items, description):
    """Iterates with a bar that shows the remaining time and leaves nothing behind."""
    return track(items, description, console=Console(stderr=True), transient=True)


def readable(path, damaged):
    """The image, read to its end; None, and an entry in `damaged`, where that fails."""
    try:
        return read_image(path)
    except ValueError as error:
        damaged.append(f'{path} {error}')
        return None


def report_damage(damaged, findings):
    if damaged:
        findings.error(f'{number(len(damaged), "file")} not readable: {some(damaged)}')
