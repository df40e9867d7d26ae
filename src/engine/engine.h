// Engine: token ids in, token ids out. It runs any number of sequences over one Model with one
// loop, step(): decodes of the running ones beside chunks of new prompts, sampling, publishing. It
// knows no text. One thread touches an engine; results do not depend on chunk size or company in a
// batch.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "engine/sampler.h"
#include "engine/sampling_params.h"
#include "engine/sequence.h"
#include "model/model.h"

namespace bise {

struct EngineOptions {
  int64_t context = 0;            // tokens of prompt and answer at most; 0: the model's
  int32_t max_step_tokens = 512;  // prefill chunk: rows of one step
  int32_t max_sequences = 16;     // that run at the same time
  KvDType kv_dtype = KvDType::bf16;
  // Tokens the KV cache holds, over all sequences. 0: grown, while nothing runs, to what the next
  // sequence needs.
  int64_t kv_tokens = 0;
};

struct NewSequence {
  std::vector<int32_t> ids;  // the whole prompt, image tokens expanded
  // In the order of their places: the image tokens of `ids`, in order, take the rows of the images.
  std::vector<ProcessedImage> images;
  SamplingParams params;
};

// What happened to one sequence in one step.
struct SequenceEvent {
  SequenceId sequence = 0;
  int32_t prompt_done = 0, prompt_total = 0;  // tokens; equal once the prompt is in the cache
  std::optional<SampledToken> token;          // a new one; a stop token is published, too
  FinishReason finish = FinishReason::none;   // the last event of a sequence has another value
  std::optional<Error> error;                 // with FinishReason::error
};

struct GenerateCallbacks {
  // Both may be empty; returning false ends the sequence as `cancelled`.
  std::function<bool(const SampledToken&)> on_token;
  std::function<bool(int64_t done, int64_t total)> on_prefill;
};

struct Generated {
  std::vector<int32_t> ids;  // with the stop token, if one came
  FinishReason finish = FinishReason::none;
  int64_t prompt_tokens = 0;
  double prefill_seconds = 0.0;  // to the first token, pictures included
  double decode_seconds = 0.0;   // from there to the last
};

class Engine {
 public:
  // The model must outlive the engine. Error: a context beyond the model's, sizes that make no
  // sense.
  static Result<std::unique_ptr<Engine>> create(const Model& model, const EngineOptions& options);
  ~Engine();

  int64_t context() const;
  uint64_t kv_bytes() const;
  // Bytes of K and V that a decode step of one sequence with this many tokens reads.
  uint64_t kv_step_bytes(int64_t num_tokens) const;

  // Error, before anything runs: a prompt that is empty or does not fit context or cache, unknown
  // ids, images that do not match the image tokens, sampling parameters out of range.
  Result<SequenceId> submit(NewSequence sequence);
  // Ends a sequence; its last event (`cancelled`) comes with the next step. Unknown ids are
  // ignored.
  void cancel(SequenceId id);
  bool idle() const;
  // One step. Its events: at most one per sequence. A failure of the step (memory, device) ends the
  // sequences that were in it, with the Error in their events, and no others.
  std::vector<SequenceEvent> step();

  // One sequence from beginning to end, while nothing else runs.
  Result<Generated> generate(NewSequence sequence, const GenerateCallbacks& callbacks);
  // The logits [vocab_size] after each of `positions` (ascending, of the prompt), without sampling.
  // Returning false stops. While nothing else runs.
  Result<void> score(
      std::vector<int32_t> ids, std::vector<ProcessedImage> images,
      std::span<const int32_t> positions,
      const std::function<bool(int32_t position, std::span<const float>)>& on_logits);

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace bise
