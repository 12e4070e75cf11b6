"""Depth as ROS image transport compresses it: the payload and format text of a ``compressedDepth`` message.

A payload is a header of 12 bytes and an image of 16 bit, as PNG or as RVL (Wilson, "Fast Lossless Depth
Image Compression", 2017). ``16UC1`` and ``mono16`` hold the pixels themselves. ``32FC1`` holds inverse
depth in steps, finer near than far: depth is A / (step - B) metres, with A and B from the header.
"""

from __future__ import annotations

import math
import struct
import zlib
from array import array

import cv2
import numpy as np

from dsca_ros.depth import units
from dsca_ros.depth.image_layout import shown

#: Encodings taken, and the dtype of a pixel.
ENCODINGS: dict[str, np.dtype] = {
    "16UC1": np.dtype(np.uint16),
    "mono16": np.dtype(np.uint16),
    "32FC1": np.dtype(np.float32),
}
CODECS = ("png", "rvl")
#: Larger images are taken for corrupt: a few bytes can announce any size.
MAX_SIDE = 16384
MAX_PIXELS = 1 << 25
#: Image transport's own default, in zlib's levels.
PNG_LEVEL = 3

_HEADER = struct.Struct("<iff")  # 0 for inverse depth, A, B
_RVL_SIZE = struct.Struct("<II")  # columns, rows
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOURS = {0: "grey", 2: "colour", 3: "palette", 4: "grey with alpha", 6: "colour with alpha"}
#: Nibbles of the longest number taken from RVL; three bits each, it fits int32.
_LONGEST_NUMBER = 10


class CompressedDepthError(ValueError):
    """Data that is no compressed depth, or depth that cannot be compressed; the text is one line that says why."""


def decode_compressed_depth(
    data: bytes | memoryview | np.ndarray | array[int], format: str, max_pixels: int = MAX_PIXELS
) -> tuple[np.ndarray, str]:
    """The depth in a ``compressedDepth`` message.

    RVL has no checksum: damage that leaves the number of pixels right gives wrong depth, not an error.

    Args:
        data: the message's bytes.
        format: its text, as in ``16UC1; compressedDepth png``. Without a codec, or without any suffix, it is PNG.
        max_pixels: larger images are refused by what they announce, before anything is unpacked.

    Returns:
        [H, W] ``uint16`` as sent or ``float32`` metres, 0 invalid; and the encoding, a key of `ENCODINGS`.

    Raises:
        CompressedDepthError: for a format or data that cannot be read.
    """
    encoding, codec = _parse_format(format)
    payload = memoryview(np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else data).cast("B")
    if len(payload) <= _HEADER.size:
        raise CompressedDepthError(
            f"compressed depth has {len(payload)} bytes; a header of {_HEADER.size} and an image are needed"
        )
    _, a, b = _HEADER.unpack_from(payload)
    inverse = ENCODINGS[encoding] == np.float32
    # Senders of uint16 leave A and B as the memory was, so there they may be anything.
    if inverse and not (math.isfinite(a) and math.isfinite(b) and a > 0):
        raise CompressedDepthError(
            f"compressed depth has A = {a:g} and B = {b:g}; finite numbers and A above 0 are needed"
        )
    image = payload[_HEADER.size :]
    pixels = _decode_png(image, max_pixels) if codec == "png" else _decode_rvl(image, max_pixels)
    return (_from_inverse(pixels, a, b) if inverse else pixels), encoding


