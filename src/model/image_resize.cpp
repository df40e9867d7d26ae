#include "model/image_resize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <new>

namespace bise {

namespace {

constexpr size_t kChannels = 3;

// ---- torch, uint8, antialiased ----

double keys_cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

// For each target place along one axis: the source places it is made of, and their weights.
struct Taps {
  struct Span {
    int32_t first = 0, count = 0;
  };
  std::vector<Span> spans;       // [target size]
  std::vector<int16_t> weights;  // [target size, width]
  size_t width = 0;              // the largest count
  int precision = 0;             // weights are multiples of 2^-precision

  const int16_t* weights_of(int32_t i) const {
    return weights.data() + static_cast<size_t>(i) * width;
  }
};

// Weights in double, normalised to the sum 1, then rounded to as many bits as the largest of the
// axis leaves in an int16.
Taps make_taps(int32_t from, int32_t to) {
  const double scale = static_cast<double>(from) / to;
  const double support = 2.0 * std::max(scale, 1.0);
  const double inverse = scale >= 1.0 ? 1.0 / scale : 1.0;
  Taps taps;
  taps.width = static_cast<size_t>(std::ceil(support)) * 2 + 1;
  taps.spans.resize(static_cast<size_t>(to));
  std::vector<double> weights(static_cast<size_t>(to) * taps.width);
  double largest = 0.0;
  for (int32_t i = 0; i < to; ++i) {
    const double centre = scale * (i + 0.5);
    const auto first = std::max(static_cast<int32_t>(centre - support + 0.5), 0);
    const auto end = std::min(static_cast<int32_t>(centre + support + 0.5), from);
    const int32_t count = std::clamp(end - first, 0, static_cast<int32_t>(taps.width));
    taps.spans[static_cast<size_t>(i)] = {first, count};
    double* row = weights.data() + static_cast<size_t>(i) * taps.width;
    double sum = 0.0;
    for (int32_t j = 0; j < count; ++j) {
      row[j] = keys_cubic((j + first - centre + 0.5) * inverse);
      sum += row[j];
    }
    for (int32_t j = 0; j < count; ++j) {
      if (sum != 0.0) row[j] /= sum;
      largest = std::max(largest, row[j]);
    }
  }
  while (taps.precision < 22 &&
         static_cast<int32_t>(0.5 + largest * (1 << (taps.precision + 1))) < (1 << 15)) {
    ++taps.precision;
  }
  taps.weights.resize(weights.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const double scaled = weights[i] * (1 << taps.precision);
    taps.weights[i] = static_cast<int16_t>(scaled + (scaled < 0 ? -0.5 : 0.5));
  }
  return taps;
}

uint8_t to_byte(int32_t sum, int precision) {
  return static_cast<uint8_t>(std::clamp(sum >> precision, 0, 255));
}

void resize_row(const uint8_t* from, const Taps& taps, uint8_t* to) {
  const int32_t half = 1 << (taps.precision - 1);
  for (size_t x = 0; x < taps.spans.size(); ++x, to += kChannels) {
    const Taps::Span span = taps.spans[x];
    const int16_t* weights = taps.weights_of(static_cast<int32_t>(x));
    const uint8_t* p = from + static_cast<size_t>(span.first) * kChannels;
    int32_t r = half, g = half, b = half;
    for (int32_t j = 0; j < span.count; ++j, p += kChannels) {
      r += weights[j] * p[0];
      g += weights[j] * p[1];
      b += weights[j] * p[2];
    }
    to[0] = to_byte(r, taps.precision);
    to[1] = to_byte(g, taps.precision);
    to[2] = to_byte(b, taps.precision);
  }
}

// ---- OpenCV, float32, four taps ----

struct CubicTap {
  std::array<int32_t, 4> places{};  // clamped to the picture: borders repeat
  std::array<float, 4> weights{};
};

// The position in double, its fraction in float: nearest to what OpenCV 5 gives (4e-5 of a level;
// its order of additions depends on the CPU).
std::vector<CubicTap> make_cubic_taps(int32_t from, int32_t to) {
  constexpr double a = -0.75;
  const double scale = static_cast<double>(from) / to;
  std::vector<CubicTap> taps(static_cast<size_t>(to));
  for (int32_t i = 0; i < to; ++i) {
    const double place = (i + 0.5) * scale - 0.5;
    const auto left = static_cast<int32_t>(std::floor(place));
    const double x = static_cast<float>(place - left);
    const double y = 1 - x;
    const double w0 = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a;
    const double w1 = ((a + 2) * x - (a + 3)) * x * x + 1;
    const double w2 = ((a + 2) * y - (a + 3)) * y * y + 1;
    CubicTap& tap = taps[static_cast<size_t>(i)];
    tap.weights = {static_cast<float>(w0), static_cast<float>(w1), static_cast<float>(w2),
                   static_cast<float>(1 - w0 - w1 - w2)};
    for (int32_t j = 0; j < 4; ++j) {
      tap.places[static_cast<size_t>(j)] = std::clamp(left - 1 + j, 0, from - 1);
    }
  }
  return taps;
}

void resize_row_cubic(const uint8_t* from, const std::vector<CubicTap>& taps, float* to) {
  for (const CubicTap& tap : taps) {
    for (size_t c = 0; c < kChannels; ++c) {
      float sum = 0;
      for (size_t j = 0; j < 4; ++j) {
        sum += static_cast<float>(from[static_cast<size_t>(tap.places[j]) * kChannels + c]) *
               tap.weights[j];
      }
      *to++ = sum;
    }
  }
}

const uint8_t* row_at(const RgbImage& image, int32_t y) {
  return image.pixels.data() +
         static_cast<size_t>(y) * static_cast<size_t>(image.width) * kChannels;
}

Error no_memory(ImageSize size) {
  return Error(ErrorCode::out_of_memory, "no memory to resize a picture to " +
                                             std::to_string(size.width) + " x " +
                                             std::to_string(size.height));
}

RgbImage antialiased(const RgbImage& from, ImageSize to) {
  // An axis that keeps its size is not touched: with scale 1 its weights are those of a copy, but
  // the copy is cheaper.
  const bool keep_width = from.width == to.width;
  const bool keep_height = from.height == to.height;
  if (keep_width && keep_height) return from;
  RgbImage out;
  out.width = to.width;
  out.height = to.height;
  const size_t row_size = static_cast<size_t>(to.width) * kChannels;
  out.pixels.resize(row_size * static_cast<size_t>(to.height));
  const Taps across = keep_width ? Taps{} : make_taps(from.width, to.width);
  if (keep_height) {
    for (int32_t y = 0; y < to.height; ++y) {
      resize_row(row_at(from, y), across, out.pixels.data() + static_cast<size_t>(y) * row_size);
    }
    return out;
  }
  const Taps down = make_taps(from.height, to.height);
  // The rows a target row is made of, already of the target's width, in a ring: source row y lies
  // in slot y mod size, and a row is done once.
  const size_t ring_size = keep_width ? 0 : std::min(down.width, static_cast<size_t>(from.height));
  std::vector<uint8_t> ring(ring_size * row_size);
  int32_t rows_done = 0;
  std::vector<int32_t> sums(row_size);
  for (int32_t y = 0; y < to.height; ++y) {
    const Taps::Span span = down.spans[static_cast<size_t>(y)];
    const int16_t* weights = down.weights_of(y);
    std::fill(sums.begin(), sums.end(), 1 << (down.precision - 1));
    rows_done = std::max(rows_done, span.first);
    for (int32_t j = 0; j < span.count; ++j) {
      const int32_t source_y = span.first + j;
      const uint8_t* row = row_at(from, source_y);
      if (!keep_width) {
        uint8_t* slot = ring.data() + static_cast<size_t>(source_y) % ring_size * row_size;
        if (source_y >= rows_done) {
          resize_row(row, across, slot);
          rows_done = source_y + 1;
        }
        row = slot;
      }
      const int32_t weight = weights[j];
      for (size_t x = 0; x < row_size; ++x) sums[x] += weight * row[x];
    }
    uint8_t* to_row = out.pixels.data() + static_cast<size_t>(y) * row_size;
    for (size_t x = 0; x < row_size; ++x) to_row[x] = to_byte(sums[x], down.precision);
  }
  return out;
}

std::vector<float> cubic(const RgbImage& from, ImageSize to) {
  const size_t row_size = static_cast<size_t>(to.width) * kChannels;
  std::vector<float> out(row_size * static_cast<size_t>(to.height));
  const std::vector<CubicTap> across = make_cubic_taps(from.width, to.width);
  const std::vector<CubicTap> down = make_cubic_taps(from.height, to.height);
  // Four slots hold the rows in use; slot y mod 4 has row `held[slot]`.
  std::array<std::vector<float>, 4> slots;
  std::array<int32_t, 4> held{-1, -1, -1, -1};
  for (auto& slot : slots) slot.resize(row_size);
  float* to_row = out.data();
  for (const CubicTap& tap : down) {
    std::array<const float*, 4> rows{};
    for (size_t j = 0; j < 4; ++j) {
      const int32_t y = tap.places[j];
      const auto slot = static_cast<size_t>(y) % 4;
      if (held[slot] != y) {
        resize_row_cubic(row_at(from, y), across, slots[slot].data());
        held[slot] = y;
      }
      rows[j] = slots[slot].data();
    }
    for (size_t x = 0; x < row_size; ++x) {
      to_row[x] = rows[0][x] * tap.weights[0] + rows[1][x] * tap.weights[1] +
                  rows[2][x] * tap.weights[2] + rows[3][x] * tap.weights[3];
    }
    to_row += row_size;
  }
  return out;
}

}  // namespace

Result<RgbImage> resize_antialiased(const RgbImage& from, ImageSize to) {
  try {
    return antialiased(from, to);
  } catch (const std::bad_alloc&) {
    return no_memory(to);
  }
}

Result<std::vector<float>> resize_cubic(const RgbImage& from, ImageSize to) {
  try {
    return cubic(from, to);
  } catch (const std::bad_alloc&) {
    return no_memory(to);
  }
}

}  // namespace bise
