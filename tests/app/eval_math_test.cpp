#include "app/eval_math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace bise {
namespace {

TEST(EvalMath, equal_chances_of_n_have_perplexity_n_without_error) {
  const std::vector<double> eighth(7, -std::log(8.0));
  const Perplexity p = perplexity(eighth);
  EXPECT_NEAR(p.value, 8.0, 1e-12);
  EXPECT_NEAR(p.error, 0.0, 1e-12);
}

TEST(EvalMath, the_error_is_that_of_the_mean) {
  const std::vector<double> logprobs = {-1.0, -3.0};  // mean -2, deviation sqrt(2), of the mean 1
  const Perplexity p = perplexity(logprobs);
  EXPECT_NEAR(p.value, std::exp(2.0), 1e-12);
  EXPECT_NEAR(p.error, std::exp(2.0), 1e-12);
  EXPECT_EQ(perplexity(std::vector<double>{-1.0}).error, 0.0);
}

TEST(EvalMath, a_ratio_of_runs_that_differ_alike_everywhere_has_no_error) {
  const std::vector<double> base = {-1.0, -7.0, -0.5};
  std::vector<double> worse = base;
  for (double& x : worse) x -= std::log(1.25);
  const PerplexityRatio r = perplexity_ratio(worse, base);
  EXPECT_NEAR(r.value, 1.25, 1e-12);
  EXPECT_NEAR(r.error, 0.0, 1e-12);
  EXPECT_NEAR(perplexity(worse).value / perplexity(base).value, r.value, 1e-12);
}

}  // namespace
}  // namespace bise