def encode_compressed_depth(
    depth: np.ndarray, encoding: str, codec: str = "png", max_depth: float = 10.0, quantization: float = 100.0
) -> tuple[bytes, str]:
    """The data and format of a ``compressedDepth`` message, by image transport's rules.

    ``uint16`` is exact. A ``float32`` depth d comes back up to d² / (A - d) too far, A being ``quantization``
    * (``quantization`` + 1): 1 cm at 10 m by default. What is too near for 16 bit becomes invalid: below
    0.152 m by default.

    Args:
        depth: [H, W] ``uint16`` millimetres, or ``float32`` metres where 0, negative and non-finite are invalid.
        encoding: a key of `ENCODINGS` that fits the dtype.
        codec: one of `CODECS`. RVL is the faster, PNG the smaller.
        max_depth: metres; what is farther becomes invalid, in ``float32`` also what is as far. Infinity keeps all.
        quantization: metres at which a step of ``float32`` is about a metre.

    Raises:
        CompressedDepthError: for arguments that do not fit each other.
    """
    if encoding not in ENCODINGS:
        raise _unknown_encoding(encoding)
    if codec not in CODECS:
        raise CompressedDepthError(f"codec {codec!r} is unknown; accepted: {', '.join(CODECS)}")
    if depth.dtype != ENCODINGS[encoding]:
        raise CompressedDepthError(f"encoding {encoding} does not hold {depth.dtype}")
    if depth.ndim != 2:
        raise CompressedDepthError(f"depth of shape {depth.shape} has {depth.ndim} axes; 2 are needed")
    _check_size(depth.shape[1], depth.shape[0])
    if not max_depth > 0:
        raise CompressedDepthError(f"max_depth is {max_depth}; metres above 0 are needed")
    if depth.dtype == np.float32:
        pixels, a, b = _to_inverse(depth, max_depth, quantization)
    else:
        pixels, a, b = np.where(depth > max_depth * units.MM_PER_M, np.uint16(0), depth), 0.0, 0.0
    image = _encode_png(pixels) if codec == "png" else _encode_rvl(pixels)
    return _HEADER.pack(0, a, b) + image, f"{encoding}; compressedDepth {codec}"


def _parse_format(text: str) -> tuple[str, str]:
    """Encoding and codec of a message's format."""
    encoding, _, suffix = text.partition(";")
    encoding = encoding.strip()
    if encoding not in ENCODINGS:
        raise _unknown_encoding(encoding)
    words = suffix.lower().split()
    if words in ([], ["compresseddepth"]):
        return encoding, "png"
    if len(words) == 2 and words[0] == "compresseddepth" and words[1] in CODECS:
        return encoding, words[1]
    accepted = ", ".join(f"compressedDepth {codec}" for codec in CODECS)
    raise CompressedDepthError(f"compressed depth's format ends in {shown(suffix.strip())}; accepted: {accepted}")


def _unknown_encoding(encoding: str) -> CompressedDepthError:
    return CompressedDepthError(f"depth encoding {shown(encoding)} is unknown; accepted: {', '.join(ENCODINGS)}")


def _check_size(width: int, height: int, max_pixels: int = MAX_PIXELS) -> None:
    if width == 0 or height == 0:
        raise CompressedDepthError(f"depth image of {width}x{height} has no pixels")
    if width > MAX_SIDE or height > MAX_SIDE or width * height > max_pixels:
        raise CompressedDepthError(
            f"depth image of {width}x{height} is larger than {MAX_SIDE} pixels a side or {max_pixels} in all"
        )


# --- inverse depth ------------------------------------------------------------------------------


def _to_inverse(metres: np.ndarray, max_depth: float, quantization: float) -> tuple[np.ndarray, float, float]:
    """Steps of inverse depth, 0 invalid, and their A and B; in float32 throughout, as receivers compute."""
    with np.errstate(all="ignore"):  # NaN, 0 and overflows are sorted out by the comparisons
        farthest, one = np.float32(max_depth), np.float32(1)
        a = np.float32(quantization) * (np.float32(quantization) + one)
        b = one - a / farthest
        if not (quantization > 0 and a > 0 and np.isfinite(a) and np.isfinite(b)):
            raise CompressedDepthError(f"max_depth {max_depth} and quantization {quantization} give no steps of depth")
        steps = a / metres + b
        # What is nearer than 16 bit can tell must not wrap around into believable depth.
        keep = (metres > 0) & (metres < farthest) & (steps < 65536)
        return np.where(keep, steps, np.float32(0)).astype(np.uint16), float(a), float(b)


def _from_inverse(steps: np.ndarray, a: float, b: float) -> np.ndarray:
    """Metres of steps of inverse depth, 0 invalid."""
    metres = steps.astype(np.float32)
    with np.errstate(all="ignore"):
        metres -= np.float32(b)
        np.divide(np.float32(a), metres, out=metres)
    metres[(steps == 0) | ~units.is_valid(metres)] = 0.0
    return metres


# --- PNG ----------------------------------------------------------------------------------------


def _encode_png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, PNG_LEVEL])[1].tobytes()


