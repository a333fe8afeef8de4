"""Reading of image files that says what is wrong with one."""

import os.path as osp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
ORIENTATION = 0x0112  # of EXIF
#: Numbers of PIL's transpositions that put an image upright, by EXIF's orientation.
TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
TEXT = 2**28  # bytes of the text in a PNG, which OpenCV does not read


def read_image(path: str) -> 'Image':
    """Reads an image to its end; OpenCV, which the hosts read with, fills what is missing with grey in silence.

    The orientation that EXIF tells is applied, as the hosts do.

    Raises:
        ValueError: The file is missing, empty, no image or damaged; the message is the reason alone.
    """
    from PIL import Image, PngImagePlugin, UnidentifiedImageError

    if not osp.isfile(path):
        raise ValueError('is a folder' if osp.isdir(path) else 'does not exist')
    if osp.getsize(path) == 0:
        raise ValueError('is an empty file')
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    try:
        PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = TEXT
        with Image.open(path) as image:
            image.load()
            # Not ImageOps.exif_transpose, which fails where it cannot write the rest of EXIF again.
            turn = TURNS.get(image.getexif().get(ORIENTATION))
            return image.copy() if turn is None else image.transpose(turn)
    except UnidentifiedImageError as error:
        raise ValueError('is no image') from error
    except PermissionError as error:
        raise ValueError('may not be read') from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f'is damaged or cannot be read ({error})') from error
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits
