#include "model/exif.h"

namespace bise {

namespace {

constexpr uint16_t kOrientationTag = 0x0112;
constexpr uint16_t kShortType = 3;
constexpr std::string_view kExifPrefix{"Exif\0\0", 6};

// Big- and little-endian reads that give nothing past the end; a damaged Exif block is no error of
// the picture.
struct TiffBytes {
  std::string_view text;
  bool big_endian = false;

  uint32_t number(size_t offset, size_t count) const {
    uint32_t value = 0;
    for (size_t i = 0; i < count; ++i) {
      const size_t at = offset + (big_endian ? i : count - 1 - i);
      if (at >= text.size()) return 0;
      value = value << 8 | static_cast<uint8_t>(text[at]);
    }
    return value;
  }
};

int orientation_of_tiff(std::string_view text) {
  if (text.starts_with(kExifPrefix)) text.remove_prefix(kExifPrefix.size());
  TiffBytes tiff{text};
  if (text.starts_with("MM")) {
    tiff.big_endian = true;
  } else if (!text.starts_with("II")) {
    return 1;
  }
  const size_t directory = tiff.number(4, 4);
  if (directory >= text.size()) return 1;
  const uint32_t num_entries = tiff.number(directory, 2);
  for (uint32_t i = 0; i < num_entries; ++i) {
    const size_t entry = directory + 2 + size_t{12} * i;
    if (entry + 12 > text.size()) return 1;
    if (tiff.number(entry, 2) != kOrientationTag) continue;
    if (tiff.number(entry + 2, 2) != kShortType) return 1;
    const uint32_t value = tiff.number(entry + 8, 2);
    return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
  }
  return 1;
}

uint32_t big_endian(std::string_view text, size_t offset, size_t count) {
  return TiffBytes{text, true}.number(offset, count);
}

// Segments before the first scan: FF, marker, length (with itself), payload.
std::string_view exif_of_jpeg(std::string_view text) {
  size_t at = 2;
  while (at + 4 <= text.size() && text[at] == '\xff') {
    const auto marker = static_cast<uint8_t>(text[at + 1]);
    if (marker == 0xff) {
      ++at;
      continue;
    }
    if (marker == 0xda || marker == 0xd9) return {};
    const size_t length = big_endian(text, at + 2, 2);
    if (length < 2) return {};
    const std::string_view payload = text.substr(at + 4, length - 2);
    if (marker == 0xe1 && payload.starts_with(kExifPrefix)) return payload;
    at += 2 + length;
  }
  return {};
}

// Chunks: length, name, data, checksum.
std::string_view exif_of_png(std::string_view text) {
  size_t at = 8;
  while (at + 12 <= text.size()) {
    const size_t length = big_endian(text, at, 4);
    if (text.substr(at + 4, 4) == "eXIf") return text.substr(at + 8, length);
    at += 12 + length;
  }
  return {};
}

// RIFF chunks: name, little-endian length, data, padded to even.
std::string_view exif_of_webp(std::string_view text) {
  const TiffBytes riff{text};
  size_t at = 12;
  while (at + 8 <= text.size()) {
    const size_t length = riff.number(at + 4, 4);
    if (text.substr(at, 4) == "EXIF") return text.substr(at + 8, length);
    at += 8 + length + (length & 1);
  }
  return {};
}

}  // namespace

int exif_orientation(Bytes bytes, ImageFormat format) {
  const std::string_view text = as_text(bytes);
  switch (format) {
    case ImageFormat::jpeg: return orientation_of_tiff(exif_of_jpeg(text));
    case ImageFormat::png: return orientation_of_tiff(exif_of_png(text));
    case ImageFormat::webp: return orientation_of_tiff(exif_of_webp(text));
    case ImageFormat::gif:
    case ImageFormat::bmp: return 1;
  }
  return 1;
}

}  // namespace bise
