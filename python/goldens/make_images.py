"""Small pictures of every kind and what the reference tools make of them.

    python make_images.py            writes ../../tests/golden/own/images/ and images.json

Versions: transformers 5.23.0, torch 2.15.0, torchvision 0.29.2, Pillow 13.0.0, mistral-common 1.13.1,
opencv-python-headless 5.0.0.93, numpy 2.3.5.

Per picture: the stored size, sha256 of the decoded RGB bytes, then for both processings the size after
resizing, the sha256 of the float32 pixels [3, h, w] (and of the resized bytes for torch), and some of
the pixels. Where two decoders may differ by a level (JPEG, lossy WebP) the decoded picture
lies beside it as PNG (`decoded`). `torch` opens the file as transformers does: EXIF orientation applied, transparency
on white. Damaged and hostile files are made by the tests themselves.
"""

import hashlib
import io
import json
import os
import struct
import zlib

import numpy as np
import torch
from mistral_common.tokens.tokenizers.image import ImageConfig, ImageEncoder, SpecialImageIDs, _convert_to_rgb, transform_image
from PIL import Image, ImageOps
from torchvision.transforms.v2 import functional as tvF
from transformers.image_transforms import convert_to_rgb
from transformers.models.pixtral.image_processing_pixtral import PixtralImageProcessor

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "../../tests/golden/own")
LONGEST, UNIT = 1540, 28


def texture(width, height, channels, seed):
    """Smooth waves with some noise: compresses, yet every resampling error shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for c in range(channels):
        a, b, p = rng.uniform(0.02, 0.5, 3)
        wave = 127 + 110 * np.sin(a * x + p * 9) * np.cos(b * y + c)
        planes.append(wave + rng.integers(-12, 13, (height, width)))
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def flat(width, height, channels, seed):
    """Blocks of plain colour, for pictures that are large but must stay small as files."""
    rng = np.random.default_rng(seed)
    step = 97
    blocks = rng.integers(0, 256, ((height + step - 1) // step, (width + step - 1) // step, channels))
    return np.repeat(np.repeat(blocks, step, 0), step, 1)[:height, :width].astype(np.uint8)


# ---- writers for what Pillow does not write ----

def png(rows, width, height, depth, color_type, chunks=(), interlace=False, bits_per_pixel=None):
    """rows: a function (x, y) -> tuple of samples."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    def scanline(xs, y):
        bits, n = 0, 0
        for x in xs:
            for v in rows(x, y):
                bits, n = bits << depth | v, n + depth
        pad = -n % 8
        return b"\0" + (bits << pad).to_bytes((n + pad) // 8, "big")

    if interlace:
        data = b""
        for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
            xs = range(x0, width, dx)
            if len(xs):
                data += b"".join(scanline(xs, y) for y in range(y0, height, dy))
    else:
        data = b"".join(scanline(range(width), y) for y in range(height))
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlace))
    for name, value in chunks:
        out += chunk(name, value)
    return out + chunk(b"IDAT", zlib.compress(data, 9)) + chunk(b"IEND", b"")


