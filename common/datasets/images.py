"""Files that users bring. Any of them may be damaged or hostile."""

import io
import os
import pathlib
import warnings

import numpy as np
from PIL import Image

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png")
LARGEST_FILE = 256 * 2**20  # bytes; CIFAR-100's training file has 155 million

# Pillow raises an error at more than twice as many pixels: 8,192 x 8,192, which take it 256 MiB,
# and as much again where they have to be converted
Image.MAX_IMAGE_PIXELS = 2**25
warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # below that it warns


def read(path: pathlib.Path) -> bytes:
    """Returns a file's content; raises ValueError with the reason if it cannot, or is too large."""
    try:
        if not os.path.isfile(path):  # reading a pipe or a device might never end
            raise ValueError("it is no file")
        if os.path.getsize(path) > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(str(error.strerror)) from error


def decode(content: bytes, size: int) -> np.ndarray:
    """Returns the image in a BMP, JPEG or PNG file, resized to a square: uint8 ``[size, size, 3]``.

    Raises:
        ValueError: if ``content`` is no such file, damaged or too large by its header.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=("BMP", "JPEG", "PNG"))
        if image.mode.startswith("I;16"):  # grey of 16 bits, which `convert` would clip
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = image if image.mode == "RGB" else image.convert("RGB")
        return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    except Image.UnidentifiedImageError as error:
        raise ValueError("it is no BMP, JPEG or PNG file, or its header is damaged") from error
    except Exception as error:  # a hostile file can make a decoder raise anything
        raise ValueError(str(error) or type(error).__name__) from error
