#include "base/error.h"

#include <gtest/gtest.h>

#include <memory>

namespace bise {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return Error(ErrorCode::invalid_argument, std::to_string(value) + " is odd");
  return value / 2;
}
Result<int> sum_of_halves(int a, int b) { return TRY(half(a)) + TRY(half(b)); }
Result<void> need_even(int value) {
  TRY(half(value));
  return {};
}

TEST(error, a_message_is_one_line_whatever_bytes_it_quotes) {
  EXPECT_EQ("found \"tr\\ns\\x1b[2J\\x7f\"", Error(ErrorCode::corrupt, "found \"tr\ns\x1b[2J\x7f\"").message());
  EXPECT_EQ("a\\tb.json: é", Error(ErrorCode::io, "é").with_context("a\tb.json").message());
}

TEST(error, try_hands_on_the_first_error) {
  EXPECT_EQ(5, sum_of_halves(4, 6).value());
  EXPECT_EQ("3 is odd", sum_of_halves(3, 5).error().message());
  EXPECT_EQ("5 is odd", sum_of_halves(4, 5).error().message());
  EXPECT_TRUE(need_even(2));
  EXPECT_FALSE(need_even(1));
}

TEST(error, a_try_may_stand_in_the_argument_of_another) {
  auto quarter = [](int value) -> Result<int> { return TRY(half(TRY(half(value)))); };
  EXPECT_EQ(3, quarter(12).value());
  EXPECT_EQ("7 is odd", quarter(14).error().message());
}

TEST(error, contexts_are_added_in_front_and_param_and_kind_stay) {
  Error error = Error(ErrorCode::corrupt, "shape 3").with_param("a[0]").with_kind("tool");
  Error outer = std::move(error).with_context("tensor x").with_context("m.gguf");
  EXPECT_EQ("m.gguf: tensor x: shape 3", outer.message());
  EXPECT_EQ("a[0]", outer.param());
  EXPECT_EQ("tool", outer.kind());
  EXPECT_EQ(ErrorCode::corrupt, outer.code());
  EXPECT_EQ("here: 3 is odd", half(3).with_context("here").error().message());
  EXPECT_EQ(2, half(4).with_context("here").value());
}

TEST(error, a_result_carries_what_can_only_be_moved) {
  auto make = [](bool good) -> Result<std::unique_ptr<int>> {
    if (!good) return Error(ErrorCode::io, "no");
    return std::make_unique<int>(7);
  };
  auto pass = [&](bool good) -> Result<int> {
    std::unique_ptr<int> value = TRY(make(good));
    return *value;
  };
  EXPECT_EQ(7, pass(true).value());
  EXPECT_FALSE(pass(false));
}

TEST(error_death, taking_the_value_of_an_error_is_a_bug_that_is_named) {
  EXPECT_DEATH(half(1).value(), "bug: CHECK");
  EXPECT_DEATH(half(2).error(), "bug: CHECK");
}

}  // namespace
}  // namespace bise
