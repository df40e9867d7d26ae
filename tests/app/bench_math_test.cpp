#include "app/bench_math.h"

#include <gtest/gtest.h>

namespace bise {
namespace {

ModelConfig medium() {
  ModelConfig c;
  c.hidden_size = 12288;
  c.num_layers = 88;
  c.num_heads = 96;
  c.num_kv_heads = 8;
  c.head_dim = 128;
  c.intermediate_size = 28672;
  c.vocab_size = 131072;
  return c;
}

TEST(bench_math, spread_of_odd_even_and_no_values) {
  const Spread odd = spread_of({3, 1, 2});
  EXPECT_EQ(odd.min, 1);
  EXPECT_EQ(odd.median, 2);
  EXPECT_EQ(odd.max, 3);
  EXPECT_EQ(spread_of({4, 1, 2, 3}).median, 2.5);
  EXPECT_EQ(spread_of({7}).median, 7);
  EXPECT_EQ(spread_of({}).median, 0);
  EXPECT_EQ(spread_of({}).max, 0);
}

// The published shape: 1,384.12 M weights a layer, 88 layers, a head of 1.6106 B.
TEST(bench_math, flops_of_the_128B_model_are_those_of_its_weights) {
  const ModelConfig c = medium();
  EXPECT_DOUBLE_EQ(linear_flops_per_token(c), 2.0 * 88 * (2.0 * 12288 * 12288 + 2.0 * 12288 * 1024 + 3.0 * 12288 * 28672));
  EXPECT_NEAR(linear_flops_per_token(c), 243.61e9, 0.01e9);
  EXPECT_NEAR(head_flops(c), 3.22e9, 0.01e9);
  // 4 * 88 * 96 * 128 for each query and key.
  EXPECT_DOUBLE_EQ(attention_flops(c, 0, 1), 4325376.0);
  EXPECT_NEAR(attention_flops(c, 0, 32768), 2.322e15, 0.001e15);
  EXPECT_NEAR(prefill_flops(c, 8192), 2.141e15, 0.001e15);
}

TEST(bench_math, attention_of_a_later_run_sees_all_before_it) {
  const ModelConfig c = medium();
  EXPECT_DOUBLE_EQ(attention_flops(c, 0, 700), attention_flops(c, 0, 300) + attention_flops(c, 300, 400));
  EXPECT_DOUBLE_EQ(attention_flops(c, 99, 1), 100 * attention_flops(c, 0, 1));
}

TEST(bench_math, a_sliding_window_bounds_what_a_query_sees) {
  ModelConfig c = medium();
  c.sliding_window = 10;
  const double one = attention_flops(c, 0, 1);
  double sum = 0;
  for (int64_t p = 0; p < 25; ++p) {
    EXPECT_DOUBLE_EQ(attention_flops(c, p, 1), one * static_cast<double>(std::min<int64_t>(p + 1, 10)));
    sum += attention_flops(c, p, 1);
  }
  EXPECT_DOUBLE_EQ(attention_flops(c, 0, 25), sum);
}

TEST(bench_math, a_rate_is_held_to_the_limit_around_it) {
  LimitedRates rates;
  EXPECT_TRUE(rates.empty());
  rates.add(45, 50, 50);
  rates.add(72, 70, 90);  // a faster moment is no better share
  rates.add(30, 60, 40);  // a slower one, with a disturbance
  EXPECT_FALSE(rates.empty());
  EXPECT_DOUBLE_EQ(rates.rates().median, 45);
  EXPECT_DOUBLE_EQ(rates.limits().max, 80);
  EXPECT_DOUBLE_EQ(rates.shares().median, 0.9);
  EXPECT_DOUBLE_EQ(rates.shares().min, 0.6);
  rates.add(1, 0, 0);  // no limit was measured
  EXPECT_DOUBLE_EQ(rates.shares().min, 0);
}

TEST(bench_math, a_share_of_nothing_measured_is_0) {
  EXPECT_EQ(share_of(3, 4), 0.75);
  EXPECT_EQ(share_of(3, 0), 0);
}

}  // namespace
}  // namespace bise
