// Pictures: decode (JPEG, PNG, WebP, GIF, BMP), flatten on white, resize exactly as the reference
// does, normalise. Bytes are hostile: size and pixel limits are checked before anything is decoded.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"

namespace bise {

// Whose preprocessing is reproduced.
//   torch           transformers 5.23.0 with torchvision: floor in the size rule, uint8 antialiased
//                   bicubic, EXIF orientation applied
//   mistral_common  mistral-common 1.13.1: round half to even, float32 cv2 bicubic without
//                   antialiasing, EXIF ignored
enum class ImageProcessing : uint8_t { torch, mistral_common };

struct ImageLimits {
  uint64_t max_bytes = uint64_t{64} << 20;
  uint64_t max_pixels = uint64_t{100} << 20;  // width * height before resizing
};

// Interleaved 8-bit RGB, alpha already composited on white.
struct RgbImage {
  int32_t width = 0, height = 0;
  std::vector<uint8_t> pixels;  // [height, width, 3]
};

// The format is found by the bytes, never by a file name. `processing` decides whether JPEG, PNG and
// WebP are turned by their EXIF orientation and whether the transparent colour of an RGB PNG counts.
Result<RgbImage> decode_image(Bytes bytes, ImageProcessing processing, const ImageLimits& limits);

struct ImageSize {
  int32_t width = 0, height = 0;
};
// The size after resizing: multiples of `unit` (patch_size * merge), longest edge at most `longest`.
ImageSize target_size(ImageSize from, int32_t longest, int32_t unit, ImageProcessing processing);

// Ready for the tower. Rows and columns count merged patches: the image is
// rows x columns tokens, `height = rows * unit`.
struct ProcessedImage {
  int32_t width = 0, height = 0;
  int32_t rows = 0, columns = 0;
  std::vector<float> pixels;  // [3, height, width], normalised
};
Result<ProcessedImage> process_image(const RgbImage& image, int32_t longest, int32_t unit,
                                     ImageProcessing processing);
// Decode and process in one go.
Result<ProcessedImage> load_image(Bytes bytes, int32_t longest, int32_t unit,
                                  ImageProcessing processing, const ImageLimits& limits);
// Width and height from the header alone, as stored (no EXIF turn); for prompt encoding.
Result<ImageSize> image_size(Bytes bytes, const ImageLimits& limits);

}  // namespace bise
