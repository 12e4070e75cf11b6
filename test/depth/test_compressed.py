"""The compressedDepth codec against a second, slow one written here, and against everything that is wrong."""

from __future__ import annotations

import math
import struct
import tracemalloc
import zlib
from array import array

import cv2
import numpy as np
import pytest

from dsca_ros.depth import compressed
from dsca_ros.depth.compressed import CompressedDepthError, decode_compressed_depth, encode_compressed_depth

CODECS = ("png", "rvl")
INTEGERS = ("16UC1", "mono16")
#: A and B of max_depth 10 and quantization 100, worked out by hand: 100 · 101 and 1 - 10100 / 10.
A, B = 10100.0, -1009.0


# --- a second codec, one pixel at a time --------------------------------------------------------


def rvl_words(pixels: list[int]) -> bytes:
    """RVL of pixels, by the paper's description."""
    nibbles: list[int] = []

    def put(number: int) -> None:
        while number >= 8:
            nibbles.append(8 + number % 8)
            number //= 8
        nibbles.append(number)

    at, previous = 0, 0
    while at < len(pixels):
        empty = at
        while empty < len(pixels) and pixels[empty] == 0:
            empty += 1
        filled = empty
        while filled < len(pixels) and pixels[filled] != 0:
            filled += 1
        put(empty - at)
        put(filled - empty)
        for pixel in pixels[empty:filled]:
            difference, previous = pixel - previous, pixel
            put(2 * difference if difference >= 0 else -2 * difference - 1)
        at = filled
    nibbles += [0] * (-len(nibbles) % 8)
    words = [nibbles[i : i + 8] for i in range(0, len(nibbles), 8)]
    return b"".join(struct.pack("<I", int("".join(f"{n:x}" for n in word), 16)) for word in words)


def rvl_pixels(words: bytes, count: int) -> list[int]:
    """Pixels of RVL."""
    nibbles = iter("".join(f"{word:08x}" for (word,) in struct.iter_unpack("<I", words)))

    def take() -> int:
        number, place = 0, 1
        while (nibble := int(next(nibbles), 16)) >= 8:
            number, place = number + (nibble - 8) * place, place * 8
        return number + nibble * place

    pixels: list[int] = []
    previous = 0
    while len(pixels) < count:
        pixels += [0] * take()
        for _ in range(take()):
            code = take()
            previous += -(code + 1) // 2 if code % 2 else code // 2
            pixels.append(previous)
    return pixels


def rvl_data(pixels: np.ndarray, a: float = 0.0, b: float = 0.0) -> bytes:
    """A message's data with RVL."""
    height, width = pixels.shape
    return struct.pack("<iffII", 0, a, b, width, height) + rvl_words(pixels.ravel().tolist())


def png_data(pixels: np.ndarray, a: float = 0.0, b: float = 0.0) -> bytes:
    """A message's data with a PNG of whatever the pixels are."""
    return struct.pack("<iff", 0, a, b) + cv2.imencode(".png", pixels)[1].tobytes()


DATA = {"png": png_data, "rvl": rvl_data}


# --- round trips --------------------------------------------------------------------------------


