// Counter-based random numbers: a draw is a function of (seed, stream, position), never of what was
// drawn before or of the company in a batch. SplitMix64's finaliser over the mixed counter
// (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#pragma once

#include <cstdint>

namespace bise {

constexpr uint64_t mix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xBF58476D1CE4E5B9u;
  x ^= x >> 27;
  x *= 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}
constexpr uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t position) {
  constexpr uint64_t kGolden = 0x9E3779B97F4A7C15u;
  return mix64(mix64(mix64(seed + kGolden) + stream * kGolden + 1) + position * kGolden + 2);
}
// Uniform in [0, 1), 53 bits.
constexpr double random_uniform(uint64_t seed, uint64_t stream, uint64_t position) {
  return static_cast<double>(random_bits(seed, stream, position) >> 11) * 0x1p-53;
}

}  // namespace bise
