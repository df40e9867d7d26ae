// Sequence: one prompt and its answer while they run: tokens, three counters, block table, sampling
// state. Scheduler and engine share it; nobody else sees it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "engine/engine_stats.h"
#include "engine/image_digest.h"
#include "engine/mask_worker.h"
#include "engine/sampler.h"
#include "engine/sampling_params.h"
#include "model/image.h"
#include "model/model.h"

namespace bise {

using SequenceId = uint64_t;

enum class FinishReason : uint8_t { none, stop, length, cancelled, error };
const char* finish_reason_name(FinishReason reason);

struct SequenceImage {
  // Shared by the sequences of a group.
  std::shared_ptr<const ProcessedImage> image;
  ImageDigest digest{};
  std::vector<int32_t> places;  // index in tokens of each of its rows
  // Made by the step that needs the first of them, dropped when the last is in the cache; made
  // again when a preempted sequence comes back.
  std::shared_ptr<const ImageFeatures> features;
};

struct Sequence {
  SequenceId id = 0;
  SequenceId group = 0;  // the id of the first sequence of its submission
  std::string tenant;
  std::vector<int32_t> tokens;  // prompt, then output
  int32_t prompt_tokens = 0;
  int32_t max_tokens = 0;  // of `tokens`; the answer ends with `length` when it is reached
  // Three counters; every other length is derived. computed + scheduled <= tokens.size().
  int32_t computed = 0;   // tokens whose K and V are in the cache
  int32_t scheduled = 0;  // tokens of the step that is being run
  std::vector<int32_t> block_table;
  // Its first blocks that the prefix cache knows; whole ones only.
  int32_t kept_blocks = 0;
  // Only sequences with the same salt share blocks. Empty: this one shares with nobody.
  std::string salt;
  int32_t cached_tokens = -1;  // of the prompt, found when it was first admitted; -1: not yet
  int32_t passed = 0;          // tokens of those that were admitted in its turn, while it did not fit

  SamplingParams params;
  TokenCounts counts;
  std::vector<SequenceImage> images;
  std::shared_ptr<MaskJob> mask;  // shared with the worker alone
  bool prompt_only = false;  // ends where its first token would be drawn
  // Tokens of the prompt whose log-probabilities are known and published; the first has none.
  int32_t prompt_logprobs = 1;
  SequenceTimes times;

  int32_t total() const { return static_cast<int32_t>(tokens.size()); }
  int32_t remaining() const { return total() - computed; }
  int32_t num_output() const { return total() - prompt_tokens; }
  // Whether the running step ends with a row whose logits give the next token.
  bool samples() const { return scheduled > 0 && computed + scheduled == total(); }
};

}  // namespace bise
