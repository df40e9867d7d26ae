"""A canvas with flat shapes and the digits of a bitmap font, written as PNG. Only the standard library, so that a picture is
the same bytes everywhere."""
import base64
import struct
import zlib

RGB = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 70, 220), "yellow": (240, 210, 30), "black": (10, 10, 10),
       "orange": (245, 130, 20), "purple": (140, 40, 170), "white": (255, 255, 255), "gray": (225, 225, 225)}
SHAPES = ("circle", "square", "triangle", "cross")
DIGITS = ["01110 10001 10011 10101 11001 10001 01110", "00100 01100 00100 00100 00100 00100 01110",
          "01110 10001 00001 00110 01000 10000 11111", "11110 00001 00001 01110 00001 00001 11110",
          "00010 00110 01010 10010 11111 00010 00010", "11111 10000 11110 00001 00001 10001 01110",
          "00110 01000 10000 11110 10001 10001 01110", "11111 00001 00010 00100 01000 01000 01000",
          "01110 10001 10001 01110 10001 10001 01110", "01110 10001 10001 01111 00001 00010 01100"]


class Canvas:
    def __init__(self, width, height, background="white"):
        self.width, self.height, self.marks = width, height, []
        self.rows = [bytearray(bytes(RGB[background]) * width) for _ in range(height)]

    def span(self, y, left, right, colour):
        """Pixels left <= x < right of row y, cut to the canvas."""
        left, right = max(0, round(left)), min(self.width, round(right))
        if 0 <= y < self.height and left < right:
            self.rows[y][3 * left:3 * right] = bytes(RGB[colour]) * (right - left)

    def shape(self, name, colour, x, y, radius):
        """Centred at (x, y); it fits a square of 2 * radius."""
        for row in range(-radius, radius + 1):
            if name == "circle":
                half = (radius * radius + radius - row * row) ** 0.5 if radius * radius + radius >= row * row else 0
            elif name == "square":
                half = radius * 0.88 if abs(row) <= radius * 0.88 else 0
            elif name == "triangle":
                half = (row + radius) / 2
            else:   # cross
                half = radius if abs(row) <= radius / 3 else radius / 3
            if half:
                self.span(y + row, x - half, x + half, colour)

    def digit(self, value, colour, left, top, scale):
        """5 x 7 cells of scale x scale pixels."""
        for r, bits in enumerate(DIGITS[value].split()):
            for c, bit in enumerate(bits):
                if bit == "1":
                    for y in range(scale):
                        self.span(top + r * scale + y, left + c * scale, left + (c + 1) * scale, colour)

    def png(self):
        def chunk(kind, body):
            return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        raw = b"".join(b"\0" + bytes(row) for row in self.rows)
        return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0))
                + chunk(b"IDAT", zlib.compress(raw, 1)) + chunk(b"IEND", b""))

    def url(self):
        return "data:image/png;base64," + base64.b64encode(self.png()).decode()
