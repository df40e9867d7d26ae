// Engine: token ids in, token ids out. It runs any number of sequences over one Model with one
// loop, step(): decodes of the running ones beside chunks of new prompts, sampling, publishing. It
// knows no text. What a sequence is given does not depend on chunk size, company in a batch,
// preemption or what the prefix cache holds: same ids, same parameters, same tokens, bit for bit.
//
// One thread touches an engine, but for prepare(). EngineThread runs one for many.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/engine_stats.h"
#include "engine/sampler.h"
#include "engine/sampling_params.h"
#include "engine/sequence.h"
#include "engine/token_mask.h"
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
  // Keep the blocks of sequences that ended, for prompts that begin alike, until others need them.
  bool prefix_cache = true;
  // How long a step may take while sequences decode: prompts are then read in chunks of the size
  // that fits, by the measured cost of their tokens (and in whole chunks when nothing decodes).
  // Either in milliseconds, or in times of what the decodes alone take. 0: no bound; with both the
  // first holds.
  double max_step_ms = 0.0;
  double max_step_stretch = 0.0;  // 0, or above 1
  // Sequences that wait for their first step; beyond that submit() says `busy`.
  int32_t max_waiting = 1024;
  int32_t max_waiting_per_tenant = 0;  // 0: no limit of its own
  int32_t fair_quantum = 4096;         // tokens of prompts a tenant may have read before the next's turn
  // Tokens never depend on company or time; with this the plan of steps does not depend on the
  // clock either (max_step_ms and max_step_stretch are not used), so that a run repeats step by step.
  bool deterministic = false;
  bool check_every_step = false;  // integrity after every step; without it when idle. For tests
};

struct NewSequence {
  std::vector<int32_t> ids;  // the whole prompt, image tokens expanded
  // In the order of their places: the image tokens of `ids`, in order, take the rows of the images.
  std::vector<ProcessedImage> images;
  SamplingParams params;
  std::string tenant;        // whose share of the machine it uses: those of an API key, say
  std::string cache_salt;    // only sequences with the same salt share blocks of the prefix cache
  TokenMaskFactory make_mask;
  // Ends with `length` where the first token would be drawn; for log-probabilities of the prompt.
  // params.max_tokens is not looked at, and the prompt may fill the context.
  bool prompt_only = false;
};

// What happened to one sequence in one step.
struct SequenceEvent {
  SequenceId sequence = 0;
  int32_t index = 0;                          // in its group, from 0
  int32_t prompt_done = 0, prompt_total = 0;  // tokens; equal once the prompt is in the cache
  // Of the prompt: found in the prefix cache when it was first scheduled.
  int32_t cached_tokens = 0;
  // With num_prompt_logprobs: of the tokens of the prompt from prompt_logprobs_first on. Over all
  // events of the sequence they are those of tokens 1, 2, …, each once.
  int32_t prompt_logprobs_first = 0;
  std::vector<SampledToken> prompt_logprobs;
  std::optional<SampledToken> token;         // a new one; a stop token is published, too
  FinishReason finish = FinishReason::none;  // the last event of a sequence has another value
  std::optional<Error> error;                // with FinishReason::error
  SequenceTimes times;
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
  int64_t cached_tokens = 0;     // of the prompt, that the prefix cache held
  double prefill_seconds = 0.0;  // to the first token, pictures included
  double decode_seconds = 0.0;   // from there to the last
};

// Sequences that were checked and may be added; made by Engine::prepare.
struct PreparedGroup {
  std::vector<std::unique_ptr<Sequence>> sequences;  // with consecutive ids
};

class Engine {
 public:
  // The model must outlive the engine. Error: a context beyond the model's, sizes that make no
  // sense.
  static Result<std::unique_ptr<Engine>> create(const Model& model, const EngineOptions& options);
  ~Engine();

  const EngineOptions& options() const;
  int64_t context() const;
  // Tokens the KV cache holds now.
  int64_t kv_tokens() const;
  uint64_t kv_bytes() const;
  // Bytes of K and V that a decode step of one sequence with this many tokens reads.
  uint64_t kv_step_bytes(int64_t num_tokens) const;

  // Error, before anything runs: a prompt that is empty or does not fit context or cache, unknown
  // ids, images that do not match the image tokens, sampling parameters out of range; `busy` when
  // the queue is full.
  Result<SequenceId> submit(NewSequence sequence);
  // `n` answers (1 to 128) to one prompt, whose whole blocks they share. They draw with seeds made
  // of params.seed and their index; the first with params.seed itself.
  Result<std::vector<SequenceId>> submit_group(NewSequence sequence, int32_t n);

  // The two halves of submit_group. prepare() may be called from any thread while others work; it
  // has the checks that take time, and all but that for a full queue.
  Result<PreparedGroup> prepare(NewSequence sequence, int32_t n) const;
  Result<void> add(PreparedGroup group);

  // Ends a sequence; its last event (`cancelled`) comes with the next step. Unknown ids are
  // ignored.
  void cancel(SequenceId id);
  // Sets a sequence aside, for a reader that does not keep up: it gives its place and blocks to
  // others and gets no more tokens until resume(). Unknown ids are ignored.
  void pause(SequenceId id);
  void resume(SequenceId id);
  // Ends all sequences with this error; their events come with the next step.
  void fail_all(const Error& error);

  // Nothing to do: no events to publish and no sequence, or all are paused.
  bool idle() const;
  // One step. Its events: at most one per sequence. A failure of the step (memory, device) ends the
  // sequences that were in it, with the Error in their events, and no others.
  std::vector<SequenceEvent> step();

  EngineStats stats() const;
  // CHECKs counters, tables and blocks of all sequences and the prefix cache: free + cached + used
  // is the whole. Costs time in proportion to the KV cache's blocks.
  void check() const;

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
