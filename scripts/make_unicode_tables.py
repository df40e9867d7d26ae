#!/usr/bin/env python3
"""Writes src/text/unicode_tables.cpp: the character classes of the pre-tokenizers, from Unicode 16.0.

    pip install unicodedata2==16.0.0
    python3 scripts/make_unicode_tables.py

The version matters: tiktoken's regular expressions, which define Tekken, know Unicode 16.0. The table has
two stages: for each block of 128 code points the number of a row, and the distinct rows.
"""

import pathlib
import sys

import unicodedata2

BLOCK = 128
CLASSES = {"Lu": 1, "Lt": 1, "Ll": 2, "Lm": 3, "Lo": 3, "Mn": 4, "Mc": 4, "Me": 4, "Nd": 5, "Nl": 5, "No": 5}
NEWLINE, SPACE = 6, 7
# The property White_Space, without CR and LF.
WHITE_SPACE = {0x09, 0x0B, 0x0C, 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000}

HEADER = """\
// Made by scripts/make_unicode_tables.py from Unicode {version}; do not edit.
#include "text/unicode_tables.h"

namespace bise::unicode {{
"""


def class_of(code_point):
    if code_point in (0x0A, 0x0D):
        return NEWLINE
    if code_point in WHITE_SPACE:
        return SPACE
    return CLASSES.get(unicodedata2.category(chr(code_point)), 0)


def array(declaration, values, width):
    lines = [f"\n{declaration} = {{"]
    for at in range(0, len(values), width):
        lines.append("    " + ",".join(str(v) for v in values[at:at + width]) + ",")
    return "\n".join(lines) + "\n};\n"


def main():
    if unicodedata2.unidata_version != "16.0.0":
        sys.exit(f"unicodedata2 has Unicode {unicodedata2.unidata_version}; 16.0.0 is needed: "
                 "pip install unicodedata2==16.0.0")
    rows, row_numbers, row_of_block = [], {}, []
    for first in range(0, 0x110000, BLOCK):
        row = tuple(class_of(c) for c in range(first, first + BLOCK))
        if row not in row_numbers:
            row_numbers[row] = len(rows)
            rows.append(row)
        row_of_block.append(row_numbers[row])
    assert len(rows) <= 256, len(rows)
    text = HEADER.format(version=unicodedata2.unidata_version)
    text += "\n// clang-format off"
    text += array(f"const uint8_t kRowOfBlock[{len(row_of_block)}]", row_of_block, 24)
    text += array(f"const uint8_t kRows[{len(rows) * BLOCK}]", [c for row in rows for c in row], 32)
    text += "// clang-format on\n\n}  // namespace bise::unicode\n"
    path = pathlib.Path(__file__).resolve().parent.parent / "src/text/unicode_tables.cpp"
    path.write_text(text)
    print(f"{path.name}: {len(rows)} rows of {BLOCK}, {len(row_of_block)} blocks", file=sys.stderr)


if __name__ == "__main__":
    main()
