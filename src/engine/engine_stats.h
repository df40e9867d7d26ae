// Numbers about a running engine, for metrics and health. Plain values, copied out whole.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace bise {

using EngineClock = std::chrono::steady_clock;

// Counts of durations by upper bound, in the way of Prometheus but not cumulative.
struct DurationHistogram {
  static constexpr std::array<double, 16> kBounds = {
      0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60};  // s
  std::array<uint64_t, kBounds.size() + 1> counts{};  // counts[i]: <= kBounds[i]; last: the rest
  uint64_t count = 0;
  double sum = 0.0;  // s

  void add(double seconds) {
    size_t i = 0;
    while (i < kBounds.size() && seconds > kBounds[i]) ++i;
    ++counts[i], ++count;
    sum += seconds;
  }
};

// When things happened to one sequence; the epoch (a default time_point) where they have not yet.
struct SequenceTimes {
  EngineClock::time_point submitted;
  EngineClock::time_point admitted;  // first in a step; before that it waited
  EngineClock::time_point first_token;
  EngineClock::time_point last_token;
};

struct EngineStats {
  // Now. Every block is one of used, cached, free.
  int32_t running = 0, waiting = 0, paused = 0;  // sequences
  int64_t waiting_tokens = 0;                    // of their prompts
  int32_t total_blocks = 0;
  int32_t used_blocks = 0;    // of sequences
  int32_t cached_blocks = 0;  // of no sequence, but with contents that may be asked for again
  int32_t free_blocks = 0;
  int32_t block_tokens = 0;  // tokens in a block
  // The measured cost of the next steps, s; 0 while nothing was measured.
  double decode_step_seconds = 0.0;    // with the sequences that run now, without prompts
  double step_bound_seconds = 0.0;     // of a step with decodes; 0: no bound
  double prefill_token_seconds = 0.0;  // what one more token of a prompt adds to such a step

  // Since the start.
  uint64_t steps = 0, failed_steps = 0;
  uint64_t failed_in_a_row = 0;   // of the last steps
  uint64_t preemptions = 0;       // for want of blocks
  uint64_t fair_preemptions = 0;  // for another tenant's turn
  uint64_t prompt_tokens = 0;     // computed, again after a preemption
  uint64_t generated_tokens = 0;
  uint64_t prefix_queried_tokens = 0, prefix_hit_tokens = 0;
  uint64_t evicted_blocks = 0;
  uint64_t encoded_images = 0;
  std::array<uint64_t, 5> finished{};  // sequences, by FinishReason
  DurationHistogram step_seconds;      // all of a step
  DurationHistogram forward_seconds;   // the model's part of it
  DurationHistogram queue_seconds;     // of a sequence, submitted to admitted
};

}  // namespace bise
