#include "engine/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/random.h"

namespace bise {
namespace {

std::vector<float> random_logits(uint64_t seed, size_t count, float scale) {
  std::vector<float> logits(count);
  for (size_t i = 0; i < count; ++i) {
    logits[i] = scale * static_cast<float>(random_uniform(seed, 1, i) - 0.5);
    // Whole steps here and there, so that ties occur.
    if (i % 3 == 0) logits[i] = std::round(logits[i]);
  }
  return logits;
}

SampledToken sample_ok(std::vector<float> logits, const SamplingParams& params, int64_t position,
                       const TokenCounts& counts = {}) {
  auto token = sample(logits, params, counts, position);
  EXPECT_TRUE(token) << token.error().message();
  return token ? *token : SampledToken{};
}

TEST(sampler, greedy_takes_the_lowest_id_of_equals) {
  SamplingParams params;
  params.temperature = 0.0;
  EXPECT_EQ(sample_ok({1, 3, 2, 3, 3}, params, 0).id, 1);
  EXPECT_EQ(sample_ok({-1, -1}, params, 5).id, 0);
}

TEST(sampler, repetition_penalty_counts_prompt_and_output) {
  TokenCounts counts;
  std::vector<int32_t> prompt = {0, 1, 0};
  counts.add_prompt(prompt);
  counts.add_output(2);
  std::vector<float> logits = {4, -4, 0, 4};
  apply_repetition_penalty(logits, counts, 2.0);
  EXPECT_EQ(logits, (std::vector<float>{2, -8, 0, 4}));
}

TEST(sampler, an_extreme_repetition_penalty_makes_no_infinity) {
  TokenCounts counts;
  counts.add_output(0);
  counts.add_output(1);
  std::vector<float> logits = {1e30f, -1e30f};
  apply_repetition_penalty(logits, counts, 1e-30);
  EXPECT_TRUE(std::isfinite(logits[0]));
  std::vector<float> more = {1e30f, -1e30f};
  apply_repetition_penalty(more, counts, 1e30);
  EXPECT_TRUE(std::isfinite(more[1]));
}

TEST(sampler, presence_and_frequency_count_the_output_only) {
  TokenCounts counts;
  std::vector<int32_t> prompt = {0, 1};
  counts.add_prompt(prompt);
  for (int32_t id : {1, 2, 2, 2}) counts.add_output(id);
  std::vector<float> logits = {1, 1, 1, 1};
  apply_count_penalties(logits, counts, 0.5, 0.25);
  EXPECT_EQ(logits, (std::vector<float>{1, 0.25f, -0.75f, 1}));
}

TEST(sampler, logit_bias_moves_the_choice) {
  SamplingParams params;
  params.temperature = 0.0;
  params.logit_bias = {{0, 2.0f}, {1, -100.0f}};
  EXPECT_EQ(sample_ok({1, 50, 2.5f}, params, 0).id, 0);
}

TEST(sampler, filters_keep_what_a_hand_calculation_keeps) {
  // Probabilities 0.5, 0.25, 0.125, 0.125.
  std::vector<float> logits = {std::log(0.125f), std::log(0.5f), std::log(0.25f), std::log(0.125f)};
  auto ids = [&](const SamplingParams& params) {
    std::vector<int32_t> result;
    for (const auto& token : kept_tokens(logits, params)) result.push_back(token.id);
    return result;
  };
  SamplingParams params;
  EXPECT_EQ(ids(params), (std::vector<int32_t>{1, 2, 0, 3}));
  params.top_k = 2;
  EXPECT_EQ(ids(params), (std::vector<int32_t>{1, 2}));
  EXPECT_NEAR(kept_tokens(logits, params)[0].probability, 2.0 / 3.0, 1e-6);
  params.top_k = 0;
  params.top_p = 0.49;
  EXPECT_EQ(ids(params), (std::vector<int32_t>{1}));
  params.top_p = 0.7;
  EXPECT_EQ(ids(params), (std::vector<int32_t>{1, 2}));
  params.top_p = 0.8;
  EXPECT_EQ(ids(params), (std::vector<int32_t>{1, 2, 0}));
  // top-p counts within what top-k left: of 2/3 and 1/3 the first suffices.
  params.top_p = 0.6;
  params.top_k = 2;
  EXPECT_EQ(ids(params), (std::vector<int32_t>{1}));
  params = {};
  params.min_p = 0.4;
  EXPECT_EQ(ids(params), (std::vector<int32_t>{1, 2}));
  params.min_p = 1.0;
  EXPECT_EQ(ids(params), (std::vector<int32_t>{1}));
  params = {};
  params.temperature = 0.5;  // squares the probabilities: 16, 4, 1, 1 of 22
  EXPECT_NEAR(kept_tokens(logits, params)[0].probability, 16.0 / 22.0, 1e-6);
}

// The slow twin sorts everything and walks the same distribution with the same uniform number.
TEST(sampler, draws_equal_those_of_a_full_sort) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    size_t size = 1 + random_bits(seed, 2, 0) % 3000;
    std::vector<float> logits = random_logits(seed, size, seed % 2 == 0 ? 4.0f : 40.0f);
    SamplingParams params;
    params.seed = seed;
    params.temperature = 0.1 + 1.9 * random_uniform(seed, 2, 1);
    params.top_k = static_cast<int32_t>(random_bits(seed, 2, 2) % 4 * 300);
    if (seed % 3 != 0) params.top_p = 0.05 + 0.95 * random_uniform(seed, 2, 3);
    if (seed % 5 == 0) params.min_p = random_uniform(seed, 2, 4);
    auto kept = kept_tokens(logits, params);
    const bool all = (params.top_k == 0 || params.top_k >= static_cast<int32_t>(size)) &&
                     params.top_p >= 1.0 && params.min_p <= 0.0;
    if (all) std::ranges::sort(kept, {}, &TokenProbability::id);
    for (int64_t position = 0; position < 5; ++position) {
      double uniform = random_uniform(seed, kSamplerStream, static_cast<uint64_t>(position));
      double mass = 0.0;
      size_t drawn = 0;
      while (drawn + 1 < kept.size() && (mass += kept[drawn].probability) <= uniform) ++drawn;
      ASSERT_EQ(sample_ok(logits, params, position).id, kept[drawn].id)
          << "seed " << seed << " position " << position;
    }
  }
}

