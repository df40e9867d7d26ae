#include "engine/engine.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "engine/batch_builder.h"
#include "engine/engine_state.h"

namespace bise {
namespace {

// Rows of logits that score() asks for at once: 64 rows of a vocabulary of 131,072 are 32 MiB.
constexpr int32_t kMaxScoreRows = 64;

double seconds_since(EngineClock::time_point start) {
  return seconds_between(start, EngineClock::now());
}

Error invalid(const char* option, const std::string& value, const std::string& allowed) {
  return Error(ErrorCode::invalid_argument,
               std::string(option) + " is " + value + "; it must be " + allowed)
      .with_param(option);
}
Error invalid(const char* option, int64_t value, const std::string& allowed) {
  return invalid(option, std::to_string(value), allowed);
}

}  // namespace

// --- life -------------------------------------------------------------------------------------------

Result<std::unique_ptr<Engine>> Engine::create(const Model& model, const EngineOptions& options) {
  const int64_t model_context = model.config().context_length;
  if (options.context < 0 || options.context > model_context) {
    return invalid("context", options.context,
                   "from 1 to the model's " + std::to_string(model_context) + ", or 0 for that");
  }
  if (options.max_step_tokens < 1) {
    return invalid("max-num-batched-tokens", options.max_step_tokens, "1 or more");
  }
  if (options.max_sequences < 1) return invalid("max-num-seqs", options.max_sequences, "1 or more");
  if (options.max_waiting < 1) return invalid("max-waiting", options.max_waiting, "1 or more");
  if (options.max_waiting_per_tenant < 0) {
    return invalid("max-waiting-per-tenant", options.max_waiting_per_tenant,
                   "1 or more, or 0 for no limit of its own");
  }
  if (options.fair_quantum < 1) return invalid("fair-quantum", options.fair_quantum, "1 or more");
  if (!(options.max_step_ms >= 0.0 && std::isfinite(options.max_step_ms))) {
    return invalid("max-step-ms", std::to_string(options.max_step_ms),
                   "above 0, or 0 for no bound");
  }
  const double stretch = options.max_step_stretch;
  if (!(stretch == 0.0 || (stretch > 1.0 && std::isfinite(stretch)))) {
    return invalid("max-step-stretch", std::to_string(stretch), "above 1, or 0 for no bound");
  }
  constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max() - kKvBlockSize;
  if (options.kv_tokens < 0 || options.kv_tokens > kMaxTokens) {
    return invalid("kv-tokens", options.kv_tokens,
                   "from 1 to " + std::to_string(kMaxTokens) + ", or 0 for as needed");
  }
  auto state = std::make_unique<State>(model);
  state->options = options;
  state->options.max_sequences = std::min(options.max_sequences, options.max_step_tokens);
  // Reference precision means the whole way.
  if (model.backend().precision() == Precision::reference) {
    state->options.kv_dtype = KvDType::f32;
  }
  state->context = std::min(options.context > 0 ? options.context : model_context, kMaxTokens);
  if (options.kv_tokens > 0) TRY(state->allocate_cache(options.kv_tokens));
  return std::unique_ptr<Engine>(new Engine(std::move(state)));
}

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::~Engine() = default;

const EngineOptions& Engine::options() const { return state_->options; }
int64_t Engine::context() const { return state_->context; }
int64_t Engine::kv_tokens() const { return state_->kv_tokens(); }
uint64_t Engine::kv_bytes() const { return state_->cache ? state_->cache->bytes() : 0; }
uint64_t Engine::kv_step_bytes(int64_t num_tokens) const {
  return static_cast<uint64_t>(num_tokens) *
         KvCache::bytes_per_token(state_->model.config(), state_->options.kv_dtype);
}

bool Engine::idle() const {
  return state_->ended.empty() && !(state_->scheduler && state_->scheduler->has_work());
}

void Engine::check() const {
  if (state_->scheduler) state_->scheduler->check();
}

EngineStats Engine::stats() const {
  const State& s = *state_;
  EngineStats stats = s.counters;
  stats.block_tokens = kKvBlockSize;
  if (s.scheduler) s.scheduler->add_stats(stats);
  return stats;
}

// --- sequences that end or pause outside of a step ---------------------------------------------------

void Engine::cancel(SequenceId id) {
  State& s = *state_;
  Sequence* sequence = s.scheduler ? s.scheduler->find(id) : nullptr;
  if (sequence) s.ended.push_back(s.end(*sequence, FinishReason::cancelled));
}

void Engine::fail_all(const Error& error) {
  State& s = *state_;
  if (!s.scheduler) return;
  for (Sequence* sequence : s.scheduler->all()) s.ended.push_back(s.fail(*sequence, error));
}

void Engine::pause(SequenceId id) {
  if (state_->scheduler) state_->scheduler->pause(id);
}
void Engine::resume(SequenceId id) {
  if (state_->scheduler) state_->scheduler->resume(id);
}

// --- conveniences -----------------------------------------------------------------------------------

Result<Generated> Engine::generate(NewSequence input, const GenerateCallbacks& callbacks) {
  CHECK(idle());
  const EngineClock::time_point start = EngineClock::now();
  Generated result;
  result.prompt_tokens = static_cast<int64_t>(input.ids.size());
  const SequenceId id = TRY(submit(std::move(input)));
  while (result.finish == FinishReason::none) {
    for (SequenceEvent& event : step()) {
      if (event.sequence != id) continue;
      result.finish = event.finish;
      result.cached_tokens = event.cached_tokens;
      if (event.error) return std::move(*event.error);
      bool go_on = true;
      if (result.ids.empty() && callbacks.on_prefill) {
        go_on = callbacks.on_prefill(event.prompt_done, event.prompt_total);
      }
      if (event.token) {
        double seconds = seconds_since(start);
        if (result.ids.empty()) result.prefill_seconds = seconds;
        result.decode_seconds = seconds - result.prefill_seconds;
        result.ids.push_back(event.token->id);
        if (callbacks.on_token) go_on = callbacks.on_token(*event.token) && go_on;
      }
      if (!go_on && event.finish == FinishReason::none) cancel(id);
    }
  }
  return result;
}

Result<void> Engine::score(
    std::vector<int32_t> ids, std::vector<ProcessedImage> images,
    std::span<const int32_t> positions,
    const std::function<bool(int32_t position, std::span<const float>)>& on_logits) {
  CHECK(idle());
  State& s = *state_;
  auto sequence = TRY(s.make_sequence(std::move(ids), std::move(images)));
  for (size_t i = 0; i < positions.size(); ++i) {
    if (positions[i] < 0 || positions[i] >= sequence->total() ||
        (i > 0 && positions[i] <= positions[i - 1])) {
      return Error(ErrorCode::invalid_argument, "position " + std::to_string(positions[i]) +
                                                    "; positions must be ascending and from 0 to " +
                                                    std::to_string(sequence->total() - 1));
    }
  }
  if (positions.empty()) return {};
  const int32_t end = positions.back() + 1;  // nothing after it can matter
  TRY(s.make_room(end));
  // The blocks go back whichever way this ends.
  struct Blocks {
    BlockManager& manager;
    std::vector<int32_t>& table;
    ~Blocks() { manager.release(table); }
  } blocks{*s.blocks, sequence->block_table};
  CHECK(s.blocks->grow(sequence->block_table,
                       static_cast<int32_t>(ceil_div(static_cast<uint64_t>(end), kKvBlockSize))));

  size_t next = 0;  // of positions
  while (sequence->computed < end) {
    int32_t last = std::min(end, sequence->computed + s.options.max_step_tokens);
    size_t past = next + kMaxScoreRows;
    if (past < positions.size()) last = std::min(last, positions[past]);
    sequence->scheduled = last - sequence->computed;
    TRY(s.encode_images(*sequence));
    Batch batch;
    append_rows(*sequence, kKvBlockSize, batch);
    const size_t first = next;
    for (; next < positions.size() && positions[next] < last; ++next) {
      batch.logits_rows.push_back(positions[next] - sequence->computed);
    }
    TRY(s.forward(batch));
    size_t columns = static_cast<size_t>(s.vocab_size());
    for (size_t i = first; i < next; ++i) {
      std::span<const float> row = s.logits.subspan((i - first) * columns, columns);
      if (!on_logits(positions[i], row)) return {};
    }
    sequence->computed = last;
    sequence->scheduled = 0;
    s.drop_features(*sequence);
  }
  return {};
}

}  // namespace bise
