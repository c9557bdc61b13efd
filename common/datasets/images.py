"""Image files that users bring: read within limits, since any of them may be damaged or hostile."""

import os
import pathlib
import struct

import numpy as np
import tensorflow as tf

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png")  # what TensorFlow decodes
LARGEST_FILE = 256 * 2**20  # bytes
MOST_PIXELS = 2**26  # 8,192 x 8,192; as float32, for resizing, they take 768 MiB


def read(path: pathlib.Path) -> bytes:
    """Returns what an image file holds.

    Raises:
        ValueError: if it cannot be read or is too large; the message says why, without its name.
    """
    try:
        if not os.path.isfile(path):  # reading a pipe or a device might never end
            raise ValueError("it is no file")
        if os.path.getsize(path) > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(str(error.strerror)) from error


def decode(content: bytes, size: int) -> np.ndarray:
    """Returns an image of ``size x size`` pixels, squeezed to a square; of a GIF the first frame.

    Args:
        content: a BMP, GIF, JPEG or PNG file. Its header says how large the image is, which is
            checked before memory is allocated: a small file can unpack to any size.
        size: height and width.

    Returns:
        uint8 ``[size, size, 3]``. An image that has this size already is returned pixel by pixel.

    Raises:
        ValueError: if it is no such file, damaged or too large; the message says why.
    """
    try:
        with tf.device("CPU"):
            width, height, frames = _extent(content)
            if width * height * frames > MOST_PIXELS:
                times = f" in {frames:,} frames" if frames > 1 else ""
                raise ValueError(f"{width:,} x {height:,} pixels{times} are too many")
            image = tf.io.decode_image(content, channels=3, expand_animations=False)
            image = tf.image.resize(image, (size, size), antialias=True)
            return tf.saturate_cast(tf.round(image), tf.uint8).numpy()
    except (tf.errors.InvalidArgumentError, struct.error, IndexError) as error:
        raise ValueError("it is damaged, or of an unusual kind") from error


def _extent(content: bytes) -> tuple[int, int, int]:
    """Returns width, height and number of frames by the file's header."""
    if content.startswith(b"\xff\xd8\xff"):
        height, width, _ = tf.image.extract_jpeg_shape(content).numpy().tolist()
        return width, height, 1
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return *struct.unpack_from(">II", content, 16), 1
    if content.startswith(b"BM"):
        width, height, _, bits = struct.unpack_from("<iiHH", content, 18)
        if bits not in (24, 32):  # TensorFlow takes a table's numbers for shades of grey
            raise ValueError(f"it is a BMP of {bits} bits per pixel, not 24 or 32")
        return abs(width), abs(height), 1  # a negative height: the rows from the top down
    if content.startswith(b"GIF8"):
        return _extent_of_gif(content)
    raise ValueError("it is no BMP, GIF, JPEG or PNG file")


def _extent_of_gif(content: bytes) -> tuple[int, int, int]:
    """Returns the largest width and height of the frames, and their number.

    TensorFlow decodes all frames, even if only the first is asked for, and each has a size of its
    own.
    """

    def colours(flags: int) -> int:  # the bytes of the table of colours that may follow the flags
        return 3 << (flags & 7) + 1 if flags & 0x80 else 0

    at, sizes = 13 + colours(content[10]), [(0, 0)]
    while content[at] != 0x3B:  # the end
        if content[at] == 0x2C:  # a frame
            sizes.append(struct.unpack_from("<HH", content, at + 5))
            at += 11 + colours(content[at + 9])
        else:  # an extension
            at += 2
        while content[at]:  # its data, in blocks that say how long they are
            at += content[at] + 1
        at += 1
    widths, heights = zip(*sizes, strict=True)
    return max(widths), max(heights), len(sizes) - 1