def images() -> dict[str, np.ndarray]:
    """[H, W] uint16 of every kind that a run-length code may stumble over."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 65536, (37, 53)).astype(np.uint16)
    smooth = (2000 + 300 * np.sin(np.arange(61 * 83) / 97)).astype(np.uint16).reshape(61, 83)
    wide = np.zeros((40, 70), np.uint16)  # two runs of 1400, numbers of four nibbles
    wide[20:] = 1500
    found = {
        "one_empty": np.zeros((1, 1), np.uint16),
        "one_valid": np.full((1, 1), 7, np.uint16),
        "one_largest": np.full((1, 1), 65535, np.uint16),
        "row": rng.integers(0, 9000, (1, 17)).astype(np.uint16),
        "column": rng.integers(0, 9000, (19, 1)).astype(np.uint16),
        "all_empty": np.zeros((13, 11), np.uint16),
        "all_valid": rng.integers(1, 65536, (13, 11)).astype(np.uint16),
        "all_largest": np.full((7, 9), 65535, np.uint16),
        "extremes": np.tile([1, 65535], (9, 8)).astype(np.uint16),
        "alternating": np.tile([0, 1234], (11, 7)).astype(np.uint16),
        "alternating_filled_first": np.tile([1234, 0], (11, 7)).astype(np.uint16),
        "random": noise,
        "random_holes": noise * (rng.random(noise.shape) < 0.5).astype(np.uint16),
        "smooth": smooth,
        "smooth_holes": smooth * (rng.random(smooth.shape) < 0.95).astype(np.uint16),
        "long_runs": wide,
    }
    for length in range(1, 18):  # every number of nibbles left over in the last word
        found[f"rest_{length}"] = np.arange(1, length + 1, dtype=np.uint16)[None]
    return found


IMAGES = images()
every_image = pytest.mark.parametrize("pixels", IMAGES.values(), ids=IMAGES)
every_codec = pytest.mark.parametrize("codec", CODECS)


@every_image
@every_codec
@pytest.mark.parametrize("encoding", INTEGERS)
def test_integers_come_back_exactly(pixels, codec, encoding):
    data, text = encode_compressed_depth(pixels, encoding, codec, max_depth=math.inf)
    assert text == f"{encoding}; compressedDepth {codec}"
    decoded, decoded_encoding = decode_compressed_depth(data, text)
    assert decoded_encoding == encoding and decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, pixels)


@every_image
@every_codec
def test_metres_come_back_within_a_step(pixels, codec):
    metres = (pixels / np.float32(6553.6)).astype(np.float32)
    decoded, encoding = decode_compressed_depth(*encode_compressed_depth(metres, "32FC1", codec))
    assert encoding == "32FC1" and decoded.dtype == np.float32 and decoded.shape == metres.shape
    # Away from the ends of the range, where a step more or less decides.
    kept, lost = (metres > 0.1518) & (metres < 9.9), (metres < 0.1517) | (metres >= 10)
    assert not decoded[lost].any()
    true = metres[kept].astype(np.float64)
    error = decoded[kept] - true
    rounding = 1e-5 * true
    assert (error > -rounding).all() and (error < true**2 / (A - true) + rounding).all()


@every_codec
@pytest.mark.parametrize(("max_depth", "quantization"), [(10.0, 100.0), (5.0, 50.0), (80.0, 150.0), (math.inf, 100.0)])
def test_the_error_bound_holds_for_other_parameters(codec, max_depth, quantization):
    a = quantization * (quantization + 1)
    nearest = a / (65535 + a / max_depth)
    metres = np.geomspace(nearest * 1.01, min(max_depth, 60) * 0.98, 999, dtype=np.float32).reshape(27, 37)
    decoded, _ = decode_compressed_depth(*encode_compressed_depth(metres, "32FC1", codec, max_depth, quantization))
    true = metres.astype(np.float64)
    error = decoded - true
    assert (error > -1e-5 * true).all() and (error < true**2 / (a - true) + 1e-5 * true).all()
    assert error.max() > 0.5 * (true**2 / a).max()  # the bound is not idle


@every_codec
def test_a_second_pass_costs_a_step_at_most(codec):
    """What was decoded lies on the steps, but float32 may put it just below its own."""
    metres = np.linspace(0.2, 9.8, 500, dtype=np.float32).reshape(20, 25)
    once, _ = decode_compressed_depth(*encode_compressed_depth(metres, "32FC1", codec))
    twice, _ = decode_compressed_depth(*encode_compressed_depth(once, "32FC1", codec))
    assert (np.abs(twice - once) <= once**2 / (A - once) + 1e-5).all()


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
@every_codec
def test_any_layout_is_encoded_and_left_alone(codec, encoding):
    depth = np.arange(1, 241).reshape(12, 20) * (40 if encoding == "16UC1" else 0.04)
    depth = depth.astype(compressed.ENCODINGS[encoding])
    expected = encode_compressed_depth(np.ascontiguousarray(depth[::2, ::-2]), encoding, codec)
    kept = depth.copy()
    depth.flags.writeable = False
    assert encode_compressed_depth(depth[::2, ::-2], encoding, codec) == expected
    assert encode_compressed_depth(np.asfortranarray(depth)[::2, ::-2], encoding, codec) == expected
    np.testing.assert_array_equal(depth, kept)


# --- bytes --------------------------------------------------------------------------------------


HAND_MADE = [
    # 2 empty, 2 filled, +5, +2, 1 empty, 0 filled: nibbles 2 2 a1 4 1 0, then 0 to fill the word
    ([[0, 0, 5, 7, 0]], "0041a122"),
    # 0 empty, 2 filled, +3, -2
    ([[3], [1]], "00006302"),
    # 0 empty, 1 filled, +65535: 131070 is 377776 in octal; one word exactly
    ([[65535]], "f3ffef01"),
    # 6 empty, 0 filled
    ([[0, 0], [0, 0], [0, 0]], "00000060"),
    # 0 empty, 1 filled, +1; 1 empty, 1 filled, 0, since the difference is to the filled pixel before
    ([[1, 0, 1]], "00102101"),
    # 0 empty, 9 filled, nine times +1: 0 91 2 2 2 2 2, 2 2 2 2
    ([[1, 2, 3], [4, 5, 6], [7, 8, 9]], "22221209" + "00002222"),
]


@pytest.mark.parametrize(("pixels", "words"), HAND_MADE)
def test_rvl_is_byte_for_byte_as_worked_out_by_hand(pixels, words):
    depth = np.array(pixels, np.uint16)
    size = struct.pack("<II", depth.shape[1], depth.shape[0])
    data, _ = encode_compressed_depth(depth, "16UC1", "rvl", max_depth=math.inf)
    assert data.hex() == bytes(12).hex() + size.hex() + words
    assert rvl_words(depth.ravel().tolist()).hex() == words
    decoded, _ = decode_compressed_depth(data, "16UC1; compressedDepth rvl")
    assert decoded.tolist() == pixels


@every_image
def test_rvl_agrees_with_the_slow_codec(pixels):
    data, _ = encode_compressed_depth(pixels, "16UC1", "rvl", max_depth=math.inf)
    assert data == rvl_data(pixels)
    assert rvl_pixels(data[20:], pixels.size) == pixels.ravel().tolist()


def test_rvl_of_an_encoder_with_signed_pixels_is_read():
    """The paper's own code takes pixels for int16, so its differences are those of -25536, not 40000."""
    signed = [[30000, -25536, -1, 0, 12]]
    data = struct.pack("<iffII", 0, 0, 0, 5, 1) + rvl_words(signed[0])
    assert decode_compressed_depth(data, "16UC1; compressedDepth rvl")[0].tolist() == [[30000, 40000, 65535, 0, 12]]