def png_kinds():
    def grey(depth):
        top = (1 << depth) - 1
        return lambda x, y: ((x * 7 + y * 3) * (1 if depth < 16 else 97) & top,)

    def many(n, depth):
        top = (1 << depth) - 1
        k = 1 if depth == 8 else 251
        return lambda x, y: tuple((x * (5 + c) + y * (11 - c) + c * 40) * k & top for c in range(n))

    palette = bytes((i * 37 + c * 91) & 255 for i in range(256) for c in range(3))
    files = {}
    for depth in (1, 2, 4, 8, 16):
        files[f"grey{depth}"] = png(grey(depth), 19, 13, depth, 0)
        key = {1: 1, 2: 2, 4: 5, 8: 100, 16: 100}[depth]
        files[f"grey{depth}-key"] = png(grey(depth), 19, 13, depth, 0, [(b"tRNS", struct.pack(">H", key))])
    files["grey16-key-high"] = png(grey(16), 19, 13, 16, 0, [(b"tRNS", struct.pack(">H", 0xFFFF))])
    files["grey2-key-scaled"] = png(grey(2), 19, 13, 2, 0, [(b"tRNS", struct.pack(">H", 3))])
    for depth in (1, 2, 4, 8):
        colours = palette[: 3 << depth]
        rows = grey(depth)
        files[f"palette{depth}"] = png(rows, 21, 11, depth, 3, [(b"PLTE", colours)])
        files[f"palette{depth}-one-transparent"] = png(rows, 21, 11, depth, 3, [(b"PLTE", colours), (b"tRNS", b"\xff\0")])
        files[f"palette{depth}-alpha"] = png(rows, 21, 11, depth, 3, [(b"PLTE", colours), (b"tRNS", bytes([200, 90][: 1 << depth]))])
    files["palette8-short"] = png(grey(8), 21, 11, 8, 3, [(b"PLTE", palette[:60])])
    for depth in (8, 16):
        files[f"rgb{depth}"] = png(many(3, depth), 23, 17, depth, 2)
        first = many(3, depth)(2, 3)
        files[f"rgb{depth}-key"] = png(many(3, depth), 23, 17, depth, 2, [(b"tRNS", struct.pack(">HHH", *first))])
        files[f"grey-alpha{depth}"] = png(many(2, depth), 23, 17, depth, 4)
        files[f"rgba{depth}"] = png(many(4, depth), 23, 17, depth, 6)
    for name, args in {"grey1": (grey(1), 9, 21, 1, 0), "palette4": (grey(4), 33, 10, 4, 3, [(b"PLTE", palette[:48]), (b"tRNS", b"\xff\x80\0")]),
                       "rgb8": (many(3, 8), 31, 29, 8, 2), "rgba16": (many(4, 16), 6, 5, 16, 6), "grey16": (grey(16), 14, 9, 16, 0)}.items():
        files[f"{name}-interlaced"] = png(*args, interlace=True)
    # every value with every alpha
    files["blend"] = png(lambda x, y: (x, y), 256, 256, 8, 4)
    return {f"png-{k}.png": v for k, v in files.items()}


