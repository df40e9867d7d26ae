// One step of an engine: plan, batch, forward, draw, publish.
#include <algorithm>
#include <string>
#include <utility>

#include "base/thread_pool.h"
#include "engine/batch_builder.h"
#include "engine/engine_state.h"

namespace bise {
namespace {

// The tokens of the prompt whose log-probabilities come out of the scheduled rows: token t is
// foretold by row t - 1. Empty when first >= last.
struct PromptRange {
  int32_t first = 0, last = 0;
};
PromptRange foretold_tokens(const Sequence& sequence) {
  if (sequence.params.num_prompt_logprobs < 0) return {};
  return {std::max(sequence.prompt_logprobs, sequence.computed + 1),
          std::min(sequence.prompt_tokens, sequence.computed + sequence.scheduled + 1)};
}

bool draws(const Sequence& sequence) { return sequence.samples() && !sequence.prompt_only; }

}  // namespace

int32_t Engine::State::max_logits_rows() const {
  constexpr int64_t kBytes = int64_t{128} << 20;
  return static_cast<int32_t>(std::clamp<int64_t>(kBytes / (int64_t{4} * vocab_size()), 16, 512));
}

// --- the parts of a step -----------------------------------------------------------------------------

// Those of the same picture, when another sequence has them just now: answers of a group.
std::shared_ptr<const ImageFeatures> Engine::State::find_features(
    const SequenceImage& image) const {
  for (const Sequence* sequence : scheduler->all()) {
    for (const SequenceImage& other : sequence->images) {
      if (other.features && other.digest == image.digest) return other.features;
    }
  }
  return nullptr;
}

Result<void> Engine::State::encode_images(Sequence& sequence) {
  for (SequenceImage& image : sequence.images) {
    if (image.features || !touches(sequence, image)) continue;
    image.features = find_features(image);
    if (image.features) continue;
    image.features =
        std::make_shared<const ImageFeatures>(TRY(model.encode_image(*image.image)));
    ++counters.encoded_images;
  }
  return {};
}

// Pictures that are wholly in the cache need no features any more.
void Engine::State::drop_features(Sequence& sequence) const {
  for (SequenceImage& image : sequence.images) {
    if (image.places.empty() || sequence.computed > image.places.back()) image.features.reset();
  }
}

// The rows of the sequence, which append_rows has just put at the end of the batch, whose logits
// are wanted: for tokens of the prompt, then for the next token.
void Engine::State::add_logits_rows(const Sequence& sequence, Batch& batch) const {
  const int32_t end_row = static_cast<int32_t>(batch.ids.size());
  const int32_t first_row = end_row - sequence.scheduled;
  PromptRange range = foretold_tokens(sequence);
  for (int32_t t = range.first; t < range.last; ++t) {
    batch.logits_rows.push_back(first_row + t - 1 - sequence.computed);
  }
  if (draws(sequence)) batch.logits_rows.push_back(end_row - 1);
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
  logits = {};
  if (rows > 0) logits = TRY(backend.on_host(view));
  return {};
}

SequenceEvent Engine::State::event_of(const Sequence& sequence) const {
  SequenceEvent event;
  event.sequence = sequence.id;
  event.index = static_cast<int32_t>(sequence.id - sequence.group);
  event.prompt_total = sequence.prompt_tokens;
  event.prompt_done = std::min(sequence.computed, sequence.prompt_tokens);
  event.cached_tokens = std::max(0, sequence.cached_tokens);
  event.times = sequence.times;
  return event;
}

SequenceEvent Engine::State::end(Sequence& sequence, FinishReason reason) {
  SequenceEvent event = event_of(sequence);
  event.finish = reason;
  ++counters.finished[static_cast<size_t>(reason)];
  scheduler->finish(sequence.id);
  return event;
}

SequenceEvent Engine::State::fail(Sequence& sequence, const Error& error) {
  SequenceEvent event = end(sequence, FinishReason::error);
  event.error = error;
  return event;
}

// Sampling takes a few percent of a step of one sequence; that of many is shared by threads.
void Engine::State::read_rows(std::span<RowRead> rows) {
  const LogitMath& math = model.backend().logit_math();
  auto read = [&rows, &math](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      RowRead& row = rows[static_cast<size_t>(i)];
      const Sequence& sequence = *row.sequence;
      if (row.token) continue;  // its mask has failed
      if (row.prompt_token < 0) {
        row.token = sample(row.logits, sequence.params, sequence.counts, sequence.total(),
                           row.limits, math);
      } else {
        row.token = token_logprobs(row.logits,
                                   sequence.tokens[static_cast<size_t>(row.prompt_token)],
                                   sequence.params.num_prompt_logprobs, math);
      }
    }
  };
  model.backend().host_threads().parallel_for(static_cast<int64_t>(rows.size()), 1, read);
}

