// A short name for the contents of a picture, for the prefix cache: two different pictures have the
// same one with a probability below 2^-70, whoever chose them, because the key is secret.
#pragma once

#include <array>
#include <cstdint>

#include "model/image.h"

namespace bise {

using ImageDigest = std::array<uint64_t, 2>;

// A new one for every engine.
struct DigestKey {
  std::array<uint64_t, 2> points;
  static DigestKey random();
};

// Some 10 ms for a picture of 1,540 x 1,540.
ImageDigest image_digest(const ProcessedImage& image, const DigestKey& key);

}  // namespace bise