def exif_tiff(orientation, big_endian=True):
    e = ">" if big_endian else "<"
    return (b"MM" if big_endian else b"II") + struct.pack(e + "HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def save(image, **kwargs):
    out = io.BytesIO()
    image.save(out, **kwargs)
    return out.getvalue()


def bmp(info, palette, pixels, offset=None):
    size = 14 + len(info) + len(palette)
    return b"BM" + struct.pack("<IHHI", size + len(pixels), 0, 0, size if offset is None else offset) + info + palette + pixels


def bmp_kinds():
    w, h = 13, 7
    rgb = texture(w, h, 4, 31)

    def info(bits, compression=0, colours=0, height=h, length=40, masks=()):
        head = struct.pack("<IiiHHIIiiII", length, w, height, 1, bits, compression, 0, 2835, 2835, colours, 0)
        for m in masks:
            head += struct.pack("<I", m)
        return head + b"\0" * (length - len(head))

    def rows(row_of, bottom_up=True):
        lines = [row_of(y) for y in range(h)]
        lines = [line + b"\0" * (-len(line) % 4) for line in lines]
        return b"".join(reversed(lines) if bottom_up else lines)

    def packed(bits, bottom_up=True):
        def row(y):
            value = 0
            for x in range(w):
                value = value << bits | (x * 3 + y * 5) & ((1 << bits) - 1)
            n = w * bits
            return (value << (-n % 8)).to_bytes((n + 7) // 8, "big")
        return rows(row, bottom_up)

    def words(value_of, size):
        return rows(lambda y: b"".join(int(value_of(*map(int, rgb[y, x]))).to_bytes(size, "little") for x in range(w)))

    colours = lambda n, entry: b"".join(bytes([(i * 53 + c * 70) & 255 for c in range(3)]) + b"\0" * (entry - 3) for i in range(n))
    files = {f"{bits}bit": bmp(info(bits), colours(1 << bits, 4), packed(bits)) for bits in (1, 4, 8)}
    files["1bit-black-white"] = bmp(info(1), b"\0\0\0\0\xff\xff\xff\0", packed(1))
    files["8bit-grey"] = bmp(info(8), bytes(v for i in range(256) for v in (i, i, i, 0)), packed(8))
    files["8bit-few"] = bmp(info(8, colours=20), colours(20, 4), packed(8))
    files["8bit-topdown"] = bmp(info(8, height=-h), colours(256, 4), packed(8, False))
    files["os2"] = bmp(struct.pack("<IHHHH", 12, w, h, 1, 4), colours(16, 3), packed(4))
    files["16bit"] = bmp(info(16), b"", words(lambda r, g, b, a: r >> 3 << 10 | g >> 3 << 5 | b >> 3, 2))
    files["16bit-565"] = bmp(info(16, 3) + struct.pack("<III", 0xF800, 0x7E0, 0x1F), b"", words(lambda r, g, b, a: r >> 3 << 11 | g >> 2 << 5 | b >> 3, 2))
    files["24bit"] = bmp(info(24), b"", words(lambda r, g, b, a: r << 16 | g << 8 | b, 3))
    files["24bit-topdown"] = bmp(info(24, height=-h), b"", words(lambda r, g, b, a: r << 16 | g << 8 | b, 3))
    files["32bit"] = bmp(info(32), b"", words(lambda r, g, b, a: a << 24 | r << 16 | g << 8 | b, 4))
    files["32bit-alpha"] = bmp(info(32, 3, length=108, masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000)), b"", words(lambda r, g, b, a: a << 24 | r << 16 | g << 8 | b, 4))
    files["32bit-xbgr"] = bmp(info(32, 3, length=56, masks=(0xFF000000, 0xFF0000, 0xFF00, 0)), b"", words(lambda r, g, b, a: r << 24 | g << 16 | b << 8, 4))
    rle = b""
    for y in range(h):
        rle += bytes([5, 10 + y, 0, 4, 1, 2, 3, y, 4, 200])
        rle += bytes([0, 0])
    files["rle8"] = bmp(info(8, 1), colours(256, 4), rle + b"\0\1")
    rle = b"".join(bytes([6, 0x12 + y, 0, 5, 0x34, 0x56, 0x70, 0, 2, 0x9A, 0, 0]) for y in range(h))
    files["rle4"] = bmp(info(4, 2), colours(16, 4), rle + b"\0\1")
    move = bytes([5, 9, 0, 2, 3, 2, 5, 77, 0, 0]) + b"".join(bytes([13, 30 + y, 0, 0]) for y in range(4))
    files["rle8-move"] = bmp(info(8, 1), colours(256, 4), move + b"\0\1")
    return {f"bmp-{k}.bmp": v for k, v in files.items()}


def gif_kinds():
    def gif(screen, frames, table, control=b"", background=0):
        bits = max((len(table) // 3 - 1).bit_length(), 1) if table else 0
        out = b"GIF89a" + struct.pack("<HHBBB", *screen, (0x80 | bits - 1) if table else 0, background, 0) + table + control
        for x, y, w, h, interlace, local, indices in frames:
            local_bits = max((len(local) // 3 - 1).bit_length(), 1) if local else 0
            out += b"," + struct.pack("<HHHHB", x, y, w, h, (0x40 if interlace else 0) | ((0x80 | local_bits - 1) if local else 0)) + local
            out += b"\x08" + lzw_plain(indices)
        return out + b";"

    def lzw_plain(indices):
        """9-bit codes with a clear code often enough that the width never grows."""
        bits, n = 0, 0
        def put(code):
            nonlocal bits, n
            bits, n = bits | code << n, n + 9
        for i, v in enumerate(indices):
            if i % 200 == 0:
                put(256)
            put(v)
        put(257)
        data = bits.to_bytes((n + 7) // 8, "little")
        return b"".join(bytes([len(data[i:i + 255])]) + data[i:i + 255] for i in range(0, len(data), 255)) + b"\0"

    colours = bytes((i * 29 + c * 80) & 255 for i in range(32) for c in range(3))
    w, h = 15, 11
    indices = [(x * 2 + y * 3) % 32 for y in range(h) for x in range(w)]
    order = [y for first, step in ((0, 8), (4, 8), (2, 4), (1, 2)) for y in range(first, h, step)]
    interlaced = [v for y in order for v in indices[y * w:(y + 1) * w]]
    see_through = lambda index: b"!\xf9\x04" + bytes([1, 0, 0, index]) + b"\0"
    files = {
        "plain": gif((w, h), [(0, 0, w, h, False, b"", indices)], colours),
        "interlaced": gif((w, h), [(0, 0, w, h, True, b"", interlaced)], colours),
        "transparent": gif((w, h), [(0, 0, w, h, False, b"", indices)], colours, see_through(7)),
        "offset": gif((30, 20), [(6, 4, w, h, False, b"", indices)], colours, background=3),
        "offset-transparent": gif((30, 20), [(6, 4, w, h, False, b"", indices)], colours, see_through(5), background=3),
        "outside": gif((10, 8), [(3, 2, w, h, False, b"", indices)], colours),
        "local-table": gif((w, h), [(0, 0, w, h, False, colours[::-1], indices)], colours),
        "no-table": gif((w, h), [(0, 0, w, h, False, b"", indices)], b""),
        "short-table": gif((w, h), [(0, 0, w, h, False, b"", indices)], colours[:24]),
        "comment": gif((w, h), [(0, 0, w, h, False, b"", indices)], colours, b"!\xfe\x05hello\x03you\0"),
        "animated": gif((w, h), [(0, 0, w, h, False, b"", indices), (2, 2, 4, 4, False, b"", [9] * 16)], colours),
    }
    return {f"gif-{k}.gif": v for k, v in files.items()}


def pictures():
    files = {}
    files.update(png_kinds())
    files.update(bmp_kinds())
    files.update(gif_kinds())

    # sizes: PNG, so that every byte counts
    for w, h in [(1, 1), (1, 28), (28, 1), (28, 28), (29, 28), (27, 29), (56, 84), (113, 57), (200, 131), (83, 240)]:
        files[f"size-{w}x{h}.png"] = save(Image.fromarray(texture(w, h, 3, w * 1000 + h)), format="PNG", optimize=True)
    for w, h in [(1, 4000), (1540, 40), (1541, 33), (2000, 3), (3001, 260), (301, 1700), (2740, 4563)]:
        files[f"size-{w}x{h}.png"] = save(Image.fromarray(flat(w, h, 3, w + h)), format="PNG", optimize=True)

    photo = Image.fromarray(texture(60, 45, 3, 5))
    jpeg = dict(format="JPEG", quality=85)
    files["jpeg-444.jpg"] = save(photo, **jpeg, subsampling=0)
    files["jpeg-422.jpg"] = save(photo, **jpeg, subsampling=1)
    files["jpeg-420.jpg"] = save(photo, **jpeg, subsampling=2)
    files["jpeg-low.jpg"] = save(photo, format="JPEG", quality=12)
    files["jpeg-progressive.jpg"] = save(photo, **jpeg, progressive=True)
    files["jpeg-restart.jpg"] = save(photo, **jpeg, restart_marker_blocks=3)
    files["jpeg-rgb.jpg"] = save(photo, **jpeg, keep_rgb=True)
    files["jpeg-grey.jpg"] = save(photo.convert("L"), **jpeg)
    files["jpeg-grey-progressive.jpg"] = save(photo.convert("L"), **jpeg, progressive=True)
    cmyk = Image.fromarray(texture(40, 30, 4, 6), "CMYK")
    files["jpeg-cmyk.jpg"] = save(cmyk, **jpeg)
    # YCCK: the same four planes, declared by the transform byte of Adobe's segment
    at = files["jpeg-cmyk.jpg"].index(b"Adobe") + 11
    files["jpeg-ycck.jpg"] = files["jpeg-cmyk.jpg"][:at] + b"\2" + files["jpeg-cmyk.jpg"][at + 1:]
    files["jpeg-large.jpg"] = save(Image.fromarray(flat(1800, 900, 3, 8)), format="JPEG", quality=70)
    small = Image.fromarray(texture(33, 20, 3, 9))
    for orientation in range(1, 9):
        files[f"exif-{orientation}.jpg"] = save(small, **jpeg, exif=b"Exif\0\0" + exif_tiff(orientation, orientation % 2 == 0))
    files["exif-6.png"] = save(small, format="PNG", exif=b"Exif\0\0" + exif_tiff(6))
    files["exif-8.webp"] = save(small, format="WEBP", lossless=True, exif=exif_tiff(8))
    files["exif-3-alpha.webp"] = save(Image.fromarray(texture(33, 20, 4, 9), "RGBA"), format="WEBP", lossless=True, exact=True, exif=exif_tiff(3, False))

    rgba = Image.fromarray(texture(50, 37, 4, 10), "RGBA")
    files["webp-lossless.webp"] = save(photo, format="WEBP", lossless=True)
    files["webp-lossless-alpha.webp"] = save(rgba, format="WEBP", lossless=True)
    files["webp-lossy.webp"] = save(photo, format="WEBP", quality=80)
    files["webp-lossy-alpha.webp"] = save(rgba, format="WEBP", quality=80)
    second = Image.fromarray(texture(50, 37, 4, 11), "RGBA")
    files["webp-animated.webp"] = save(rgba, format="WEBP", lossless=True, save_all=True, append_images=[second], duration=50)
    hole = np.zeros((40, 60, 4), np.uint8)
    hole[11:30, 21:50] = texture(29, 19, 4, 12)
    files["webp-animated-offset.webp"] = save(Image.fromarray(hole, "RGBA"), format="WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(hole[::-1], "RGBA")], duration=50)
    return files


# ---- what the references make of them ----

def digest(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def samples(array):
    flat_array = array.reshape(-1)
    at = np.linspace(0, len(flat_array) - 1, 12).astype(int)
    return [[int(i), float(flat_array[i])] for i in at]


def reference(data):
    processor = PixtralImageProcessor(size={"longest_edge": LONGEST}, patch_size=UNIT)
    opened = lambda: Image.open(io.BytesIO(data))
    upright = ImageOps.exif_transpose(opened())
    rgb = convert_to_rgb(upright, return_numpy=True)
    out = {"size": list(opened().size), "torch": {"decoded": [rgb.shape[1], rgb.shape[0]], "rgb": digest(rgb)}}
    try:
        got = processor(upright, return_tensors="pt")
        pixels = got["pixel_values"][0].numpy()
        h, w = got["image_sizes"][0].tolist()
        resized = tvF.resize(torch.from_numpy(np.array(rgb)).permute(2, 0, 1), [h, w], interpolation=tvF.InterpolationMode.BICUBIC, antialias=True)
        out["torch"] |= {"target": [w, h], "resized": digest(resized.permute(1, 2, 0).numpy()), "pixels": digest(pixels), "samples": samples(pixels)}
    except Exception as e:  # a very long picture shrinks to nothing there
        out["torch"]["error"] = type(e).__name__

    encoder = ImageEncoder(ImageConfig(14, LONGEST, 2), SpecialImageIDs(10, 12, 13))
    columns, rows = encoder._image_to_num_tokens(opened())
    rgb = np.array(_convert_to_rgb(opened()))
    pixels = transform_image(opened(), (columns * UNIT, rows * UNIT))
    out["mistral_common"] = {"decoded": [rgb.shape[1], rgb.shape[0]], "rgb": digest(rgb), "target": [columns * UNIT, rows * UNIT],
                             "pixels": digest(pixels), "samples": samples(pixels)}
    return out


def main():
    folder = os.path.join(OUT, "images")
    os.makedirs(folder, exist_ok=True)
    for old in os.listdir(folder):
        os.remove(os.path.join(folder, old))
    cases = []
    for name, data in sorted(pictures().items()):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
        try:
            case = {"file": name} | reference(data)
        except Exception as e:
            print(name, "cannot be read by the reference:", type(e).__name__, e)
            os.remove(os.path.join(folder, name))
            continue
        if name.endswith(".jpg") or "lossy" in name:
            case["decoded"] = name + ".decoded.png"
            rgb = _convert_to_rgb(Image.open(io.BytesIO(data)))
            with open(os.path.join(folder, case["decoded"]), "wb") as f:
                f.write(save(rgb, format="PNG", optimize=True))
        cases.append(case)
    with open(os.path.join(OUT, "images.json"), "w") as f:
        f.write(json.dumps({"longest": LONGEST, "unit": UNIT, "cases": cases}, separators=(",", ":")).replace('{"file"', '\n{"file"') + "\n")
    total = sum(os.path.getsize(os.path.join(folder, n)) for n in os.listdir(folder))
    print(len(cases), "pictures,", total, "bytes")


if __name__ == "__main__":
    main()
