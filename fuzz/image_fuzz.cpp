// Pictures: every decoder, both resizers. The limits are small so that a run is quick.
#include <cstdint>

#include "model/image.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace bise;
  const Bytes bytes{reinterpret_cast<const std::byte*>(data), size};
  ImageLimits limits;
  limits.max_bytes = 1 << 20;
  limits.max_pixels = 1 << 18;
  const auto header = image_size(bytes, limits);
  for (ImageProcessing processing : {ImageProcessing::torch, ImageProcessing::mistral_common}) {
    const auto image = load_image(bytes, 112, 28, processing, limits);
    // A picture that decodes has a readable header and a size that fits its pixels.
    if (!image) continue;
    CHECK(header.has_value());
    CHECK(image->width == image->columns * 28 && image->height == image->rows * 28);
    CHECK(image->pixels.size() == static_cast<size_t>(image->width) * image->height * 3);
  }
  return 0;
}
