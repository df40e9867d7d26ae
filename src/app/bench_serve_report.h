// What `bise bench serve` measured, in the words and JSON names of `vllm bench serve`, so that tables of
// both can be laid side by side. All quantities are defined as there: a chunk is an event with a choice
// in it; the first one ends the time to first token, the gaps between them are inter-token latencies.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/json.h"

namespace bise {

// Of one request. Times in seconds; `start` since the first request was due.
struct ServeSample {
  bool ok = false;
  std::string error;                       // when not ok
  double start = 0, queue_seconds = 0;     // queue: due, but held back by --max-concurrency
  double ttft = 0, latency = 0;            // to the first chunk, to the last
  std::vector<double> gaps;                // between chunks
  int64_t prompt_tokens = 0, output_tokens = 0;
  std::string text;
};

struct ServeReportOptions {
  std::vector<std::string> metrics = {"ttft", "tpot", "itl"};  // and e2el
  std::vector<double> percentiles = {99};
  std::map<std::string, double> goodput;  // ttft, tpot, e2el: at most so many ms
  bool detailed = false;                  // with the lists of every request
};

// Percentile with linear interpolation; 0 without values.
double percentile_of(std::vector<double> values, double percent);

Json serve_report(const std::vector<ServeSample>& samples, double duration, const ServeReportOptions& options);
// The table that a person reads.
std::string serve_report_table(const Json& report, const ServeReportOptions& options);

}  // namespace bise