def test_zeros_after_the_last_pixel_are_no_pixels():
    data = rvl_data(IMAGES["alternating"]) + bytes(8)
    np.testing.assert_array_equal(decode_compressed_depth(data, "16UC1; compressedDepth rvl")[0], IMAGES["alternating"])


@every_codec
def test_the_header_holds_a_and_b(codec):
    metres = np.full((2, 3), 1.5, np.float32)
    data, _ = encode_compressed_depth(metres, "32FC1", codec)
    assert data[:12] == bytes.fromhex("0000000000d01d4600407cc4")
    assert struct.unpack("<iff", data[:12]) == (0, A, B)
    data, _ = encode_compressed_depth(metres, "32FC1", codec, max_depth=4.0, quantization=20.0)
    assert struct.unpack("<iff", data[:12]) == (0, 420.0, -104.0)
    data, _ = encode_compressed_depth(np.ones((2, 3), np.uint16), "16UC1", codec)
    assert data[:12] == bytes(12)


def test_behind_the_header_is_a_png_of_16_bit():
    pixels = IMAGES["random_holes"]
    data, _ = encode_compressed_depth(pixels, "16UC1", "png", max_depth=math.inf)
    read = cv2.imdecode(np.frombuffer(data[12:], np.uint8), cv2.IMREAD_UNCHANGED)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels)


# --- inverse depth ------------------------------------------------------------------------------


def test_steps_are_cut_off_not_rounded():
    """As upstream's encoder does; the numbers are 10100 / depth - 1009."""
    steps = {1.0: 9091, 2.5: 3031, 3.0: 2357, 0.152: 65438, 9.999: 1, 9.9: 11, 0.15: 0, 0.01: 0, 1e-30: 0}
    nothing = {10.0: 0, 60.0: 0, 0.0: 0, -1.0: 0, -1e-30: 0, math.inf: 0, -math.inf: 0, math.nan: 0}
    metres = np.array([[*steps, *nothing]], np.float32)
    data, _ = encode_compressed_depth(metres, "32FC1", "rvl")
    assert rvl_pixels(data[20:], metres.size) == [*steps.values(), *nothing.values()]


@every_codec
def test_steps_are_read_as_inverse_depth(codec):
    steps = np.array([[0, 1, 1011, 9091], [65535, 4041, 0, 91]], np.uint16)
    decoded, _ = decode_compressed_depth(DATA[codec](steps, A, B), f"32FC1; compressedDepth {codec}")
    expected = [[0, 10, 5, 1], [10100 / 66544, 2, 0, 10100 / 1100]]
    np.testing.assert_allclose(decoded, expected, rtol=1e-6)


