#include "app/bench_serve_report.h"

#include <gtest/gtest.h>

namespace bise {
namespace {

ServeSample sample(double start, double ttft, std::vector<double> gaps, int64_t prompt, int64_t output) {
  ServeSample s;
  s.ok = true;
  s.start = start;
  s.ttft = s.latency = ttft;
  for (double gap : gaps) s.latency += gap;
  s.gaps = std::move(gaps);
  s.prompt_tokens = prompt;
  s.output_tokens = output;
  return s;
}

TEST(ServeReport, percentiles_are_those_of_numpy) {
  EXPECT_EQ(percentile_of({}, 99), 0);
  EXPECT_EQ(percentile_of({3}, 99), 3);
  EXPECT_DOUBLE_EQ(percentile_of({4, 1, 3, 2}, 50), 2.5);   // numpy.percentile([1, 2, 3, 4], 50)
  EXPECT_DOUBLE_EQ(percentile_of({4, 1, 3, 2}, 99), 3.97);  // numpy.percentile([1, 2, 3, 4], 99)
  EXPECT_EQ(percentile_of({1, 2}, 100), 2);
}

TEST(ServeReport, counts_only_what_succeeded) {
  std::vector<ServeSample> all = {sample(0, 0.5, {0.1, 0.3}, 10, 3), sample(1, 1.0, {}, 20, 1), ServeSample()};
  ServeReportOptions options;
  options.goodput = {{"ttft", 600}, {"tpot", 200}};
  const Json report = serve_report(all, 2.0, options);
  EXPECT_EQ(report["completed"], 2);
  EXPECT_EQ(report["failed"], 1);
  EXPECT_EQ(report["total_input_tokens"], 30);
  EXPECT_EQ(report["total_output_tokens"], 4);
  EXPECT_EQ(report["request_throughput"], 1.0);
  EXPECT_EQ(report["request_goodput"], 0.5);
  EXPECT_EQ(report["output_throughput"], 2.0);
  EXPECT_EQ(report["total_token_throughput"], 17.0);
  EXPECT_DOUBLE_EQ(report["mean_ttft_ms"].get<double>(), 750);
  EXPECT_DOUBLE_EQ(report["std_ttft_ms"].get<double>(), 250);
  EXPECT_DOUBLE_EQ(report["median_tpot_ms"].get<double>(), 200);  // the answer of one token has none
  EXPECT_DOUBLE_EQ(report["median_itl_ms"].get<double>(), 200);
  EXPECT_TRUE(report.contains("p99_itl_ms"));
  EXPECT_FALSE(report.contains("ttfts"));
}

TEST(ServeReport, finds_the_busiest_second) {
  const Json report = serve_report({sample(0, 0.2, {0.1, 0.1}, 1, 3), sample(0.1, 0.8, {0.5}, 1, 2)}, 1.5, {});
  EXPECT_EQ(report["max_output_tokens_per_s"], 4);  // three and the first of the other
  EXPECT_EQ(report["max_concurrent_requests"], 2);
}

TEST(ServeReport, of_nothing_is_zeros) {
  ServeReportOptions options;
  options.detailed = true;
  const Json report = serve_report({}, 0, options);
  EXPECT_EQ(report["request_throughput"], 0);
  EXPECT_TRUE(report["request_goodput"].is_null());
  EXPECT_TRUE(report["ttfts"].empty());
  EXPECT_NE(serve_report_table(report, options).find("successful requests"), std::string::npos);
}

}  // namespace
}  // namespace bise
