"""The form of the archives that ``torch.save`` writes: one that every reader of archives understands in one way."""

import struct
from typing import BinaryIO, List, NamedTuple

from mmacmix.checkpoint_stand_ins import Unfit

LOCAL, CENTRAL, DESCRIPTOR = b'PK\x03\x04', b'PK\x01\x02', b'PK\x07\x08'
END, END64, LOCATOR64 = b'PK\x05\x06', b'PK\x06\x06', b'PK\x06\x07'
SHORT, LONG = 2**16 - 1, 2**32 - 1
# Sizes behind the content, and names in UTF-8: all that torch sets.
SIZES_FOLLOW = 0x8
FLAGS = SIZES_FOLLOW | 0x800


class Part(NamedTuple):
    """An entry of the directory at the end of an archive; `size`, `start` and `crc` are those of its content."""

    name: bytes
    flags: int
    crc: int
    size: int
    start: int


def check_form(file: BinaryIO, size: int) -> None:
    """Parts one after another from the first byte on, the directory of them, and its end; nothing else between.

    An archive can have several directories, or more than the directory says, and readers differ in what they take.

    Args:
        file: An archive.
        size: How many bytes it has.

    Raises:
        Unfit: The archive is of another form.
    """
    count, length, start, stop = _end(file, size)
    if start + length != stop:
        raise Unfit('its directory must end where the end of the archive begins')
    # Each takes about 1 KiB of memory to look at.
    if count > 2**16 + size // 2**10:
        raise Unfit(f'it must not have more parts than tensors, got {count}')
    place = 0
    parts = _directory(_read(file, start, length), count)
    for part in parts:
        if part.start != place:
            raise Unfit('its parts must follow each other without a gap')
        place = _behind(file, part, start)
    if place != start:
        raise Unfit('its directory must follow its parts')
    _check_names([part.name for part in parts])


def _end(file: BinaryIO, size: int) -> tuple:
    """Number of parts, length and place of the directory, and where it has to end."""
    stop = size - 22
    mark, *disks, count, length, start, comment = struct.unpack('<4s4H2IH', _read(file, stop, 22))
    if mark != END or comment:
        raise Unfit('it is damaged, or more follows on its end')
    short = (*disks, count, length, start)
    locator = _read(file, stop - 20, 20) if stop >= 20 else b''
    if locator[:4] == LOCATOR64:
        stop -= 76
        if struct.unpack('<IQI', locator[4:]) != (0, stop, 1):
            raise Unfit('its long and short ends must follow each other')
        mark, rest, _, _, *long = struct.unpack('<4sQHH2I4Q', _read(file, stop, 56))
        most = (SHORT,) * 4 + (LONG,) * 2
        if mark != END64 or rest != 44 or any(a not in (b, c) for a, b, c in zip(short, long, most)):
            raise Unfit('its long and short ends must say the same')
        short = tuple(long)
    here, first, on_this, count, length, start = short
    if here or first or on_this != count:
        raise Unfit('it must be one file')
    return count, length, start, stop


def _directory(data: bytes, count: int) -> List[Part]:
    parts, place = [], 0
    while place < len(data):
        fields = struct.unpack('<4s6H3I5H2I', data[place : place + 46])
        mark, _, _, flags, method, _, _, crc, packed, size, named, more, comment, disk, _, _, start = fields
        name = data[place + 46 : place + 46 + named]
        extra = data[place + 46 + named : place + 46 + named + more]
        if mark != CENTRAL or comment or disk or len(name) < named or len(extra) < more:
            raise Unfit('its directory must list its parts')
        if method:
            raise Unfit('its parts must not be compressed, and torch.save never does so')
        sizes = [size, packed, start]
        long = [i for i in range(3) if sizes[i] == LONG]
        if extra and (extra[:4] != struct.pack('<HH', 1, 8 * len(long)) or len(extra) != 4 + 8 * len(long)):
            raise Unfit('its directory must hold sizes and places only')
        for i, value in zip(long, struct.unpack(f'<{len(long)}Q', extra[4:]) if extra else ()):
            sizes[i] = value
        if sizes[0] != sizes[1] or flags & ~FLAGS:
            raise Unfit('its parts must be stored as they are')
        parts.append(Part(name, flags, crc, sizes[0], sizes[2]))
        place += 46 + named + more
    if len(parts) != count:
        raise Unfit(f'its directory must list {count} parts, got {len(parts)}')
    return parts


def _behind(file: BinaryIO, part: Part, limit: int) -> int:
    """Where a part ends whose own head says the same as the directory."""
    fields = struct.unpack('<4s5H3I2H', _read(file, part.start, 30))
    mark, _, flags, method, _, _, crc, packed, size, named, more = fields
    name = _read(file, part.start + 30, named)
    known = crc in ((0, part.crc) if flags & SIZES_FOLLOW else (part.crc,))
    fit = {part.size, LONG} | ({0} if flags & SIZES_FOLLOW else set())
    if (mark, name, flags, method) != (LOCAL, part.name, part.flags, 0) or not known or not {packed, size} <= fit:
        raise Unfit('its parts must be what its directory says')
    place = part.start + 30 + named + more + part.size
    if place > limit:
        raise Unfit('its parts must not be larger than the file')
    if flags & SIZES_FOLLOW:
        # The sizes have 8 bytes each in files of more than 4 GiB, else 4.
        sizes = [struct.pack('<4sI2Q', DESCRIPTOR, part.crc, part.size, part.size)]
        if part.size <= LONG:
            sizes.append(struct.pack('<4s3I', DESCRIPTOR, part.crc, part.size, part.size))
        follow = [len(sum_) for sum_ in sizes if _read(file, place, len(sum_), short=True) == sum_]
        if not follow:
            raise Unfit('its parts must have the sizes that follow them')
        place += follow[0]
    return place


def _check_names(names: List[bytes]) -> None:
    """Names of their own, in one folder; torch finds parts whatever the case of their letters."""
    folder = names[0].split(b'/')[0] if names else b''
    if len({name.lower() for name in names}) < len(names) or not all(_inside(folder, name) for name in names):
        raise Unfit('its parts must have names of their own inside one folder')


def _inside(folder: bytes, name: bytes) -> bool:
    parts = name.split(b'/')
    plain = min(name, default=0) >= 32 and b'\\' not in name
    return parts[0] == folder and len(parts) > 1 and not {b'', b'.', b'..'} & set(parts) and plain


def _read(file: BinaryIO, place: int, length: int, short: bool = False) -> bytes:
    if place < 0:
        raise Unfit('it is damaged: its start is missing')
    file.seek(place)
    data = file.read(length)
    if len(data) < length and not short:
        raise Unfit('it is damaged: its end is missing')
    return data
