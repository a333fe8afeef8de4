"""Reading of image files that says what is wrong with one."""

import os.path as osp
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
TEXT = 2**28  # bytes of the text in a PNG, which OpenCV does not read


def read_image(path: str) -> 'Image':
    """Reads an image to its end; OpenCV, which the hosts read with, fills what is missing with grey in silence.

    The orientation that EXIF tells is applied, as the hosts do.

    Raises:
        ValueError: The file is missing, empty, no image or damaged; the message is the reason alone.
    """
    from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

    if not osp.isfile(path):
        raise ValueError('is a folder' if osp.isdir(path) else 'does not exist')
    if osp.getsize(path) == 0:
        raise ValueError('is an empty file')
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    try:
        PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = TEXT
        with Image.open(path) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise ValueError('is no image') from error
    except PermissionError as error:
        raise ValueError('may not be read') from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f'is damaged or cannot be read ({error})') from error
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits
