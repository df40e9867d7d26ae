#include <algorithm>
#include <array>
#include <bit>
#include <new>
#include <vector>

#include "model/image_codecs.h"

namespace bise {

namespace {

// File header (14): "BM", size (4), reserved (4), offset of the pixels (4). Then the information
// header, whose first four bytes are its length: 12 (OS/2: 16-bit sizes, palette of BGR) or 40 and
// more (palette of BGRX; 52 and more carry colour masks, 56 and more an alpha mask).
constexpr size_t kFileHeader = 14;
enum Compression : uint32_t { kRaw = 0, kRle8 = 1, kRle4 = 2, kBitfields = 3 };

struct BmpHeader {
  ImageSize size;
  bool top_down = false;
  int32_t bits = 0;
  uint32_t compression = kRaw;
  uint32_t num_colours = 0;
  size_t palette_at = 0, palette_entry = 4;
  size_t pixels_at = 0;
  std::array<uint32_t, 4> masks{};  // red, green, blue, alpha
};

Error unsupported(const std::string& what) {
  return Error(ErrorCode::unsupported, what + "; save the picture as PNG");
}

Result<BmpHeader> read_header(Bytes bytes) {
  ByteReader reader(bytes);
  TRY(reader.take(10));
  BmpHeader header;
  header.pixels_at = TRY(reader.read<uint32_t>());
  const uint32_t length = TRY(reader.read<uint32_t>());
  static constexpr uint32_t kLengths[] = {12, 40, 52, 56, 64, 108, 124};
  if (std::find(std::begin(kLengths), std::end(kLengths), length) == std::end(kLengths)) {
    return unsupported("an information header of " + std::to_string(length) + " bytes");
  }
  const Bytes info = TRY(reader.take(length - 4));
  const std::byte* p = info.data();
  if (length == 12) {
    header.size = {load_le<uint16_t>(p), load_le<uint16_t>(p + 2)};
    header.bits = load_le<uint16_t>(p + 6);
    header.palette_entry = 3;
  } else {
    // A negative height means that the first row is the top one.
    const auto height = load_le<int32_t>(p + 4);
    header.top_down = height < 0;
    if (height == INT32_MIN) return Error(ErrorCode::corrupt, "a height of -2^31");
    header.size = {load_le<int32_t>(p), header.top_down ? -height : height};
    header.bits = load_le<uint16_t>(p + 10);
    header.compression = load_le<uint32_t>(p + 12);
    header.num_colours = load_le<uint32_t>(p + 28);
    if (header.compression == kBitfields) {
      const Bytes masks = length >= 52 ? info.subspan(36) : TRY(reader.take(12));
      const size_t num_masks = length >= 56 ? 4 : 3;
      for (size_t i = 0; i < num_masks; ++i) {
        header.masks[i] = load_le<uint32_t>(masks.data() + 4 * i);
      }
    }
  }
  header.palette_at = reader.offset();
  static constexpr int32_t kDepths[] = {1, 4, 8, 16, 24, 32};
  if (std::find(std::begin(kDepths), std::end(kDepths), header.bits) == std::end(kDepths)) {
    return unsupported(std::to_string(header.bits) + " bits per pixel");
  }
  const bool rle = (header.compression == kRle8 && header.bits == 8) ||
                   (header.compression == kRle4 && header.bits == 4);
  const bool fields = header.compression == kBitfields && header.bits >= 16;
  if (header.compression != kRaw && !rle && !fields) {
    return unsupported("compression " + std::to_string(header.compression) + " with " +
                       std::to_string(header.bits) + " bits per pixel");
  }
  if (header.num_colours == 0) header.num_colours = header.bits <= 8 ? 1u << header.bits : 0;
  if (header.bits <= 8) {
    if (header.num_colours > 65536) {
      return Error(ErrorCode::corrupt, "a palette of " + std::to_string(header.num_colours) +
                                           " colours, at most 65536 are possible");
    }
    // Some writers leave the palette out of the offset.
    const size_t palette_bytes = header.palette_entry * header.num_colours;
    if (header.pixels_at == kFileHeader + length) header.pixels_at += palette_bytes;
  }
  if (header.pixels_at == 0) header.pixels_at = header.palette_at;
  return header;
}

Result<std::array<Rgba, 256>> read_palette(Bytes bytes, const BmpHeader& header) {
  std::array<Rgba, 256> palette{};
  const size_t count = std::min<size_t>(header.num_colours, 256);
  ByteReader reader(bytes.subspan(header.palette_at));
  const Bytes raw = TRY(reader.take(count * header.palette_entry).with_context("palette"));
  for (size_t i = 0; i < count; ++i) {
    const auto* p = reinterpret_cast<const uint8_t*>(raw.data()) + i * header.palette_entry;
    palette[i] = {p[2], p[1], p[0], 255};
  }
  return palette;
}

// Where one channel sits in a pixel; a channel without mask is 255 if it is alpha, else 0.
struct Channel {
  int shift = 0;
  uint32_t max = 0;

