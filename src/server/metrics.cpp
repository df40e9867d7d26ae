#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace bise {
namespace {

using Buckets = prometheus::Histogram::BucketBoundaries;
using Labels = std::map<std::string, std::string>;

// vLLM's bounds, so that its dashboards fit.
const Buckets kFirstToken = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                             1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
const Buckets kTokenGap = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0};
const Buckets kPhase = {0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
                        120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
const Buckets kTokens = {1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000, 200000};

double seconds_between(EngineClock::time_point from, EngineClock::time_point to) {
  if (from == EngineClock::time_point{} || to < from) return 0;
  return std::chrono::duration<double>(to - from).count();
}

prometheus::MetricFamily single(const Labels& labels, const char* name, const char* help, prometheus::MetricType type,
                                double value) {
  prometheus::MetricFamily family{name, help, type, {}};
  prometheus::ClientMetric metric;
  for (const auto& [key, text] : labels) metric.label.push_back({key, text});
  if (type == prometheus::MetricType::Counter) metric.counter.value = value;
  else metric.gauge.value = value;
  family.metric.push_back(std::move(metric));
  return family;
}

prometheus::MetricFamily durations(const Labels& labels, const char* name, const char* help, const DurationHistogram& all) {
  prometheus::MetricFamily family{name, help, prometheus::MetricType::Histogram, {}};
  prometheus::ClientMetric metric;
  for (const auto& [key, text] : labels) metric.label.push_back({key, text});
  metric.histogram.sample_count = all.count;
  metric.histogram.sample_sum = all.sum;
  uint64_t below = 0;
  for (size_t i = 0; i < all.counts.size(); ++i) {
    below += all.counts[i];
    const double bound = i < DurationHistogram::kBounds.size() ? DurationHistogram::kBounds[i] : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back({below, bound});
  }
  family.metric.push_back(std::move(metric));
  return family;
}

}  // namespace

struct ServerMetrics::State {
  Labels labels;
  prometheus::Registry registry;
  prometheus::Histogram *first_token, *token_gap, *per_token, *whole, *queue, *inference, *prefill, *decode, *prompt_tokens,
      *generated_tokens;
  prometheus::Family<prometheus::Counter>* success;
  prometheus::Family<prometheus::Counter>* answers;
  prometheus::Histogram* mask;

  prometheus::Histogram* histogram(const char* name, const char* help, const Buckets& buckets) {
    return &prometheus::BuildHistogram().Name(name).Help(help).Labels(labels).Register(registry).Add({}, buckets);
  }
};

ServerMetrics::ServerMetrics(const std::string& model_name) : state_(std::make_unique<State>()) {
  State& s = *state_;
  s.labels = {{"model_name", model_name}, {"engine", "0"}};
  s.first_token = s.histogram("vllm:time_to_first_token_seconds", "arrival to first token", kFirstToken);
  s.token_gap = s.histogram("vllm:inter_token_latency_seconds", "between two tokens of a sequence", kTokenGap);
  s.per_token = s.histogram("vllm:request_time_per_output_token_seconds", "mean of a request", kTokenGap);
  s.whole = s.histogram("vllm:e2e_request_latency_seconds", "arrival to last token", kPhase);
  s.queue = s.histogram("vllm:request_queue_time_seconds", "arrival to the first step", kPhase);
  s.inference = s.histogram("vllm:request_inference_time_seconds", "first step to last token", kPhase);
  s.prefill = s.histogram("vllm:request_prefill_time_seconds", "first step to first token", kPhase);
  s.decode = s.histogram("vllm:request_decode_time_seconds", "first token to last token", kPhase);
  s.prompt_tokens = s.histogram("vllm:request_prompt_tokens", "tokens of a prompt", kTokens);
  s.generated_tokens = s.histogram("vllm:request_generation_tokens", "tokens of an answer", kTokens);
  s.success = &prometheus::BuildCounter().Name("vllm:request_success_total").Help("answers by finish reason").Labels(s.labels).Register(s.registry);
  s.answers = &prometheus::BuildCounter().Name("bise_http_responses_total").Help("HTTP answers by status").Register(s.registry);
  s.mask = s.histogram("bise_mask_seconds", "one token mask of structured output",
                       {0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.1});
}

