#include <png.h>

#include <array>
#include <cstdio>
#include <new>
#include <vector>

#include "model/image_codecs.h"

namespace bise {

namespace {

// What libpng holds and what of the header decides how a row is read. libpng reports errors by
// longjmp, so the functions that call it have only trivial locals; the destructor releases.
struct PngReader {
  png_structp png = nullptr;
  png_infop info = nullptr;
  const std::byte* data = nullptr;
  size_t num_bytes = 0, offset = 0;
  char message[256] = {};

  uint32_t width = 0, height = 0;
  int depth = 0, color_type = 0, interlace = 0;
  std::array<Rgba, 256> palette{};  // entries the file lacks are black, as in Pillow
  bool has_key = false;             // tRNS of a picture without palette
  std::array<uint8_t, 3> key{};

  PngReader() = default;
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;
  ~PngReader() {
    if (png) png_destroy_read_struct(&png, &info, nullptr);
  }
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto* reader = static_cast<PngReader*>(png_get_error_ptr(png));
  std::snprintf(reader->message, sizeof reader->message, "%s (byte %zu of %zu)", message,
                reader->offset, reader->num_bytes);
  png_longjmp(png, 1);
}

void on_warning(png_structp, png_const_charp) {}

void on_read(png_structp png, png_bytep to, size_t count) {
  auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
  if (count > reader->num_bytes - reader->offset) {
    std::snprintf(reader->message, sizeof reader->message,
                  "the file ends at byte %zu before the picture is complete", reader->num_bytes);
    png_longjmp(png, 1);
  }
  std::memcpy(to, reader->data + reader->offset, count);
  reader->offset += count;
}

// The transparent entries and the transparent colour, as Pillow reads them: a colour is compared
// after samples came to 8 bits, by the low byte of the value in the file, and for grey of 2 and 4
// bits without scaling it. (Odd, but it is what the reference does with such files.)
void read_transparency(PngReader& reader) {
  png_bytep alphas = nullptr;
  int num_alphas = 0;
  png_color_16p key = nullptr;
  if (!png_get_tRNS(reader.png, reader.info, &alphas, &num_alphas, &key)) return;
  if (reader.color_type == PNG_COLOR_TYPE_PALETTE) {
    for (int i = 0; i < num_alphas && i < 256; ++i)
      reader.palette[static_cast<size_t>(i)].a = alphas[i];
  } else if (reader.color_type == PNG_COLOR_TYPE_GRAY) {
    reader.has_key = true;
    const int value = reader.depth == 1 ? (key->gray ? 255 : 0) : key->gray;
    reader.key.fill(static_cast<uint8_t>(value));
  } else if (reader.color_type == PNG_COLOR_TYPE_RGB) {
    reader.has_key = true;
    reader.key = {static_cast<uint8_t>(key->red), static_cast<uint8_t>(key->green),
                  static_cast<uint8_t>(key->blue)};
  }
}

// Header and palette; rows will come as one byte per sample (two for grey of 16 bits).
bool start(PngReader& reader, Bytes bytes) {
  reader.data = bytes.data();
  reader.num_bytes = bytes.size();
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader, on_error, on_warning);
  if (reader.png) reader.info = png_create_info_struct(reader.png);
  if (!reader.info) {
    std::snprintf(reader.message, sizeof reader.message, "no memory for the decoder");
    return false;
  }
  if (setjmp(png_jmpbuf(reader.png)) != 0) return false;
  png_set_read_fn(reader.png, &reader, on_read);
  // Texts, profiles and the like are skipped, never inflated.
  png_set_keep_unknown_chunks(reader.png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(reader.png, reader.info);
  png_get_IHDR(reader.png, reader.info, &reader.width, &reader.height, &reader.depth,
               &reader.color_type, &reader.interlace, nullptr, nullptr);
  if (reader.color_type == PNG_COLOR_TYPE_PALETTE) {
    png_colorp colours = nullptr;
    int num_colours = 0;
    png_get_PLTE(reader.png, reader.info, &colours, &num_colours);
    for (int i = 0; i < num_colours && i < 256; ++i) {
      reader.palette[static_cast<size_t>(i)] = {colours[i].red, colours[i].green, colours[i].blue,
                                                255};
    }
  }
  read_transparency(reader);
  if (reader.depth < 8) png_set_packing(reader.png);
  if (reader.depth == 16 && reader.color_type != PNG_COLOR_TYPE_GRAY) png_set_strip_16(reader.png);
  if (reader.interlace != PNG_INTERLACE_NONE) png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  return true;
}

// Grey of any depth to 8 bits. 16 bits are clipped, not scaled: so Pillow turns its mode I;16 to
// RGB.
uint8_t grey_of(const uint8_t* from, int32_t x, int depth) {
  switch (depth) {
    case 1: return from[x] ? 255 : 0;
    case 2: return static_cast<uint8_t>(from[x] * 85);
    case 4: return static_cast<uint8_t>(from[x] * 17);
    case 16: return from[2 * x] ? 255 : from[2 * x + 1];
    default: return from[x];
  }
}

void convert_row(const PngReader& reader, const uint8_t* from, int32_t width, uint8_t* to) {
  for (int32_t x = 0; x < width; ++x, to += 3) {
    switch (reader.color_type) {
      case PNG_COLOR_TYPE_PALETTE: put_over_white(to, reader.palette[from[x]]); break;
      case PNG_COLOR_TYPE_GRAY: to[0] = to[1] = to[2] = grey_of(from, x, reader.depth); break;
      case PNG_COLOR_TYPE_RGB: std::memcpy(to, from + 3 * x, 3); break;
      case PNG_COLOR_TYPE_GRAY_ALPHA:
        to[0] = to[1] = to[2] = over_white(from[2 * x], from[2 * x + 1]);
        break;
      default: {  // RGB_ALPHA
        const uint8_t* p = from + 4 * x;
        put_over_white(to, {p[0], p[1], p[2], p[3]});
      }
    }
    if (reader.has_key && std::memcmp(to, reader.key.data(), 3) == 0) to[0] = to[1] = to[2] = 255;
  }
}

// `raw`: one row, or all rows of an interlaced picture, whose passes cannot be told apart by row.
bool read_rows(PngReader& reader, RgbImage& image, uint8_t* raw, size_t raw_row, png_bytep* rows) {
  if (setjmp(png_jmpbuf(reader.png)) != 0) return false;
  const bool whole = reader.interlace != PNG_INTERLACE_NONE;
  if (whole) png_read_image(reader.png, rows);
  for (int32_t y = 0; y < image.height; ++y) {
    if (!whole) png_read_row(reader.png, raw, nullptr);
    convert_row(reader, whole ? raw + static_cast<size_t>(y) * raw_row : raw, image.width,
                row_of(image, y));
  }
  return true;
}

}  // namespace

Result<ImageSize> png_size(Bytes bytes) {
  // Signature (8), length 13 and "IHDR" (8), width and height, big-endian.
  if (bytes.size() < 33 || as_text(bytes).substr(12, 4) != "IHDR") {
    return Error(ErrorCode::corrupt, "no IHDR chunk at byte 8 of " + std::to_string(bytes.size()));
  }
  const uint32_t width = __builtin_bswap32(load_le<uint32_t>(bytes.data() + 16));
  const uint32_t height = __builtin_bswap32(load_le<uint32_t>(bytes.data() + 20));
  if (width > INT32_MAX || height > INT32_MAX) {
    return Error(ErrorCode::corrupt, "the header says " + std::to_string(width) + " x " +
                                         std::to_string(height) + " pixels, more than 2^31 - 1");
  }
  return ImageSize{static_cast<int32_t>(width), static_cast<int32_t>(height)};
}

Result<RgbImage> decode_png(Bytes bytes, ImageSize size, bool use_rgb_key) {
  PngReader reader;
  if (!start(reader, bytes)) return Error(ErrorCode::corrupt, reader.message);
  if (static_cast<int32_t>(reader.width) != size.width ||
      static_cast<int32_t>(reader.height) != size.height) {
    return Error(ErrorCode::corrupt, "two headers of different size");
  }
  if (reader.color_type == PNG_COLOR_TYPE_RGB && !use_rgb_key) reader.has_key = false;
  RgbImage image = TRY(make_image(size));
  const size_t raw_row = png_get_rowbytes(reader.png, reader.info);
  const size_t num_rows =
      reader.interlace != PNG_INTERLACE_NONE ? static_cast<size_t>(size.height) : 1;
  std::vector<uint8_t> raw;
  std::vector<png_bytep> rows(num_rows);
  try {
    raw.resize(raw_row * num_rows);
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, "no memory for an interlaced picture of this size");
  }
  for (size_t y = 0; y < num_rows; ++y) rows[y] = raw.data() + y * raw_row;
  if (!read_rows(reader, image, raw.data(), raw_row, rows.data())) {
    return Error(ErrorCode::corrupt, reader.message);
  }
  return image;
}

}  // namespace bise