// Pearson's statistic of 20,000 draws against the slow twin's distribution. With 19 degrees of
// freedom a value above 43.8 has a probability of one in a thousand; the seeds are fixed.
TEST(sampler, draws_have_the_frequencies_of_the_distribution) {
  std::vector<float> logits(20);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = 0.15f * static_cast<float>((i * 7) % 20);
  struct Case {
    double temperature, top_p, min_p;
    int32_t top_k;
  };
  for (const Case& c : {Case{1.0, 1.0, 0.0, 0}, Case{0.7, 0.9, 0.0, 0}, Case{1.5, 1.0, 0.3, 0},
                        Case{1.0, 0.95, 0.1, 12}}) {
    SamplingParams params;
    params.temperature = c.temperature;
    params.top_p = c.top_p;
    params.min_p = c.min_p;
    params.top_k = c.top_k;
    params.seed = 42;
    constexpr int kDraws = 20000;
    std::vector<int> seen(logits.size(), 0);
    for (int i = 0; i < kDraws; ++i) ++seen[static_cast<size_t>(sample_ok(logits, params, i).id)];
    double statistic = 0.0;
    int counted = 0;
    for (const auto& token : kept_tokens(logits, params)) {
      int count = seen[static_cast<size_t>(token.id)];
      double expected = kDraws * token.probability;
      statistic += (count - expected) * (count - expected) / expected;
      counted += count;
    }
    EXPECT_EQ(counted, kDraws) << "a token was drawn that is not kept";
    EXPECT_LT(statistic, 43.8);
  }
}

TEST(sampler, a_draw_depends_on_seed_and_position_only) {
  std::vector<float> logits(1000, 0.0f);
  SamplingParams params;
  params.seed = 9;
  std::vector<int32_t> forward, backward;
  for (int64_t p = 0; p < 50; ++p) forward.push_back(sample_ok(logits, params, p).id);
  for (int64_t p = 49; p >= 0; --p) backward.push_back(sample_ok(logits, params, p).id);
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(forward, backward);
  params.seed = 10;
  int same = 0;
  for (int64_t p = 0; p < 50; ++p)
    same += sample_ok(logits, params, p).id == forward[static_cast<size_t>(p)];
  EXPECT_LT(same, 5);
}

