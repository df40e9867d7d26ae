#include "engine/engine.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <utility>

#include "engine/batch_builder.h"
#include "engine/block_manager.h"
#include "engine/scheduler.h"

namespace bise {
namespace {

// Rows of logits that score() asks for at once: 64 rows of a vocabulary of 131,072 are 32 MiB.
constexpr int32_t kMaxScoreRows = 64;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

Error invalid(const char* option, int64_t value, const std::string& allowed) {
  return Error(ErrorCode::invalid_argument,
               std::string(option) + " is " + std::to_string(value) + "; it must be " + allowed)
      .with_param(option);
}

}  // namespace

struct Engine::State {
  const Model& model;
  EngineOptions options;
  int64_t context = 0;

  std::optional<KvCache> cache;
  std::optional<BlockManager> blocks;
  std::optional<Scheduler> scheduler;
  SequenceId last_id = 0;
  std::vector<SequenceEvent> cancelled;  // to be published by the next step

  Buffer logits_memory;
  std::vector<float> logits;

  explicit State(const Model& m) : model(m) {}

  int32_t vocab_size() const { return model.config().vocab_size; }
  bool idle() const { return !scheduler || scheduler->empty(); }
  int64_t kv_tokens() const { return cache ? int64_t{cache->num_blocks()} * kKvBlockSize : 0; }

  Result<void> allocate_cache(int64_t num_tokens);
  Result<void> make_room(int64_t num_tokens);
  Result<std::unique_ptr<Sequence>> make_sequence(std::vector<int32_t> ids,
                                                  std::vector<ProcessedImage> images) const;
  Result<void> encode_images(Sequence& sequence) const;
  Result<void> forward(const Batch& batch);
  void drop_features(Sequence& sequence) const;
  SequenceEvent fail(Sequence& sequence, const Error& error);
  SequenceEvent advance(Sequence& sequence, std::span<float> logits_row);
};

// --- memory
// ---------------------------------------------------------------------------------------

Result<void> Engine::State::allocate_cache(int64_t num_tokens) {
  CHECK(idle());
  scheduler.reset();
  blocks.reset();
  cache.reset();  // the old one goes first: both need not fit
  int32_t num_blocks = static_cast<int32_t>(
      ceil_div(static_cast<uint64_t>(num_tokens), static_cast<uint64_t>(kKvBlockSize)));
  auto created = KvCache::create(model.backend(), model.config(), num_blocks, options.kv_dtype);
  if (!created) {
    return std::move(created).error().with_context(
        "KV cache for " + std::to_string(num_tokens) +
        " tokens (fewer with --context or --max-tokens)");
  }
  cache.emplace(std::move(created).value());
  blocks.emplace(num_blocks);
  scheduler.emplace(SchedulerOptions{options.max_step_tokens, options.max_sequences, kKvBlockSize},
                    *blocks);
  return {};
}

// So many tokens of one sequence must fit the cache.
Result<void> Engine::State::make_room(int64_t num_tokens) {
  if (num_tokens <= kv_tokens()) return {};
  if (options.kv_tokens == 0 && idle()) return allocate_cache(num_tokens);
  return Error(ErrorCode::too_large,
               "prompt and answer may reach " + std::to_string(num_tokens) +
                   " tokens, but the KV cache holds " + std::to_string(kv_tokens()) +
                   ": ask for fewer (max_tokens) or give the cache more memory");
}

// --- the way in
// -----------------------------------------------------------------------------------

Result<std::unique_ptr<Sequence>> Engine::State::make_sequence(
    std::vector<int32_t> ids, std::vector<ProcessedImage> images) const {
  if (ids.empty()) {
    return Error(ErrorCode::invalid_argument, "the prompt is empty; it needs at least one token");
  }
  if (static_cast<uint64_t>(context) < ids.size()) {
    int64_t model_context = model.config().context_length;
    std::string help = context < model_context
                           ? "--context raises it up to " + std::to_string(model_context)
                           : "that is all the model was made for, so the prompt must be shorter";
    return Error(ErrorCode::too_large, "the prompt has " + std::to_string(ids.size()) +
                                           " tokens, but the maximum context length is " +
                                           std::to_string(context) + ": " + help);
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= vocab_size()) {
      return Error(ErrorCode::invalid_argument,
                   "token " + std::to_string(i) + " of the prompt has the id " +
                       std::to_string(ids[i]) + ", but the vocabulary ends at " +
                       std::to_string(vocab_size() - 1));
    }
  }
  auto sequence = std::make_unique<Sequence>();
  sequence->tokens = std::move(ids);
  sequence->prompt_tokens = sequence->total();
  if (!images.empty()) {
    if (!model.config().vision) {
      return Error(ErrorCode::unsupported,
                   "the prompt has pictures, but this model was loaded without a vision tower");
    }
    for (ProcessedImage& image : images) sequence->images.push_back({std::move(image), {}, {}});
    TRY(place_images(*sequence, model.config().vision->image_token));
  }
  return sequence;
}

