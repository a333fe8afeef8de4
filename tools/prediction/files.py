"""What tools/predict.py reads and writes: images, names of pictures, the JSON of results."""
import json
import os
import os.path as osp

from mmacmix.engine.image_files import SUFFIXES
from mmacmix.state_dicts import listing


def collect(arguments, out_dir):
    """Paths of images: files as they are given, those of folders and their subfolders by suffix, in order.

    Hidden files, and what an earlier run has written into `out_dir`, are left out of folders.

    Returns:
        The paths, each once, and [(folder, reason), ...] of folders that hold none.

    Raises:
        ValueError: An image lies where pictures or labels will be written.
    """
    paths, failed = {}, []
    own = osp.realpath(out_dir)
    written = [osp.join(own, name) for name in ('pictures', 'labels')]
    again = osp.isfile(osp.join(own, 'predictions.json'))
    for argument in arguments:
        if not osp.isdir(argument):
            paths.setdefault(osp.realpath(argument), argument)
            continue
        found = []
        for parent, folders, names in os.walk(argument):
            skip = {own, *written} if again else {own}
            folders[:] = [name for name in folders
                          if not name.startswith('.') and osp.realpath(osp.join(parent, name)) not in skip]
            found += [osp.join(parent, name) for name in names
                      if name.lower().endswith(SUFFIXES) and not name.startswith('.')]
        if not found:
            failed.append((argument, f'is a folder without images ({", ".join(SUFFIXES)})'))
        for path in sorted(found):
            paths.setdefault(osp.realpath(path), path)
    lost = [path for real, path in paths.items() if osp.dirname(real) in written]
    if lost:
        raise ValueError('--out-dir must be a folder in which pictures/ and labels/ hold no images to predict on, '
                         f'got --out-dir {out_dir} and {listing(lost)}')
    return list(paths.values()), failed


class Names:
    """Gives every image a name of its own: 'a', 'b', and 'a_2' for the next a of another folder."""

    def __init__(self):
        self._taken = set()

    def name(self, path):
        stem = osp.splitext(osp.basename(path))[0]
        name, count = stem, 1
        while name.lower() in self._taken:  # some file systems do not tell A from a
            count += 1
            name = f'{stem}_{count}'
        self._taken.add(name.lower())
        return name


class ResultFile:
    """A JSON file that is whole after every entry, so that an interruption loses nothing that is done."""

    def __init__(self, path, head):
        self.path = path
        self.predicted = 0
        self.failed = []
        self._file = open(path, 'wb')
        fields = ''.join(f' {json.dumps(key)}: {json.dumps(value)},\n' for key, value in head.items())
        self._file.write(f'{{\n{fields} "images": ['.encode())
        self._end = self._file.tell()
        self._write_tail(finished=False)

    def add(self, entry):
        self._file.seek(self._end)
        separator = ',' if self.predicted else ''
        self._file.write(f'{separator}\n  {json.dumps(entry)}'.encode())
        self._end = self._file.tell()
        self.predicted += 1
        self._write_tail(finished=False)

    def fail(self, path, reason):
        self.failed.append(dict(image=path, reason=reason))
        self._write_tail(finished=False)

    def close(self, finished):
        self._write_tail(finished)
        self._file.close()

    def _write_tail(self, finished):
        self._file.seek(self._end)
        failed = ','.join(f'\n  {json.dumps(entry)}' for entry in self.failed)
        self._file.write(f'\n ],\n "failed": [{failed}\n ],\n "finished": {json.dumps(finished)}\n}}\n'.encode())
        self._file.truncate()
        self._file.flush()