ServerMetrics::~ServerMetrics() = default;

void ServerMetrics::first_token(const SequenceTimes& times) {
  state_->first_token->Observe(seconds_between(times.submitted, times.first_token));
}

void ServerMetrics::next_token(EngineClock::time_point before, EngineClock::time_point now) {
  state_->token_gap->Observe(seconds_between(before, now));
}

void ServerMetrics::sequence_ended(const std::string& reason, const SequenceTimes& times, size_t prompt_tokens, int32_t tokens) {
  State& s = *state_;
  s.success->Add({{"finished_reason", reason}}).Increment();
  if (times.first_token == EngineClock::time_point{}) return;
  s.whole->Observe(seconds_between(times.submitted, times.last_token));
  s.queue->Observe(seconds_between(times.submitted, times.admitted));
  s.inference->Observe(seconds_between(times.admitted, times.last_token));
  s.prefill->Observe(seconds_between(times.admitted, times.first_token));
  s.decode->Observe(seconds_between(times.first_token, times.last_token));
  s.prompt_tokens->Observe(static_cast<double>(prompt_tokens));
  s.generated_tokens->Observe(tokens);
  if (tokens > 1) s.per_token->Observe(seconds_between(times.first_token, times.last_token) / (tokens - 1));
}

void ServerMetrics::http_answer(int status) {
  state_->answers->Add({{"status", std::to_string(status)}}).Increment();
}

void ServerMetrics::mask_seconds(double seconds) { state_->mask->Observe(seconds); }

std::string ServerMetrics::text(const EngineStats& engine, const HttpServerStats& http) const {
  using Type = prometheus::MetricType;
  const Labels& labels = state_->labels;
  std::vector<prometheus::MetricFamily> families = state_->registry.Collect();
  auto gauge = [&](const char* name, const char* help, double value) { families.push_back(single(labels, name, help, Type::Gauge, value)); };
  auto counter = [&](const char* name, const char* help, uint64_t value) {
    families.push_back(single(labels, name, help, Type::Counter, static_cast<double>(value)));
  };
  gauge("vllm:num_requests_running", "sequences in the current batch", engine.running);
  gauge("vllm:num_requests_waiting", "sequences that wait for their first step", engine.waiting);
  const double total = engine.total_blocks;
  gauge("vllm:kv_cache_usage_perc", "share of the KV cache in use, 0 to 1", total > 0 ? engine.used_blocks / total : 0);
  counter("vllm:prompt_tokens_total", "prompt tokens computed", engine.prompt_tokens);
  counter("vllm:generation_tokens_total", "tokens generated", engine.generated_tokens);
  counter("vllm:num_preemptions_total", "sequences that gave their blocks back", engine.preemptions + engine.fair_preemptions);
  counter("vllm:prefix_cache_queries_total", "prompt tokens looked up", engine.prefix_queried_tokens);
  counter("vllm:prefix_cache_hits_total", "prompt tokens found", engine.prefix_hit_tokens);
  gauge("bise_requests_paused", "sequences whose reader does not keep up", engine.paused);
  gauge("bise_waiting_prompt_tokens", "tokens of the prompts that wait", static_cast<double>(engine.waiting_tokens));
  gauge("bise_kv_blocks", "blocks of the KV cache", engine.total_blocks);
  gauge("bise_kv_blocks_cached", "blocks kept for prompts to come", engine.cached_blocks);
  counter("bise_steps_total", "steps of the engine", engine.steps);
  counter("bise_failed_steps_total", "steps that failed", engine.failed_steps);
  counter("bise_evicted_blocks_total", "cached blocks given to others", engine.evicted_blocks);
  counter("bise_encoded_images_total", "pictures through the vision tower", engine.encoded_images);
  families.push_back(durations(labels, "bise_step_seconds", "a step of the engine", engine.step_seconds));
  families.push_back(durations(labels, "bise_forward_seconds", "the model's part of a step", engine.forward_seconds));
  gauge("bise_http_connections", "open connections", http.connections);
  gauge("bise_http_active_requests", "requests being answered", http.active_requests);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace bise