Result<SequenceId> Engine::submit(NewSequence input) {
  State& s = *state_;
  TRY(input.params.validate(s.vocab_size()));
  auto sequence = TRY(s.make_sequence(std::move(input.ids), std::move(input.images)));
  if (sequence->total() == s.context) {
    return Error(ErrorCode::too_large,
                 "the prompt fills the maximum context length of " + std::to_string(s.context) +
                     " tokens and leaves no room for an answer: shorten it" +
                     (s.context < s.model.config().context_length ? " or raise --context" : ""));
  }
  int64_t wanted = input.params.max_tokens == 0
                       ? s.context
                       : int64_t{sequence->total()} + input.params.max_tokens;
  sequence->max_tokens = static_cast<int32_t>(std::min(wanted, s.context));
  TRY(s.make_room(sequence->max_tokens));
  sequence->params = std::move(input.params);
  if (sequence->params.repetition_penalty != 1.0) sequence->counts.add_prompt(sequence->tokens);
  sequence->id = ++s.last_id;
  s.scheduler->add(std::move(sequence));
  return s.last_id;
}

void Engine::cancel(SequenceId id) {
  if (!state_->scheduler) return;
  std::unique_ptr<Sequence> sequence = state_->scheduler->finish(id);
  if (!sequence) return;
  SequenceEvent event;
  event.sequence = id;
  event.prompt_total = sequence->prompt_tokens;
  event.prompt_done = std::min(sequence->computed, sequence->prompt_tokens);
  event.finish = FinishReason::cancelled;
  state_->cancelled.push_back(std::move(event));
}

// --- one step
// -------------------------------------------------------------------------------------

Result<void> Engine::State::encode_images(Sequence& sequence) const {
  for (SequenceImage& image : sequence.images) {
    if (image.features || !touches(sequence, image)) continue;
    image.features = TRY(model.encode_image(image.image));
  }
  return {};
}

// Pictures that are wholly in the cache need no features any more.
void Engine::State::drop_features(Sequence& sequence) const {
  for (SequenceImage& image : sequence.images) {
    if (image.places.empty() || sequence.computed > image.places.back()) image.features.reset();
  }
}

// Fills `logits` with [logits_rows, vocab_size].
Result<void> Engine::State::forward(const Batch& batch) {
  Backend& backend = model.backend();
  int64_t rows = static_cast<int64_t>(batch.logits_rows.size());
  uint64_t count = static_cast<uint64_t>(rows) * static_cast<uint64_t>(vocab_size());
  uint64_t bytes = count * backend.activation_bytes();
  if (bytes > logits_memory.bytes()) {
    logits_memory = Buffer();
    logits_memory = TRY(backend.allocate(bytes, "the logits of a step"));
  }
  MatrixView view{logits_memory.data(), rows, vocab_size()};
  TRY(model.forward(batch, *cache, view));
  logits.resize(static_cast<size_t>(count));
  if (rows > 0) TRY(backend.read(view, logits));
  return {};
}