TEST(sampler, logprobs_are_those_of_the_raw_logits) {
  std::vector<float> logits = {std::log(0.25f), std::log(0.5f), std::log(0.25f)};
  SamplingParams params;
  params.temperature = 0.0;
  params.num_logprobs = 2;
  params.logit_bias = {{2, 50.0f}};
  SampledToken token = sample_ok(logits, params, 0);
  EXPECT_EQ(token.id, 2);
  EXPECT_NEAR(token.logprob, std::log(0.25), 1e-6);
  ASSERT_EQ(token.top.size(), 2u);
  EXPECT_EQ(token.top[0].id, 1);
  EXPECT_NEAR(token.top[0].logprob, std::log(0.5), 1e-6);
  EXPECT_EQ(token.top[1].id, 0);  // of two equals the lower id
  params.num_logprobs = 0;
  EXPECT_TRUE(sample_ok(logits, params, 0).top.empty());
}

TEST(sampler, a_flat_distribution_over_a_large_vocabulary_reaches_every_region) {
  std::vector<float> logits(131072);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = static_cast<float>(i % 2) * -13.0f;
  SamplingParams params;
  int32_t lowest = 131072, highest = 0;
  for (int64_t p = 0; p < 40; ++p) {
    int32_t id = sample_ok(logits, params, p).id;
    lowest = std::min(lowest, id);
    highest = std::max(highest, id);
  }
  EXPECT_LT(lowest, 30000);
  EXPECT_GT(highest, 100000);
  // All but one far below the best: the tail is reached too when the temperature allows it.
  std::fill(logits.begin(), logits.end(), -30.0f);
  logits[5] = 0.0f;
  params.temperature = 2.0;
  params.top_k = 100000;
  EXPECT_EQ(kept_tokens(logits, params).size(), 100000u);
  EXPECT_GE(sample_ok(logits, params, 1).id, 0);
}

TEST(sampler, logits_that_are_not_numbers_are_an_error) {
  SamplingParams params;
  const float inf = std::numeric_limits<float>::infinity();
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), inf}) {
    std::vector<float> logits = {1.0f, bad, 0.0f};
    EXPECT_FALSE(sample(logits, params, {}, 0));
  }
  std::vector<float> none = {-inf, -inf};
  EXPECT_FALSE(sample(none, params, {}, 0));
  std::vector<float> some = {-inf, 0.0f};
  EXPECT_EQ(sample_ok(some, params, 3).id, 1);
}

TEST(sampling_params, values_out_of_range_are_refused_by_name) {
  auto refused = [](auto change) {
    SamplingParams params;
    change(params);
    auto result = params.validate(100);
    return result ? std::string("accepted") : result.error().param();
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(refused([](auto&) {}), "accepted");
  EXPECT_EQ(refused([](auto& p) { p.temperature = 2.1; }), "temperature");
  EXPECT_EQ(refused([&](auto& p) { p.temperature = nan; }), "temperature");
  EXPECT_EQ(refused([](auto& p) { p.top_p = 0.0; }), "top_p");
  EXPECT_EQ(refused([](auto& p) { p.top_k = -2; }), "top_k");
  EXPECT_EQ(refused([](auto& p) { p.top_k = -1; }), "accepted");
  EXPECT_EQ(refused([](auto& p) { p.min_p = 1.5; }), "min_p");
  EXPECT_EQ(refused([](auto& p) { p.repetition_penalty = 0.0; }), "repetition_penalty");
  EXPECT_EQ(refused([](auto& p) { p.presence_penalty = -3; }), "presence_penalty");
  EXPECT_EQ(refused([&](auto& p) { p.frequency_penalty = nan; }), "frequency_penalty");
  EXPECT_EQ(refused([](auto& p) { p.logit_bias[100] = 1; }), "logit_bias");
  EXPECT_EQ(refused([](auto& p) { p.logit_bias[1] = 101; }), "logit_bias");
  EXPECT_EQ(refused([](auto& p) { p.max_tokens = -1; }), "max_tokens");
  EXPECT_EQ(refused([](auto& p) { p.num_logprobs = 21; }), "top_logprobs");
}

}  // namespace
}  // namespace bise
