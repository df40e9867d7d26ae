#include "app/bench_serve_report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "app/text_format.h"

namespace bise {
namespace {

constexpr double kMs = 1e3;

double mean_of(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation_of(const std::vector<double>& values) {
  const double mean = mean_of(values);
  double sum = 0;
  for (double value : values) sum += (value - mean) * (value - mean);
  return values.empty() ? 0 : std::sqrt(sum / static_cast<double>(values.size()));
}

double tpot_of(const ServeSample& sample) {
  if (sample.output_tokens <= 1) return 0;
  return (sample.latency - sample.ttft) / static_cast<double>(sample.output_tokens - 1);
}

// "99" of 99, "99.9" of 99.9.
std::string percent_name(double percent) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", percent);
  return text;
}

bool meets(const ServeSample& sample, const std::map<std::string, double>& goodput) {
  for (const auto& [name, most_ms] : goodput) {
    const double seconds = name == "ttft" ? sample.ttft : name == "tpot" ? tpot_of(sample) : sample.latency;
    if (seconds * kMs > most_ms) return false;
  }
  return true;
}

// Most requests at work in one whole second, and most chunks that came in one.
struct Peaks {
  double tokens_per_s = 0;
  int64_t requests = 0;
};
Peaks peaks_of(const std::vector<ServeSample>& samples, double duration) {
  const auto seconds = static_cast<size_t>(std::max(duration, 0.0)) + 1;
  std::vector<int64_t> tokens(seconds), requests(seconds);
  auto second_of = [&](double time) { return std::min(static_cast<size_t>(std::max(time, 0.0)), seconds - 1); };
  for (const ServeSample& sample : samples) {
    if (!sample.ok) continue;
    double at = sample.start + sample.ttft;
    ++tokens[second_of(at)];
    for (double gap : sample.gaps) ++tokens[second_of(at += gap)];
    for (size_t s = second_of(sample.start); s <= second_of(sample.start + sample.latency); ++s) ++requests[s];
  }
  return {static_cast<double>(*std::max_element(tokens.begin(), tokens.end())), *std::max_element(requests.begin(), requests.end())};
}

void add_metric(Json& report, const std::string& name, const std::vector<double>& seconds, const std::vector<double>& percentiles) {
  report["mean_" + name + "_ms"] = mean_of(seconds) * kMs;
  report["median_" + name + "_ms"] = percentile_of(seconds, 50) * kMs;
  report["std_" + name + "_ms"] = deviation_of(seconds) * kMs;
  for (double percent : percentiles) report["p" + percent_name(percent) + "_" + name + "_ms"] = percentile_of(seconds, percent) * kMs;
}

}  // namespace

double percentile_of(std::vector<double> values, double percent) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const double place = percent / 100 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(place);
  if (below + 1 >= values.size()) return values.back();
  return values[below] + (values[below + 1] - values[below]) * (place - static_cast<double>(below));
}

Json serve_report(const std::vector<ServeSample>& samples, double duration, const ServeReportOptions& options) {
  int64_t completed = 0, failed = 0, good = 0, input = 0, output = 0;
  std::vector<double> ttft, tpot, itl, e2el;
  for (const ServeSample& sample : samples) {
    if (!sample.ok) {
      ++failed;
      continue;
    }
    ++completed;
    input += sample.prompt_tokens;
    output += sample.output_tokens;
    good += meets(sample, options.goodput);
    ttft.push_back(sample.ttft);
    e2el.push_back(sample.latency);
    if (sample.output_tokens > 1) tpot.push_back(tpot_of(sample));
    itl.insert(itl.end(), sample.gaps.begin(), sample.gaps.end());
  }
  auto rate = [duration](int64_t count) { return duration > 0 ? static_cast<double>(count) / duration : 0; };
  Json report;
  report["duration"] = duration;
  report["completed"] = completed;
  report["failed"] = failed;
  report["total_input_tokens"] = input;
  report["total_output_tokens"] = output;
  report["request_throughput"] = rate(completed);
  report["request_goodput"] = options.goodput.empty() ? Json() : Json(rate(good));
  report["output_throughput"] = rate(output);
  report["total_token_throughput"] = rate(input + output);
  const Peaks peaks = peaks_of(samples, duration);
  report["max_output_tokens_per_s"] = peaks.tokens_per_s;
  report["max_concurrent_requests"] = peaks.requests;
  for (const std::string& name : options.metrics) {
    add_metric(report, name, name == "ttft" ? ttft : name == "tpot" ? tpot : name == "itl" ? itl : e2el, options.percentiles);
  }
  if (!options.detailed) return report;
  for (const char* name : {"input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "generated_texts", "errors"}) {
    report[name] = Json::array();
  }
  for (const ServeSample& sample : samples) {
    report["input_lens"].push_back(sample.prompt_tokens);
    report["output_lens"].push_back(sample.output_tokens);
    report["ttfts"].push_back(sample.ttft);
    report["itls"].push_back(sample.gaps);
    report["latencies"].push_back(sample.latency);
    report["start_times"].push_back(sample.start);
    report["queue_times"].push_back(sample.queue_seconds);
    report["generated_texts"].push_back(sample.text);
    report["errors"].push_back(sample.error);
  }
  return report;
}

std::string serve_report_table(const Json& report, const ServeReportOptions& options) {
  std::string out;
  auto line = [&out](const std::string& title, const std::string& value) {
    char text[128];
    std::snprintf(text, sizeof text, "%-42s%12s\n", title.c_str(), value.c_str());
    out += text;
  };
  auto number = [&](const std::string& title, const std::string& field, int decimals) {
    const Json& value = report.at(field);
    line(title, value.is_null() ? "-" : format_fixed(value.get<double>(), decimals));
  };
  number("successful requests", "completed", 0);
  number("failed requests", "failed", 0);
  number("duration (s)", "duration", 2);
  number("input tokens", "total_input_tokens", 0);
  number("output tokens", "total_output_tokens", 0);
  number("requests/s", "request_throughput", 2);
  if (!options.goodput.empty()) number("requests/s within the goals (goodput)", "request_goodput", 2);
  number("output tokens/s", "output_throughput", 2);
  number("most output tokens in one second", "max_output_tokens_per_s", 0);
  number("most requests at the same time", "max_concurrent_requests", 0);
  number("input and output tokens/s", "total_token_throughput", 2);
  const std::map<std::string, std::string> titles = {
      {"ttft", "time to first token"}, {"tpot", "time per output token after it"}, {"itl", "between tokens"}, {"e2el", "whole answer"}};
  for (const std::string& name : options.metrics) {
    const std::string& title = titles.at(name);
    number(title + ", mean (ms)", "mean_" + name + "_ms", 2);
    number(title + ", median (ms)", "median_" + name + "_ms", 2);
    for (double percent : options.percentiles) {
      number(title + ", P" + percent_name(percent) + " (ms)", "p" + percent_name(percent) + "_" + name + "_ms", 2);
    }
  }
  return out;
}

}  // namespace bise
