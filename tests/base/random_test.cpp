#include "base/random.h"

#include <gtest/gtest.h>

#include <bit>
#include <set>
#include <vector>

namespace bise {
namespace {

TEST(random, a_draw_depends_on_seed_stream_and_position_alone) {
  static_assert(random_bits(1, 2, 3) == random_bits(1, 2, 3));
  std::set<uint64_t> seen;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    for (uint64_t stream = 0; stream < 20; ++stream) {
      for (uint64_t position = 0; position < 20; ++position) {
        seen.insert(random_bits(seed, stream, position));
      }
    }
  }
  EXPECT_EQ(8000u, seen.size());
}

TEST(random, uniform_draws_fill_the_unit_interval_evenly) {
  constexpr int kDraws = 100000, kBins = 50;
  std::vector<int> bins(kBins, 0);
  for (uint64_t position = 0; position < kDraws; ++position) {
    double u = random_uniform(7, 0, position);
    ASSERT_TRUE(u >= 0.0 && u < 1.0);
    ++bins[static_cast<size_t>(u * kBins)];
  }
  double chi_square = 0;
  for (int count : bins) {
    double expected = double{kDraws} / kBins;
    chi_square += (count - expected) * (count - expected) / expected;
  }
  // 49 degrees of freedom: beyond 85.4 once in a thousand. The draws are fixed, so this never flickers.
  EXPECT_LT(chi_square, 85.4);
}

TEST(random, one_bit_of_the_counter_changes_half_of_the_bits) {
  int changed = 0, draws = 0;
  for (uint64_t position = 0; position < 200; ++position) {
    for (int bit = 0; bit < 64; ++bit) {
      uint64_t other = position ^ (uint64_t{1} << bit);
      changed += std::popcount(random_bits(1, 1, position) ^ random_bits(1, 1, other));
      ++draws;
    }
  }
  EXPECT_NEAR(32.0, static_cast<double>(changed) / draws, 0.2);
}

}  // namespace
}  // namespace bise
