// What an Engine is made of; seen by engine.cpp (its life and conveniences), engine_submit.cpp (the
// way in) and engine_step.cpp (one step) only.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "engine/block_manager.h"
#include "engine/engine.h"
#include "engine/mask_worker.h"
#include "engine/scheduler.h"

namespace bise {

inline double seconds_between(EngineClock::time_point start, EngineClock::time_point end) {
  return std::chrono::duration<double>(end - start).count();
}

// A row of logits and what is to be made of it: the log-probability of a token of the prompt, or a
// draw. Rows are independent of each other, so that threads share them.
struct RowRead {
  const Sequence* sequence = nullptr;
  int32_t prompt_token = -1;  // index in the sequence; -1: draw the next
  DrawLimits limits;
  std::span<float> logits;
  std::optional<Result<SampledToken>> token;
};

struct Engine::State {
  const Model& model;
  EngineOptions options;
  int64_t context = 0;

  std::optional<KvCache> cache;
  std::optional<BlockManager> blocks;
  std::optional<Scheduler> scheduler;
  mutable std::atomic<SequenceId> last_id{0};
  std::vector<SequenceEvent> ended;  // outside of a step; to be published by the next one
  EngineStats counters;              // the part "since the start"

  Buffer logits_memory;
  std::span<float> logits;  // [rows, vocab_size] of the last forward
  MaskWorker masks;
  const DigestKey digest_key = DigestKey::random();

  explicit State(const Model& m) : model(m) {}

  int32_t vocab_size() const { return model.config().vocab_size; }
  bool has_sequences() const { return scheduler && !scheduler->empty(); }
  int64_t kv_tokens() const { return cache ? int64_t{cache->num_blocks()} * kKvBlockSize : 0; }
  // Rows of logits of one step; they are the largest memory beside weights and cache.
  int32_t max_logits_rows() const;

  // engine_submit.cpp
  Result<void> allocate_cache(int64_t num_tokens);
  Result<void> make_room(int64_t num_tokens);
  Result<std::unique_ptr<Sequence>> make_sequence(std::vector<int32_t> ids,
                                                  std::vector<ProcessedImage> images) const;
  Error no_room(int64_t num_tokens, int64_t kv_tokens) const;

  // engine_step.cpp
  Result<void> encode_images(Sequence& sequence);
  std::shared_ptr<const ImageFeatures> find_features(const SequenceImage& image) const;
  Result<void> forward(const Batch& batch);
  void drop_features(Sequence& sequence) const;
  SequenceEvent event_of(const Sequence& sequence) const;
  SequenceEvent end(Sequence& sequence, FinishReason reason);
  SequenceEvent fail(Sequence& sequence, const Error& error);
  void add_logits_rows(const Sequence& sequence, Batch& batch) const;
  void read_rows(std::span<RowRead> rows);
  SequenceEvent advance(Sequence& sequence, std::span<RowRead> rows);
  Result<void> append(Sequence& sequence, SampledToken token, SequenceEvent& event);
};

}  // namespace bise