// The drawn token, and whether it is the last.
Result<void> Engine::State::append(Sequence& sequence, SampledToken token, SequenceEvent& event) {
  const SamplingParams& params = sequence.params;
  const int32_t id = token.id;
  event.token = std::move(token);
  sequence.tokens.push_back(id);
  sequence.counts.add_output(id);
  ++counters.generated_tokens;
  sequence.times.last_token = EngineClock::now();
  if (sequence.num_output() == 1) sequence.times.first_token = sequence.times.last_token;
  event.times = sequence.times;

  bool is_listed = std::find(params.stop_tokens.begin(), params.stop_tokens.end(), id) !=
                   params.stop_tokens.end();
  bool stops = is_listed && !params.ignore_eos;
  if (sequence.mask && !stops) {
    masks.reset(*sequence.mask);
    TRY(sequence.mask->mask->accept(id));
    stops = sequence.mask->mask->is_finished();
  }
  if (stops) event.finish = FinishReason::stop;
  else if (sequence.total() == sequence.max_tokens) event.finish = FinishReason::length;
  else if (sequence.mask) masks.start(sequence.mask);
  return {};
}

// After the step: counts its tokens and takes what was read from its rows of logits.
SequenceEvent Engine::State::advance(Sequence& sequence, std::span<RowRead> rows) {
  const bool ends_here = sequence.samples() && sequence.prompt_only;
  scheduler->complete(sequence);
  drop_features(sequence);
  SequenceEvent event = event_of(sequence);
  for (RowRead& row : rows) {
    if (!*row.token) return fail(sequence, row.token->error());
    SampledToken token = std::move(**row.token);
    if (row.prompt_token < 0) {
      if (auto done = append(sequence, std::move(token), event); !done) {
        return fail(sequence, done.error());
      }
      continue;
    }
    if (event.prompt_logprobs.empty()) event.prompt_logprobs_first = row.prompt_token;
    event.prompt_logprobs.push_back(std::move(token));
    sequence.prompt_logprobs = row.prompt_token + 1;
  }
  if (ends_here) event.finish = FinishReason::length;
  if (event.finish != FinishReason::none) {
    ++counters.finished[static_cast<size_t>(event.finish)];
    scheduler->finish(sequence.id);
  }
  return event;
}

// --- the step ----------------------------------------------------------------------------------------

std::vector<SequenceEvent> Engine::step() {
  State& s = *state_;
  std::vector<SequenceEvent> events = std::exchange(s.ended, {});
  if (!s.scheduler || !s.scheduler->has_work()) return events;
  const EngineClock::time_point start = EngineClock::now();

  StepPlan plan = s.scheduler->plan();
  Batch batch;
  std::vector<Sequence*> in_step;
  double encode_seconds = 0.0;
  for (Sequence* sequence : plan.items) {
    if (sequence->times.admitted == EngineClock::time_point()) {
      sequence->times.admitted = start;
      s.counters.queue_seconds.add(seconds_between(sequence->times.submitted, start));
    }
    const EngineClock::time_point encode_start = EngineClock::now();
    auto encoded = s.encode_images(*sequence);
    encode_seconds += seconds_between(encode_start, EngineClock::now());
    if (!encoded) {
      events.push_back(s.fail(*sequence, encoded.error()));
      continue;
    }
    append_rows(*sequence, kKvBlockSize, batch);
    s.add_logits_rows(*sequence, batch);
    if (sequence->mask && draws(*sequence)) s.masks.start(sequence->mask);
    in_step.push_back(sequence);
    if (sequence->computed < sequence->prompt_tokens) {
      s.counters.prompt_tokens += static_cast<uint64_t>(sequence->scheduled);
    }
  }
  if (in_step.empty()) return events;

  const EngineClock::time_point forward_start = EngineClock::now();
  auto done = s.forward(batch);
  s.counters.forward_seconds.add(seconds_between(forward_start, EngineClock::now()));
  ++s.counters.steps;
  if (!done) {
    ++s.counters.failed_steps;
    ++s.counters.failed_in_a_row;
    for (Sequence* sequence : in_step) events.push_back(s.fail(*sequence, done.error()));
    return events;
  }
  s.counters.failed_in_a_row = 0;
  std::span<float> logits = s.logits;
  const size_t columns = static_cast<size_t>(s.vocab_size());
  std::vector<RowRead> rows;
  std::vector<size_t> first_row;  // by sequence in the step
  for (const Sequence* sequence : in_step) {
    first_row.push_back(rows.size());
    auto add_row = [&](int32_t prompt_token) -> RowRead& {
      rows.push_back({sequence, prompt_token, {}, logits.first(columns), {}});
      logits = logits.subspan(columns);
      return rows.back();
    };
    const PromptRange range = foretold_tokens(*sequence);
    for (int32_t t = range.first; t < range.last; ++t) add_row(t);
    if (!draws(*sequence)) continue;
    RowRead& row = add_row(-1);
    row.limits.no_stop_tokens = !sequence->params.ignore_eos &&
                                sequence->num_output() < sequence->params.min_tokens;
    if (!sequence->mask) continue;
    if (auto allowed = s.masks.join(*sequence->mask)) row.limits.allowed = *allowed;
    else row.token = Result<SampledToken>(allowed.error());
  }
  first_row.push_back(rows.size());
  s.read_rows(rows);
  for (size_t i = 0; i < in_step.size(); ++i) {
    std::span<RowRead> own = std::span(rows).subspan(first_row[i], first_row[i + 1] - first_row[i]);
    events.push_back(s.advance(*in_step[i], own));
  }
  const double seconds = seconds_between(start, EngineClock::now());
  s.counters.step_seconds.add(seconds);
  if (in_step.size() == plan.items.size()) s.scheduler->observe(plan, seconds - encode_seconds);
  if (s.options.check_every_step) check();
  return events;
}

}  // namespace bise
