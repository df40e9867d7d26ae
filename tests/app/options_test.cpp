#include "app/options.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>

namespace bise {
namespace {

// Parses `arguments` with the options of a model command.
struct Parsed {
  CommonOptions common;
  SamplingOptions sampling;
  std::string error;
};
Parsed parse(std::vector<std::string> arguments) {
  Parsed parsed;
  CLI::App app;
  add_common_options(app, parsed.common);
  add_sampling_options(app, parsed.sampling);
  std::reverse(arguments.begin(), arguments.end());
  try {
    app.parse(arguments);
  } catch (const CLI::ParseError& e) {
    parsed.error = e.what();
  }
  return parsed;
}

TEST(Options, defaults_are_those_of_the_help_text) {
  Parsed parsed = parse({});
  EXPECT_EQ(parsed.error, "");
  EXPECT_EQ(parsed.common.threads, 0);
  EXPECT_EQ(parsed.common.isa, "auto");
  EXPECT_EQ(parsed.common.precision, "fast");
  EXPECT_FALSE(parsed.sampling.temperature.has_value());
}

TEST(Options, a_value_that_is_not_allowed_names_option_value_and_what_is) {
  Parsed isa = parse({"--isa", "sse9"});
  EXPECT_NE(isa.error.find("--isa"), std::string::npos);
  EXPECT_NE(isa.error.find("sse9"), std::string::npos);
  EXPECT_NE(isa.error.find("avx2"), std::string::npos);
  Parsed threads = parse({"--threads", "-3"});
  EXPECT_NE(threads.error.find("--threads"), std::string::npos);
  EXPECT_NE(threads.error.find("-3"), std::string::npos);
  EXPECT_NE(threads.error.find("1024"), std::string::npos);
  EXPECT_NE(parse({"--temperature", "2.5"}).error, "");
  EXPECT_NE(parse({"--threads", "two"}).error, "");
  EXPECT_NE(parse({"--unknown"}).error.find("--unknown"), std::string::npos);
}

TEST(Options, the_environment_mirrors_options_and_the_option_wins) {
  setenv("BISE_THREADS", "3", 1);
  setenv("BISE_PRECISION", "reference", 1);
  Parsed from_environment = parse({});
  Parsed from_option = parse({"--threads", "5"});
  unsetenv("BISE_THREADS");
  unsetenv("BISE_PRECISION");
  EXPECT_EQ(from_environment.common.threads, 3);
  EXPECT_EQ(from_environment.common.precision, "reference");
  EXPECT_EQ(from_option.common.threads, 5);
  EXPECT_EQ(parse({}).common.threads, 0);
}

TEST(Options, sampling_without_generation_config_is_the_model_cards) {
  auto plain = sampling_params({}, "", false);
  ASSERT_TRUE(plain);
  EXPECT_DOUBLE_EQ(plain->temperature, 0.7);
  EXPECT_DOUBLE_EQ(plain->top_p, 1.0);
  EXPECT_DOUBLE_EQ(sampling_params({}, "", true)->top_p, 0.95);
}

TEST(Options, generation_config_is_over_the_card_and_options_are_over_both) {
  const std::string config =
      R"({"temperature": 0.3, "top_p": 0.8, "top_k": 40, "eos_token_id": 2, "min_p": null})";
  auto from_config = sampling_params({}, config, true);
  ASSERT_TRUE(from_config);
  EXPECT_DOUBLE_EQ(from_config->temperature, 0.3);
  EXPECT_DOUBLE_EQ(from_config->top_p, 0.8);
  EXPECT_EQ(from_config->top_k, 40);
  SamplingOptions options;
  options.temperature = 0.0;
  options.top_k = 5;
  options.seed = 42;
  auto from_options = sampling_params(options, config, true);
  EXPECT_DOUBLE_EQ(from_options->temperature, 0.0);
  EXPECT_EQ(from_options->top_k, 5);
  EXPECT_DOUBLE_EQ(from_options->top_p, 0.8);
  EXPECT_EQ(from_options->seed, 42u);
}

TEST(Options, a_checkpoint_that_forbids_sampling_is_decoded_greedily) {
  EXPECT_DOUBLE_EQ(
      sampling_params({}, R"({"do_sample": false, "temperature": 0.9})", false)->temperature, 0.0);
}

TEST(Options, a_broken_generation_config_is_an_error_with_its_name) {
  for (const char* config : {"{", "[]", R"({"temperature": "hot"})", R"({"top_k": 1.5})"}) {
    auto params = sampling_params({}, config, false);
    ASSERT_FALSE(params) << config;
    EXPECT_NE(params.error().message().find("generation_config.json"), std::string::npos) << config;
  }
}

TEST(Options, drawn_seeds_differ) {
  EXPECT_NE(sampling_params({}, "", false)->seed, sampling_params({}, "", false)->seed);
}

}  // namespace
}  // namespace bise