@every_codec
def test_steps_that_are_no_depth_are_invalid(codec):
    """At B the depth is infinite, below it negative."""
    steps = np.array([[4, 5, 6, 7, 0]], np.uint16)
    decoded, _ = decode_compressed_depth(DATA[codec](steps, 100.0, 5.0), f"32FC1; compressedDepth {codec}")
    assert decoded.tolist() == [[0, 0, 100, 50, 0]]
    tiny, _ = decode_compressed_depth(DATA[codec](steps, 3e38, 5.9999995), f"32FC1; compressedDepth {codec}")
    assert tiny[0, 2] == 0 and np.isfinite(tiny).all()


@every_codec
@pytest.mark.parametrize("garbage", [(math.nan, math.inf), (-3.0, 1e30), (0.0, 0.0)])
def test_integers_do_not_heed_a_and_b(codec, garbage):
    """Upstream's encoder leaves them uninitialised."""
    pixels = IMAGES["row"]
    decoded, _ = decode_compressed_depth(DATA[codec](pixels, *garbage), f"16UC1; compressedDepth {codec}")
    np.testing.assert_array_equal(decoded, pixels)


@every_codec
def test_what_is_farther_than_max_depth_becomes_invalid(codec):
    millimetres = np.array([[0, 9999, 10000, 10001, 65535]], np.uint16)
    decoded, _ = decode_compressed_depth(*encode_compressed_depth(millimetres, "16UC1", codec))
    assert decoded.tolist() == [[0, 9999, 10000, 0, 0]]
    for max_depth in (65.535, 70.0, math.inf):
        decoded, _ = decode_compressed_depth(*encode_compressed_depth(millimetres, "16UC1", codec, max_depth))
        np.testing.assert_array_equal(decoded, millimetres)


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoding", "codec"),
    [
        ("16UC1; compressedDepth png", "16UC1", "png"),
        ("16UC1; compressedDepth rvl", "16UC1", "rvl"),
        ("16UC1; compressedDepth", "16UC1", "png"),
        ("16UC1; compressedDepth ", "16UC1", "png"),
        ("16UC1", "16UC1", "png"),
        ("16UC1;", "16UC1", "png"),
        ("mono16; compressedDepth rvl", "mono16", "rvl"),
        ("16UC1;compressedDepth png", "16UC1", "png"),
        ("  16UC1 ;  compressedDepth   RVL \n", "16UC1", "rvl"),
        ("16UC1; COMPRESSEDDEPTH Png", "16UC1", "png"),
    ],
)
def test_formats_are_read(text, encoding, codec):
    pixels = IMAGES["random_holes"]
    decoded, decoded_encoding = decode_compressed_depth(DATA[codec](pixels), text)
    assert decoded_encoding == encoding
    np.testing.assert_array_equal(decoded, pixels)


BAD_FORMATS = [
    ("", ["''", "16UC1", "mono16", "32FC1"]),
    ("rgb8; compressedDepth png", ["'rgb8'", "16UC1", "mono16", "32FC1"]),
    ("16uc1; compressedDepth png", ["'16uc1'", "16UC1"]),
    ("png", ["'png'", "16UC1"]),
    ("; compressedDepth png", ["''", "16UC1"]),
    ("16UC1; compressedDepth zstd", ["'compressedDepth zstd'", "png", "rvl"]),
    ("16UC1; jpeg compressed bgr8", ["'jpeg compressed bgr8'", "compressedDepth png"]),
    ("16UC1; compressedDepth png rvl", ["'compressedDepth png rvl'"]),
    ("16UC1; compressedDepth; png", ["'compressedDepth; png'"]),
    ("16UC1; png", ["'png'", "compressedDepth png"]),
    ("16UC1; rgb\nünïcode", ["rgb", "ünïcode"]),
]


@pytest.mark.parametrize(("text", "words"), BAD_FORMATS)
def test_other_formats_are_refused(text, words):
    refused(png_data(IMAGES["row"]), text, words)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, "array", "numpy", "numpy_strided", "numpy_read_only"])
@every_codec
def test_data_of_any_kind_is_read(kind, codec):
    pixels = IMAGES["random_holes"]
    data = DATA[codec](pixels)
    if isinstance(kind, type):
        given = kind(data)
    elif kind == "array":  # as rclpy gives it
        given = array("B", data)
    else:
        given = np.frombuffer(data, np.uint8)
        if kind == "numpy_strided":
            given = np.repeat(given, 3)[::3]
        elif kind == "numpy":
            given = given.copy()
    decoded, _ = decode_compressed_depth(given, f"16UC1; compressedDepth {codec}")
    np.testing.assert_array_equal(decoded, pixels)
    decoded[:] = 0  # not a view of the message
    assert bytes(given) == data