def _decode_png(image: memoryview, max_pixels: int) -> np.ndarray:
    """[H, W] uint16. Looked over before it is decoded: OpenCV allocates what a PNG announces, and prints of damage."""
    if image[:8] != _PNG_SIGNATURE:
        raise CompressedDepthError("compressed depth is not a PNG, though its format says so")
    image, packed = _check_png_chunks(image)
    width, height, bits, colour = struct.unpack_from(">IIBB", image, 16)
    if bits != 16 or colour != 0:
        kind = _PNG_COLOURS.get(colour, f"colour type {colour}")
        raise CompressedDepthError(f"compressed depth is a PNG of {bits} bit {kind}; 16 bit grey is needed")
    _check_size(width, height, max_pixels)
    if packed > 2 * (2 * width + 1) * height + 1024:  # deflate adds a thousandth to what it cannot make smaller
        raise CompressedDepthError(f"compressed depth is a PNG with {packed} bytes of data for {width}x{height} pixels")
    try:
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape != (height, width) or pixels.dtype != np.uint16:
        raise CompressedDepthError("compressed depth is a PNG that is damaged: its pixels cannot be read")
    return pixels


def _check_png_chunks(image: memoryview) -> tuple[memoryview, int]:
    """Holds a PNG to its structure: a header of the right length first, every checksum right, an end.

    Returns:
        The PNG without what tells nothing of pixels, such as texts, which may be packed to a thousandth and take
        seconds to unpack; and how many bytes of data it holds.
    """
    position, kind, kept, packed = len(_PNG_SIGNATURE), b"", [image[:8]], 0
    while kind != b"IEND":
        if position + 12 > len(image):
            raise CompressedDepthError(f"compressed depth is a PNG that is cut off after {len(image)} bytes")
        (length,) = struct.unpack_from(">I", image, position)
        first, kind = not kind, bytes(image[position + 4 : position + 8])
        end = position + 8 + length
        if first and (kind != b"IHDR" or length != 13):
            raise CompressedDepthError("compressed depth is a PNG that is damaged: it does not start with a header")
        if end + 4 > len(image):
            raise CompressedDepthError(f"compressed depth is a PNG that is cut off after {len(image)} bytes")
        if zlib.crc32(image[position + 4 : end]) != struct.unpack_from(">I", image, end)[0]:
            raise CompressedDepthError("compressed depth is a PNG that is damaged: a checksum is wrong")
        if not kind[0] & 0x20:  # a capital letter: it has to be understood
            kept.append(image[position : end + 4])
            packed += length * (kind == b"IDAT")
        position = end + 4
    return image if sum(map(len, kept)) == len(image) else memoryview(b"".join(kept)), packed


# --- RVL ----------------------------------------------------------------------------------------
#
# Numbers, one after the other: of each run of pixels how many are 0, then how many are not, then the
# differences of the latter, each to the non-zero pixel before, with the sign in the lowest bit. A number
# is cut into groups of three bits, lowest first; a nibble holds a group, and above it a bit that says
# whether another follows. Eight nibbles, first highest, are a little-endian word.


def _encode_rvl(pixels: np.ndarray) -> bytes:
    flat = pixels.ravel()
    filled = flat != 0
    # Runs start empty and end filled, where need be with no pixel of that kind.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], filled, [True]])))
    lengths = np.diff(edges, prepend=0, append=flat.size)
    differences = np.diff(flat[filled].astype(np.int32), prepend=np.int32(0))
    is_difference = _alternating(np.int64(2), lengths[1::2])
    numbers = np.empty(is_difference.size, np.int32)
    numbers[~is_difference] = lengths
    numbers[is_difference] = (differences << 1) ^ (differences >> 31)
    return _RVL_SIZE.pack(pixels.shape[1], pixels.shape[0]) + _pack_numbers(numbers)


