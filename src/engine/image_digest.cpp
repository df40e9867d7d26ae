#include "engine/image_digest.h"

#include <chrono>
#include <cstring>
#include <exception>
#include <random>

#include "base/random.h"

namespace bise {
namespace {

// The words of a picture are the coefficients of a polynomial over the field of integers modulo
// 2^61 - 1. Two different ones of degree n agree at most at n of the 2^61 points; with 2^23 words, at
// two independent points with a probability of (2^23 / 2^61)^2 = 2^-76.
constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;

__extension__ using Wide = unsigned __int128;

uint64_t reduce(Wide x) {
  uint64_t y = static_cast<uint64_t>(x & kPrime) + static_cast<uint64_t>(x >> 61);
  return y >= kPrime ? y - kPrime : y;
}

}  // namespace

DigestKey DigestKey::random() {
  uint64_t seed = static_cast<uint64_t>(
      std::chrono::system_clock::now().time_since_epoch().count());
  DigestKey key;
  for (size_t i = 0; i < key.points.size(); ++i) {
    uint64_t bits = random_bits(seed, 0, i);
    try {
      std::random_device device;
      bits ^= uint64_t{device()} << 32 | device();
    } catch (const std::exception&) {
      // The clock must do.
    }
    key.points[i] = bits % kPrime;
  }
  return key;
}

ImageDigest image_digest(const ProcessedImage& image, const DigestKey& key) {
  ImageDigest digest = {1, 1};  // so that leading zeros count
  auto add = [&](uint64_t word) {
    for (size_t i = 0; i < digest.size(); ++i) {
      digest[i] = reduce(static_cast<Wide>(digest[i]) * key.points[i] + word);
    }
  };
  add(static_cast<uint32_t>(image.width));
  add(static_cast<uint32_t>(image.height));
  for (float pixel : image.pixels) {
    uint32_t bits;
    std::memcpy(&bits, &pixel, sizeof bits);
    add(bits);
  }
  return digest;
}

}  // namespace bise
