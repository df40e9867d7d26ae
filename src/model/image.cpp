#include "model/image.h"

#include <array>
#include <cmath>
#include <new>

#include "model/image_resize.h"

namespace bise {

namespace {

constexpr std::array<float, 3> kMean = {0.48145466f, 0.4578275f, 0.40821073f};
constexpr std::array<float, 3> kStd = {0.26862954f, 0.26130258f, 0.27577711f};

// Round half to even, as Python's round.
double round_even(double value) { return std::nearbyint(value); }

// [3, height, width] from interleaved rows; `value(c, sample)` normalises.
template <class Sample, class Value>
void to_planes(const std::vector<Sample>& from, std::vector<float>& to, Value&& value) {
  const size_t plane = to.size() / 3;
  for (size_t c = 0; c < 3; ++c) {
    float* out = to.data() + c * plane;
    const Sample* in = from.data() + c;
    for (size_t i = 0; i < plane; ++i, in += 3) out[i] = value(c, *in);
  }
}

Result<std::vector<float>> process_torch(const RgbImage& image, ImageSize size) {
  const RgbImage resized = TRY(resize_antialiased(image, size));
  // Rescaling is folded into mean and deviation; each of the 256 levels is worked out once.
  std::array<std::array<float, 256>, 3> levels;
  for (size_t c = 0; c < 3; ++c) {
    for (size_t v = 0; v < 256; ++v) {
      levels[c][v] = (static_cast<float>(v) - kMean[c] * 255.0f) / (kStd[c] * 255.0f);
    }
  }
  std::vector<float> pixels(resized.pixels.size());
  to_planes(resized.pixels, pixels, [&](size_t c, uint8_t v) { return levels[c][v]; });
  return pixels;
}

Result<std::vector<float>> process_mistral_common(const RgbImage& image, ImageSize size) {
  const std::vector<float> resized = TRY(resize_cubic(image, size));
  std::vector<float> pixels(resized.size());
  to_planes(resized, pixels, [](size_t c, float v) { return (v / 255.0f - kMean[c]) / kStd[c]; });
  return pixels;
}

}  // namespace

ImageSize target_size(ImageSize from, int32_t longest, int32_t unit, ImageProcessing processing) {
  double width = from.width, height = from.height;
  const double ratio = std::max(height / longest, width / longest);
  if (ratio > 1.0) {
    const bool torch = processing == ImageProcessing::torch;
    width = torch ? std::floor(width / ratio) : round_even(width / ratio);
    height = torch ? std::floor(height / ratio) : round_even(height / ratio);
  }
  // A very long picture would shrink to nothing: mistral-common keeps one pixel; transformers
  // fails.
  const auto whole_units = [unit](double pixels) {
    const int64_t count = std::max<int64_t>(static_cast<int64_t>(pixels), 1);
    return static_cast<int32_t>((count - 1) / unit + 1) * unit;
  };
  return {whole_units(width), whole_units(height)};
}

Result<ProcessedImage> process_image(const RgbImage& image, int32_t longest, int32_t unit,
                                     ImageProcessing processing) {
  if (image.width <= 0 || image.height <= 0) {
    return Error(ErrorCode::invalid_argument, "a picture without pixels");
  }
  if (longest <= 0 || unit <= 0 || unit > longest) {
    return Error(ErrorCode::invalid_argument,
                 "the vision configuration has image_size " + std::to_string(longest) +
                     " and merged patches of " + std::to_string(unit) +
                     " pixels; both must be positive and the patch the smaller one");
  }
  const ImageSize size = target_size({image.width, image.height}, longest, unit, processing);
  ProcessedImage out;
  out.width = size.width;
  out.height = size.height;
  out.columns = size.width / unit;
  out.rows = size.height / unit;
  try {
    out.pixels = TRY(processing == ImageProcessing::torch ? process_torch(image, size)
                                                          : process_mistral_common(image, size));
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, "no memory for the pixels of a picture");
  }
  return out;
}

Result<ProcessedImage> load_image(Bytes bytes, int32_t longest, int32_t unit,
                                  ImageProcessing processing, const ImageLimits& limits) {
  const RgbImage image = TRY(decode_image(bytes, processing, limits));
  return process_image(image, longest, unit, processing);
}

}  // namespace bise