SequenceEvent Engine::State::fail(Sequence& sequence, const Error& error) {
  SequenceEvent event;
  event.sequence = sequence.id;
  event.prompt_total = sequence.prompt_tokens;
  event.prompt_done = std::min(sequence.computed, sequence.prompt_tokens);
  event.finish = FinishReason::error;
  event.error = error;
  scheduler->finish(sequence.id);
  return event;
}

// After the step: counts its tokens and, with logits, draws the next one.
SequenceEvent Engine::State::advance(Sequence& sequence, std::span<float> logits_row) {
  scheduler->complete(sequence);
  drop_features(sequence);
  SequenceEvent event;
  event.sequence = sequence.id;
  event.prompt_total = sequence.prompt_tokens;
  event.prompt_done = std::min(sequence.computed, sequence.prompt_tokens);
  if (logits_row.empty()) return event;

  const SamplingParams& params = sequence.params;
  auto sampled = sample(logits_row, params, sequence.counts, sequence.total());
  if (!sampled) return fail(sequence, sampled.error());
  int32_t id = sampled->id;
  event.token = std::move(sampled).value();
  sequence.tokens.push_back(id);
  sequence.counts.add_output(id);
  bool is_stop = std::find(params.stop_tokens.begin(), params.stop_tokens.end(), id) !=
                 params.stop_tokens.end();
  if (is_stop && !params.ignore_eos) {
    event.finish = FinishReason::stop;
  } else if (sequence.total() == sequence.max_tokens) {
    event.finish = FinishReason::length;
  }
  if (event.finish != FinishReason::none) scheduler->finish(sequence.id);
  return event;
}

std::vector<SequenceEvent> Engine::step() {
  State& s = *state_;
  std::vector<SequenceEvent> events = std::exchange(s.cancelled, {});
  if (s.idle()) return events;

  StepPlan plan = s.scheduler->plan();
  Batch batch;
  std::vector<Sequence*> in_step;
  for (Sequence* sequence : plan.items) {
    if (auto encoded = s.encode_images(*sequence); !encoded) {
      events.push_back(s.fail(*sequence, encoded.error()));
      continue;
    }
    append_rows(*sequence, kKvBlockSize, batch);
    if (sequence->samples()) {
      batch.logits_rows.push_back(static_cast<int32_t>(batch.ids.size()) - 1);
    }
    in_step.push_back(sequence);
  }
  if (in_step.empty()) return events;

  if (auto done = s.forward(batch); !done) {
    for (Sequence* sequence : in_step) events.push_back(s.fail(*sequence, done.error()));
    return events;
  }
  size_t row = 0, columns = static_cast<size_t>(s.vocab_size());
  for (Sequence* sequence : in_step) {
    std::span<float> logits_row;
    if (sequence->samples()) logits_row = std::span(s.logits).subspan(row++ * columns, columns);
    events.push_back(s.advance(*sequence, logits_row));
  }
  return events;
}

// --- conveniences
// ---------------------------------------------------------------------------------

Result<Generated> Engine::generate(NewSequence input, const GenerateCallbacks& callbacks) {
  CHECK(idle());
  auto start = std::chrono::steady_clock::now();
  Generated result;
  result.prompt_tokens = static_cast<int64_t>(input.ids.size());
  const SequenceId id = TRY(submit(std::move(input)));
  while (result.finish == FinishReason::none) {
    for (SequenceEvent& event : step()) {
      if (event.sequence != id) continue;
      result.finish = event.finish;
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
      std::span<const float> row = std::span(s.logits).subspan((i - first) * columns, columns);
      if (!on_logits(positions[i], row)) return {};
    }
    sequence->computed = last;
    sequence->scheduled = 0;
    s.drop_features(*sequence);
  }
  return {};
}

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

int64_t Engine::context() const { return state_->context; }
uint64_t Engine::kv_bytes() const { return state_->cache ? state_->cache->bytes() : 0; }
uint64_t Engine::kv_step_bytes(int64_t num_tokens) const {
  return static_cast<uint64_t>(num_tokens) *
         KvCache::bytes_per_token(state_->model.config(), state_->options.kv_dtype);
}
bool Engine::idle() const { return state_->idle() && state_->cancelled.empty(); }

}  // namespace bise