# --- what is wrong ------------------------------------------------------------------------------


def refused(data: bytes, text: str, words: list[str]) -> None:
    with pytest.raises(CompressedDepthError) as caught:
        decode_compressed_depth(data, text)
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said and said == said.strip() and said


def rvl_of(width: int, height: int, *words: int) -> bytes:
    return struct.pack("<iffII", 0, 0, 0, width, height) + b"".join(struct.pack("<I", word) for word in words)


def with_checksums(data: bytes) -> bytes:
    """The data of a PNG with the checksums its chunks should have; what does not hang together stays."""
    image = bytearray(data)
    at = 20
    while at + 12 <= len(image):
        (length,) = struct.unpack_from(">I", image, at)
        if at + 12 + length > len(image):
            break
        struct.pack_into(">I", image, at + 8 + length, zlib.crc32(image[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(image)


def png_with(data: bytes, offset: int, change: bytes) -> bytes:
    """A PNG with other bytes at an offset from its start, and checksums that are right."""
    return with_checksums(data[: 12 + offset] + change + data[12 + offset + len(change) :])


PIXELS = IMAGES["random_holes"]  # 53x37
PNG, RVL = png_data(PIXELS), rvl_data(PIXELS)

BAD_HEADERS = {
    "nothing": (b"", ["0 bytes", "12"]),
    "one_byte": (b"\0", ["1 bytes", "12"]),
    "a_byte_short": (bytes(11), ["11 bytes", "12"]),
    "no_image": (bytes(12), ["12 bytes", "image"]),
}
BAD_PNGS = {
    "a_byte": (PNG[:13], ["not a PNG"]),
    "rvl": (RVL, ["not a PNG"]),
    "jpeg": (bytes(12) + cv2.imencode(".jpg", np.zeros((8, 8), np.uint8))[1].tobytes(), ["not a PNG"]),
    "8_bit": (png_data(PIXELS.astype(np.uint8)), ["8 bit grey", "16 bit grey"]),
    "colour": (png_data(np.dstack([PIXELS] * 3)), ["16 bit colour", "16 bit grey"]),
    "colour_8_bit": (png_data(np.zeros((4, 4, 3), np.uint8)), ["8 bit colour"]),
    "colour_with_alpha": (png_data(np.dstack([PIXELS] * 4)), ["16 bit colour with alpha"]),
    "palette": (png_with(PNG, 24, b"\x08\x03"), ["8 bit palette"]),
    "unknown_colour": (png_with(PNG, 25, b"\x09"), ["colour type 9"]),
    "signature_only": (PNG[:20], ["cut off"]),
    "cut_in_the_header": (PNG[:40], ["cut off"]),
    "cut_in_the_pixels": (PNG[: len(PNG) // 2], ["cut off"]),
    "cut_before_the_end": (PNG[:-12], ["cut off"]),
    "cut_by_a_byte": (PNG[:-1], ["cut off"]),
    "header_first": (png_with(PNG, 12, b"IDAT"), ["damaged", "header"]),
    "header_too_long": (PNG[:20] + struct.pack(">I", 14) + PNG[24:], ["damaged", "header"]),
    "length_of_4_gib": (PNG[:45] + b"\xff" * 4 + PNG[49:], ["cut off"]),
    "flipped_bit": (PNG[:200] + bytes([PNG[200] ^ 1]) + PNG[201:], ["damaged", "checksum"]),
    "pixels_that_do_not_inflate": (png_with(PNG, 300, b"\xff" * 40), ["damaged", "pixels"]),
    "no_pixels": (PNG[:45] + PNG[-12:], ["damaged", "pixels"]),
    "more_rows_than_there_are": (png_with(PNG, 20, struct.pack(">I", 99)), ["damaged", "pixels"]),
    "width_0": (png_with(PNG, 16, struct.pack(">I", 0)), ["0x37", "no pixels"]),
    "height_0": (png_with(PNG, 20, struct.pack(">I", 0)), ["53x0", "no pixels"]),
    "bomb": (png_with(PNG, 16, struct.pack(">II", 2**31 - 1, 2**31 - 1)), ["2147483647x2147483647", "16384"]),
    "too_wide": (png_with(PNG, 16, struct.pack(">II", 16385, 1)), ["16385x1", "16384"]),
    "too_many": (png_with(PNG, 16, struct.pack(">II", 16384, 16384)), ["16384x16384", str(compressed.MAX_PIXELS)]),
}
BAD_RVLS = {
    "a_byte": (RVL[:13], ["1 bytes", "8"]),
    "no_rows": (RVL[:19], ["7 bytes", "8"]),
    "no_words": (RVL[:20], ["0 bytes", "cut off"]),
    "half_a_word": (RVL[:-2], ["cut off", "4 bytes"]),
    "cut_in_the_middle": (RVL[: 20 + (len(RVL) - 20) // 8 * 4], ["cut off"]),
    "a_word_short": (RVL[:-4], ["cut off"]),
    "width_0": (rvl_of(0, 5, 0), ["0x5", "no pixels"]),
    "height_0": (rvl_of(5, 0, 0), ["5x0", "no pixels"]),
    "bomb": (rvl_of(2**31, 2**31, 0x88888887), ["2147483648x2147483648", "16384"]),
    "largest_bomb": (rvl_of(2**32 - 1, 2**32 - 1, 0), ["4294967295x4294967295"]),
    "too_wide": (rvl_of(16385, 1, 0), ["16385x1", "16384"]),
    "too_tall": (rvl_of(1, 16385, 0), ["1x16385", "16384"]),
    "too_many": (rvl_of(16384, 16384, 0), ["16384x16384", str(compressed.MAX_PIXELS)]),
    # 3 empty, 2 filled, +1, +1
    "fewer_than_announced": (rvl_of(6, 1, 0x32220000), ["cut off", "fewer", "6x1"]),
    "more_than_announced": (rvl_of(4, 1, 0x32220000), ["more", "4x1"]),
    "more_in_a_second_run": (rvl_of(5, 1, 0x32221100), ["more", "5x1"]),
    "more_words": (rvl_of(5, 1, 0x32220000, 1), ["more", "5x1"]),
    "more_words_than_could_be": (rvl_of(1, 1, 0x01200000, 0, 0, 0, 0), ["20 bytes", "more", "1x1"]),
    "far_more_than_announced": (rvl_of(5, 1, 0xFFFFFFF7), ["cut off"]),
    "empty_runs_only": (rvl_of(200, 100, *[0] * 15000), ["cut off", "fewer"]),
    "empty_far_more": (rvl_of(5, 1, 0xFFFFFFF7, 0), ["more", "5x1"]),
    # 0 empty, 8 filled, five differences
    "differences_missing": (rvl_of(8, 1, 0x08122222), ["cut off"]),
    "ends_within_a_number": (rvl_of(5, 1, 0x3222000F), ["cut off", "number"]),
    "number_too_long": (rvl_of(5, 1, 0x88888888, 0x88100000), ["damaged", "nibbles"]),
    "number_endless": (rvl_of(99, 99, *[0xFFFFFFFF] * 99, 0), ["damaged", "nibbles"]),
    "png": (PNG, ["larger"]),
}


@pytest.mark.parametrize(("data", "words"), BAD_HEADERS.values(), ids=BAD_HEADERS)
@pytest.mark.parametrize("encoding", compressed.ENCODINGS)
@every_codec
def test_data_without_an_image_is_refused(codec, encoding, data, words):
    refused(data, f"{encoding}; compressedDepth {codec}", words)


@pytest.mark.parametrize(("data", "words"), BAD_PNGS.values(), ids=BAD_PNGS)
@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_a_bad_png_is_refused(encoding, data, words):
    refused(struct.pack("<iff", 0, A, B)[: len(data)] + data[12:], f"{encoding}; compressedDepth png", words)


@pytest.mark.parametrize(("data", "words"), BAD_RVLS.values(), ids=BAD_RVLS)
@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_bad_rvl_is_refused(encoding, data, words):
    refused(struct.pack("<iff", 0, A, B) + data[12:], f"{encoding}; compressedDepth rvl", words)


@pytest.mark.parametrize("a_b", [(math.nan, B), (math.inf, B), (A, math.nan), (A, -math.inf), (0, B), (-1, B)])
@every_codec
def test_metres_need_an_a_and_b(codec, a_b):
    refused(DATA[codec](PIXELS, *a_b), f"32FC1; compressedDepth {codec}", ["A = ", "B = ", "finite"])


@pytest.mark.parametrize("name", ["bomb", "largest_bomb", "too_many", "number_endless", "far_more_than_announced"])
def test_what_is_announced_is_not_allocated(name):
    data = BAD_RVLS[name][0]
    refused(data, "16UC1; compressedDepth rvl", [])  # error messages and imports are in memory from here on
    tracemalloc.start()
    try:
        refused(data, "16UC1; compressedDepth rvl", [])
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_a_message_of_empty_runs_is_refused_at_the_first(monkeypatch):
    """Millions of them fit into a message: one by one they took seconds."""
    heads = []
    monkeypatch.setattr(compressed, "array", lambda kind: heads)
    refused(rvl_of(1000, 1000, *[0] * 700_000), "16UC1; compressedDepth rvl", ["cut off", "fewer"])
    assert len(heads) == 1


def png_of(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A compressed depth whose PNG has these chunks, of a kind and a content, between its header and its end."""
    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    parts = [
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in [(b"IHDR", head), *chunks, (b"IEND", b"")]
    ]
    return bytes(12) + b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def packed_rows(pixels: np.ndarray) -> bytes:
    """What a PNG's IDAT holds."""
    return zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels))


def test_what_beside_the_pixels_is_in_a_png_is_not_unpacked(monkeypatch):
    """A text of 20 KB may be one of 20 MB, and be there a hundred times; transparency and gamma are not depth's."""
    texts = [(b"zTXt", b"x\0\0" + zlib.compress(bytes(7_000_000))), (b"tRNS", b"\0\1"), (b"gAMA", b"\0\0\0\1")]
    data = png_of(53, 37, *texts, (b"IDAT", packed_rows(PIXELS)))
    given, decode = [], cv2.imdecode
    monkeypatch.setattr(compressed.cv2, "imdecode", lambda data, how: given.append(bytes(data)) or decode(data, how))
    pixels, _ = decode_compressed_depth(data, "16UC1; compressedDepth png")
    np.testing.assert_array_equal(pixels, PIXELS)
    assert bytes(12) + given[0] == png_of(53, 37, (b"IDAT", packed_rows(PIXELS)))


def test_a_png_with_far_more_data_than_pixels_is_refused_before_it_is_unpacked(monkeypatch):
    data = png_of(53, 37, (b"IDAT", packed_rows(PIXELS)), (b"IDAT", zlib.compress(bytes(20_000_000))))
    monkeypatch.setattr(compressed.cv2, "imdecode", lambda *_: pytest.fail("it was unpacked"))
    refused(data, "16UC1; compressedDepth png", ["bytes of data", "53x37"])
    # What deflate cannot make smaller it leaves as it is, and marks it.
    monkeypatch.undo()
    noise = np.random.default_rng(1).integers(0, 1 << 16, (3, 5000), np.uint16)
    for level in (0, 9):
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in noise)
        pixels, _ = decode_compressed_depth(png_of(5000, 3, (b"IDAT", zlib.compress(rows, level))), "16UC1")
        np.testing.assert_array_equal(pixels, noise)


def test_a_long_text_is_cut_where_it_is_shown():
    """It goes to the log, to /rosout and to /diagnostics."""
    for text in ("x" * 1_000_000, "16UC1; " + "x" * 1_000_000):
        with pytest.raises(CompressedDepthError) as raised:
            decode_compressed_depth(PNG, text)
        assert "xxx" in str(raised.value) and len(str(raised.value)) < 300


def test_an_empty_frame_of_any_size_is_read():
    """A few bytes that announce many pixels and mean it."""
    data, text = encode_compressed_depth(np.zeros((3000, 4000), np.uint16), "16UC1", "rvl")
    assert len(data) == 28
    assert decode_compressed_depth(data, text)[0].shape == (3000, 4000)
    assert not decode_compressed_depth(data, text)[0].any()


BAD_ARGUMENTS = [
    ({"encoding": "rgb8"}, ["'rgb8'", "16UC1", "mono16", "32FC1"]),
    ({"encoding": "16UC1; compressedDepth"}, ["'16UC1; compressedDepth'"]),
    ({"encoding": "32FC1"}, ["32FC1", "uint16"]),
    ({"depth": np.ones((2, 2), np.float32)}, ["16UC1", "float32"]),
    ({"depth": np.ones((2, 2), np.float64), "encoding": "32FC1"}, ["32FC1", "float64"]),
    ({"depth": np.ones((2, 2), np.int16)}, ["16UC1", "int16"]),
    ({"codec": "jpeg"}, ["'jpeg'", "png", "rvl"]),
    ({"codec": "PNG"}, ["'PNG'", "png", "rvl"]),
    ({"depth": np.ones(4, np.uint16)}, ["(4,)", "2"]),
    ({"depth": np.ones((2, 2, 1), np.uint16)}, ["(2, 2, 1)", "2"]),
    ({"depth": np.ones((0, 4), np.uint16)}, ["4x0", "no pixels"]),
    ({"depth": np.ones((4, 0), np.uint16)}, ["0x4", "no pixels"]),
    ({"depth": np.zeros((1, 16385), np.uint16)}, ["16385x1", "16384"]),
    ({"max_depth": 0.0}, ["max_depth", "0.0"]),
    ({"max_depth": -1.0}, ["max_depth", "-1.0"]),
    ({"max_depth": math.nan}, ["max_depth", "nan"]),
]
BAD_STEPS = [(1e-40, 100.0), (10.0, 0.0), (10.0, -5.0), (10.0, math.nan), (10.0, math.inf), (10.0, 1e25), (10.0, 1e-50)]


@pytest.mark.parametrize(("changes", "words"), BAD_ARGUMENTS)
@every_codec
def test_bad_arguments_are_refused(codec, changes, words):
    arguments = {"depth": np.ones((2, 2), np.uint16), "encoding": "16UC1", "codec": codec, **changes}
    with pytest.raises(CompressedDepthError) as caught:
        encode_compressed_depth(**arguments)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("max_depth", "quantization"), BAD_STEPS)
def test_parameters_that_give_no_steps_are_refused(max_depth, quantization):
    with pytest.raises(CompressedDepthError, match=r"max_depth .* quantization"):
        encode_compressed_depth(np.ones((2, 2), np.float32), "32FC1", "png", max_depth, quantization)


# --- damage -------------------------------------------------------------------------------------


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Data cut off, lengthened, or with bytes changed."""
    kind, changed = int(rng.integers(5)), bytearray(data)
    if kind == 0:
        return data[: int(rng.integers(len(data)))]
    if kind == 1:
        return data + rng.bytes(int(rng.integers(1, 30)))
    if kind == 2:  # a piece of it, somewhere else
        begin, end = sorted(int(v) for v in rng.integers(len(data), size=2))
        at = int(rng.integers(len(data)))
        return data[:at] + data[begin:end] + data[at + end - begin :]
    # Half of the changes at the start, where the sizes are.
    length = len(changed) if kind == 3 else min(len(changed), 48)
    for at in rng.integers(length, size=int(rng.integers(1, 5))):
        changed[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ (1 << int(rng.integers(8)))]))
    return bytes(changed)


FUZZED = ["row", "random_holes", "smooth_holes", "alternating", "all_empty", "long_runs"]


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
@pytest.mark.parametrize("kind", ["png", "png_with_checksums", "rvl"])
def test_damage_is_refused_or_keeps_the_announced_shape(kind, encoding):
    codec = kind[:3]
    rng = np.random.default_rng([len(kind), len(encoding)])
    whole = [DATA[codec](IMAGES[name], A, B) for name in FUZZED]
    outcomes = {"refused": 0, "decoded": 0}
    for i in range(1500):
        data = damaged(whole[i % len(whole)], rng)
        if kind == "png_with_checksums":  # else nothing would get as far as the pixels
            data = with_checksums(data)
        try:
            depth, decoded_encoding = decode_compressed_depth(data, f"{encoding}; compressedDepth {codec}")
        except CompressedDepthError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
            continue
        outcomes["decoded"] += 1
        width, height = struct.unpack_from("<II", data, 12) if codec == "rvl" else struct.unpack_from(">II", data, 28)
        assert depth.shape == (height, width)
        assert decoded_encoding == encoding and depth.dtype == compressed.ENCODINGS[encoding]
        if encoding == "32FC1":
            assert np.isfinite(depth).all() and (depth >= 0).all()
    assert min(outcomes.values()) > 50, outcomes


def test_random_words_are_refused_or_decoded():
    rng = np.random.default_rng(11)
    decoded = 0
    for _ in range(1000):
        width, height = (int(v) for v in rng.integers(1, 6, 2))
        # Small nibbles, so that some of it makes sense.
        words = [int("".join(f"{n:x}" for n in rng.integers(0, 4, 8)), 16) for _ in range(int(rng.integers(1, 5)))]
        data = rvl_of(width, height, *words)
        try:
            depth, _ = decode_compressed_depth(data, "16UC1; compressedDepth rvl")
        except CompressedDepthError:
            continue
        decoded += 1
        assert depth.ravel().tolist() == [v % 65536 for v in rvl_pixels(data[20:], width * height)]
    assert decoded > 5