  uint8_t of(uint32_t pixel) const {
    return static_cast<uint8_t>((pixel >> shift & max) * 255 / max);
  }
};

Result<std::array<Channel, 4>> channels_of(const BmpHeader& header) {
  std::array<uint32_t, 4> masks = header.masks;
  if (header.compression == kRaw) {
    masks = header.bits == 16 ? std::array<uint32_t, 4>{0x7c00, 0x3e0, 0x1f, 0}
                              : std::array<uint32_t, 4>{0xff0000, 0xff00, 0xff, 0};
  } else if (header.bits == 32 && masks == std::array<uint32_t, 4>{}) {
    masks = {0xff0000, 0xff00, 0xff, 0xff000000};
  }
  std::array<Channel, 4> channels;
  for (size_t i = 0; i < 4; ++i) {
    if (masks[i] == 0) {
      if (i == 3) continue;
      return Error(ErrorCode::corrupt, "a colour mask is zero");
    }
    channels[i].shift = std::countr_zero(masks[i]);
    channels[i].max = masks[i] >> channels[i].shift;
    if (std::popcount(channels[i].max) > 8 || (channels[i].max & (channels[i].max + 1)) != 0) {
      return unsupported("a colour mask with more than 8 bits or with gaps");
    }
  }
  return channels;
}

// Palette indices of an RLE file, bottom row first, as [height, width]. Commands: count, value; or
// 0 and 0 (end of row), 1 (end), 2 dx dy (move), n (n pixels as they are, padded to two bytes).
Result<std::vector<uint8_t>> read_rle(Bytes bytes, const BmpHeader& header) {
  const auto width = static_cast<size_t>(header.size.width);
  const size_t total = width * static_cast<size_t>(header.size.height);
  std::vector<uint8_t> out;
  try {
    out.resize(total);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, "no memory for a picture of this size");
  }
  const bool rle4 = header.compression == kRle4;
  ByteReader reader(bytes.subspan(header.pixels_at));
  size_t at = 0, x = 0;
  while (at < total) {
    const auto count = TRY(reader.read<uint8_t>());
    const auto value = TRY(reader.read<uint8_t>());
    if (count > 0) {  // a run stops at the end of its row
      const size_t run = std::min<size_t>({count, width - std::min(x, width), total - at});
      for (size_t i = 0; i < run; ++i) {
        out[at + i] = !rle4 ? value : i % 2 == 0 ? value >> 4 : value & 15;
      }
      at += run;
      x += run;
    } else if (value == 0) {
      at = (at + width - 1) / width * width;
      x = 0;
    } else if (value == 1) {
      break;
    } else if (value == 2) {
      const auto right = TRY(reader.read<uint8_t>());
      const auto up = TRY(reader.read<uint8_t>());
      at = std::min(total, at + right + up * width);
      x = at % width;
    } else {
      const size_t run = std::min<size_t>(value, total - at);
      const Bytes raw = TRY(reader.take(rle4 ? (run + 1) / 2 : run));
      for (size_t i = 0; i < run; ++i) {
        const auto byte = static_cast<uint8_t>(raw[rle4 ? i / 2 : i]);
        out[at + i] = !rle4 ? byte : i % 2 == 0 ? byte >> 4 : byte & 15;
      }
      at += run;
      x += value;
      if (at < total && (header.pixels_at + reader.offset()) % 2 != 0) TRY(reader.take(1));
    }
  }
  return out;
}

int32_t stored_row(const BmpHeader& header, int32_t y) {
  return header.top_down ? y : header.size.height - 1 - y;
}

}  // namespace

Result<ImageSize> bmp_size(Bytes bytes) { return TRY(read_header(bytes)).size; }

Result<RgbImage> decode_bmp(Bytes bytes, ImageSize size) {
  const BmpHeader header = TRY(read_header(bytes));
  if (header.pixels_at > bytes.size()) {
    return Error(ErrorCode::corrupt, "the pixels begin at byte " +
                                         std::to_string(header.pixels_at) + ", but the file has " +
                                         std::to_string(bytes.size()));
  }
  std::array<Rgba, 256> palette{};
  std::array<Channel, 4> channels{};
  if (header.bits <= 8) {
    palette = TRY(read_palette(bytes, header));
  } else {
    channels = TRY(channels_of(header));
  }
  std::vector<uint8_t> indices;
  const size_t stride =
      (static_cast<size_t>(size.width) * static_cast<size_t>(header.bits) + 31) / 32 * 4;
  Bytes raw;
  if (header.compression == kRle8 || header.compression == kRle4) {
    indices = TRY(read_rle(bytes, header));
  } else {
    ByteReader reader(bytes.subspan(header.pixels_at));
    raw = TRY(reader.take(stride * static_cast<size_t>(size.height)).with_context("pixels"));
  }

  RgbImage image = TRY(make_image(size));
  for (int32_t y = 0; y < size.height; ++y) {
    uint8_t* to = row_of(image, y);
    const auto row = static_cast<size_t>(stored_row(header, y));
    const uint8_t* index =
        indices.empty() ? nullptr : indices.data() + row * static_cast<size_t>(size.width);
    const auto* from =
        index ? nullptr : reinterpret_cast<const uint8_t*>(raw.data()) + row * stride;
    for (size_t x = 0; x < static_cast<size_t>(size.width); ++x, to += 3) {
      if (index) {
        put_over_white(to, palette[index[x]]);
      } else if (header.bits <= 8) {
        const size_t bit = x * static_cast<size_t>(header.bits);
        const auto mask = static_cast<uint8_t>((1 << header.bits) - 1);
        put_over_white(to, palette[from[bit / 8] >> (8 - header.bits - bit % 8) & mask]);
      } else {
        uint32_t pixel = 0;
        std::memcpy(&pixel, from + x * static_cast<size_t>(header.bits / 8),
                    static_cast<size_t>(header.bits / 8));
        const uint8_t alpha = channels[3].max ? channels[3].of(pixel) : 255;
        put_over_white(
            to, {channels[0].of(pixel), channels[1].of(pixel), channels[2].of(pixel), alpha});
      }
    }
  }
  return image;
}

}  // namespace bise