def _decode_rvl(image: memoryview, max_pixels: int) -> np.ndarray:
    """[H, W] uint16."""
    if len(image) < _RVL_SIZE.size:
        raise CompressedDepthError(f"RVL image has {len(image)} bytes; {_RVL_SIZE.size} for its size are needed")
    width, height = _RVL_SIZE.unpack_from(image)
    _check_size(width, height, max_pixels)
    size = width * height
    data = image[_RVL_SIZE.size :]
    if len(data) == 0 or len(data) % 4:
        raise CompressedDepthError(f"RVL data of {len(data)} bytes is cut off: whole words of 4 bytes are needed")
    if len(data) > 3 * size + 16:  # six nibbles a pixel, a number for the run, the rest of a word
        raise CompressedDepthError(f"RVL data of {len(data)} bytes holds more than the {width}x{height} announced")
    numbers = _unpack_numbers(np.frombuffer(data, "<u4"))
    heads, end, missing = _find_runs(numbers, size)
    if missing > 0 or end > numbers.size:
        raise CompressedDepthError(f"RVL data is cut off: it holds fewer pixels than the {width}x{height} announced")
    if missing < 0 or numbers[end:].any():
        raise CompressedDepthError(f"RVL data holds more pixels than the {width}x{height} announced")
    filled_lengths = numbers[heads + 1]
    codes = numbers[:end][_alternating(np.int64(2), filled_lengths)]
    differences = (codes >> 1) ^ -(codes & 1)
    pixels = np.zeros(size, np.uint16)
    # Sums wrap around: some encoders take pixels for signed, and the differences of those do.
    pixels[_alternating(numbers[heads], filled_lengths)] = np.cumsum(differences.astype(np.uint16), dtype=np.uint16)
    return pixels.reshape(height, width)


def _find_runs(numbers: np.ndarray, size: int) -> tuple[np.ndarray, int, int]:
    """Where each run's two lengths are, where the last run ends, and how many of ``size`` pixels are then missing.

    A run is found from the one before only, so this is a loop; frames have some thousand runs. An empty one is
    the end: no encoder writes it, and a message of nothing else would take seconds.
    """
    heads = array("q")
    number = numbers.data  # gives single numbers faster than the array does
    position, last = 0, len(number) - 1
    while size > 0 and position < last:
        heads.append(position)
        filled = number[position + 1]
        length = number[position] + filled
        if length == 0:
            break
        size -= length
        position += 2 + filled
    return np.array(heads, np.int64), position, size


def _alternating(off: np.ndarray | np.int64, on: np.ndarray) -> np.ndarray:
    """A mask of runs: ``off[0]`` times False, ``on[0]`` times True, ``off[1]`` times False and so on."""
    lengths = np.empty((on.size, 2), np.int64)
    lengths[:, 0], lengths[:, 1] = off, on
    return np.repeat(np.tile([False, True], on.size), lengths.ravel())


def _pack_numbers(numbers: np.ndarray) -> bytes:
    """RVL's words of int32 numbers that are not negative."""
    lengths = np.ones(numbers.size, np.uint8)
    bound = 8
    while (longer := numbers >= bound).any():
        lengths += longer
        bound *= 8
    at = np.cumsum(lengths, dtype=np.intp)
    nibbles = np.zeros(-(-int(at[-1]) // 8) * 8, np.uint8)
    at -= lengths
    while numbers.size:
        more = numbers >= 8
        nibbles[at] = (numbers.astype(np.uint8) & 7) | (more.view(np.uint8) << 3)
        rest = np.flatnonzero(more)
        numbers, at = numbers.take(rest) >> 3, at.take(rest) + 1
    return (nibbles[0::2] << 4 | nibbles[1::2]).view(">u4").astype("<u4").tobytes()


def _unpack_numbers(words: np.ndarray) -> np.ndarray:
    """The int32 numbers in RVL's words; zeros at the end may be none, but fill the last word."""
    in_order = words.astype(">u4").view(np.uint8)
    nibbles = np.empty(2 * in_order.size, np.uint8)
    nibbles[0::2], nibbles[1::2] = in_order >> 4, in_order & 15
    if nibbles[-1] >= 8:
        raise CompressedDepthError("RVL data is cut off: it ends within a number")
    is_first = np.ones(nibbles.size, bool)
    np.less(nibbles[:-1], 8, out=is_first[1:])
    at = np.flatnonzero(is_first)
    group = nibbles.take(at)
    numbers = (group & 7).astype(np.int32)
    unfinished = np.flatnonzero(group >= 8)
    at = at.take(unfinished)
    for place in range(1, _LONGEST_NUMBER):
        at += 1
        group = nibbles.take(at)
        numbers[unfinished] |= (group & 7).astype(np.int32) << (3 * place)
        more = np.flatnonzero(group >= 8)
        unfinished, at = unfinished.take(more), at.take(more)
    if unfinished.size:
        raise CompressedDepthError(f"RVL data is damaged: a number has more than {_LONGEST_NUMBER} nibbles")
    return numbers
