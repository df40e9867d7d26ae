// The decoders behind image.h, one file per format, and what they share. Internal to the image
// room.
//
// Each format has two functions: x_size reads the header alone, decode_x the whole picture. Callers
// check limits between the two. Pillow 13 is the reference for what a file means; where it shows
// half a picture of a damaged file, we refuse.
#pragma once

#include <optional>

#include "model/image.h"

namespace bise {

enum class ImageFormat : uint8_t { jpeg, png, webp, gif, bmp };

std::optional<ImageFormat> image_format(Bytes bytes);
const char* image_format_name(ImageFormat format);

Result<ImageSize> jpeg_size(Bytes bytes);
Result<ImageSize> png_size(Bytes bytes);
Result<ImageSize> webp_size(Bytes bytes);
Result<ImageSize> gif_size(Bytes bytes);
Result<ImageSize> bmp_size(Bytes bytes);

// `size` is what x_size said; a decoder that finds another one refuses.
Result<RgbImage> decode_jpeg(Bytes bytes, ImageSize size);
// `use_rgb_key`: the transparent colour (tRNS) of a picture without palette and alpha counts.
// mistral-common overlooks it, since Pillow's mode of such a file is RGB already.
Result<RgbImage> decode_png(Bytes bytes, ImageSize size, bool use_rgb_key);
Result<RgbImage> decode_webp(Bytes bytes, ImageSize size);
Result<RgbImage> decode_gif(Bytes bytes, ImageSize size);
Result<RgbImage> decode_bmp(Bytes bytes, ImageSize size);

// Pixels are zero. Error when memory does not suffice.
Result<RgbImage> make_image(ImageSize size);

inline size_t row_bytes(const RgbImage& image) { return static_cast<size_t>(image.width) * 3; }
inline uint8_t* row_of(RgbImage& image, int32_t y) {
  return image.pixels.data() + static_cast<size_t>(y) * row_bytes(image);
}

// a * b / 255, rounded, for a, b in 0..255: Pillow's MULDIV255.
inline uint8_t mul_div_255(uint32_t a, uint32_t b) {
  const uint32_t t = a * b + 128;
  return static_cast<uint8_t>(((t >> 8) + t) >> 8);
}
// One channel composited on opaque white. Over white, Pillow's alpha_composite and its paste with a
// mask (which mistral-common takes) agree for every value and alpha; this formula is the latter's.
inline uint8_t over_white(uint32_t value, uint32_t alpha) {
  const uint32_t t = value * alpha + 255 * (255 - alpha) + 128;
  return static_cast<uint8_t>(((t >> 8) + t) >> 8);
}

struct Rgba {
  uint8_t r = 0, g = 0, b = 0, a = 255;
};
inline void put_over_white(uint8_t* out, Rgba colour) {
  out[0] = over_white(colour.r, colour.a);
  out[1] = over_white(colour.g, colour.a);
  out[2] = over_white(colour.b, colour.a);
}

}  // namespace bise
