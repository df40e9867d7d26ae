// The way into an engine: checks, memory, sequences.
#include <algorithm>
#include <string>
#include <utility>

#include "base/random.h"
#include "engine/batch_builder.h"
#include "engine/engine_state.h"

namespace bise {
namespace {

constexpr uint64_t kGroupStream = 0x67726f7570;  // seeds of a group's later answers
constexpr int32_t kMaxGroup = 128;

}  // namespace

// --- memory ----------------------------------------------------------------------------------------

Result<void> Engine::State::allocate_cache(int64_t num_tokens) {
  CHECK(!has_sequences());
  scheduler.reset();
  blocks.reset();
  cache.reset();  // the old one goes first: both need not fit
  int32_t num_blocks = static_cast<int32_t>(
      ceil_div(static_cast<uint64_t>(num_tokens), static_cast<uint64_t>(kKvBlockSize)));
  auto created = KvCache::create(model.placement(), model.config(), num_blocks, options.kv_dtype);
  if (!created) {
    return std::move(created).error().with_context(
        "KV cache for " + std::to_string(num_tokens) +
        " tokens (fewer with --context or --max-tokens)");
  }
  cache.emplace(std::move(created).value());
  blocks.emplace(num_blocks);
  SchedulerOptions plan;
  plan.max_step_tokens = options.max_step_tokens;
  plan.max_sequences = options.max_sequences;
  plan.block_size = kKvBlockSize;
  plan.max_logits_rows = max_logits_rows();
  plan.fair_quantum = options.fair_quantum;
  if (!options.deterministic) {
    plan.max_step_seconds = options.max_step_ms / 1e3;
    plan.max_step_stretch = options.max_step_stretch;
  }
  scheduler.emplace(plan, *blocks);
  return {};
}

Error Engine::State::no_room(int64_t num_tokens, int64_t kv_tokens) const {
  return Error(ErrorCode::too_large,
               "prompt and answer may reach " + std::to_string(num_tokens) +
                   " tokens, but the KV cache holds " + std::to_string(kv_tokens) +
                   ": ask for fewer (max_tokens) or give the cache more memory");
}

// So many tokens of one sequence must fit the cache.
Result<void> Engine::State::make_room(int64_t num_tokens) {
  if (num_tokens <= kv_tokens()) return {};
  if (options.kv_tokens == 0 && !has_sequences()) return allocate_cache(num_tokens);
  return no_room(num_tokens, kv_tokens());
}

// --- checks ----------------------------------------------------------------------------------------

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
    for (ProcessedImage& image : images) {
      const ImageDigest digest = image_digest(image, digest_key);
      auto shared = std::make_shared<const ProcessedImage>(std::move(image));
      sequence->images.push_back({std::move(shared), digest, {}, {}});
    }
    TRY(place_images(*sequence, model.config().vision->image_token));
  }
  return sequence;
}

Result<PreparedGroup> Engine::prepare(NewSequence input, int32_t n) const {
  const State& s = *state_;
  if (n < 1 || n > kMaxGroup) {
    return Error(ErrorCode::invalid_argument, "n is " + std::to_string(n) +
                                                  "; it must be from 1 to " +
                                                  std::to_string(kMaxGroup))
        .with_param("n");
  }
  TRY(input.params.validate(s.vocab_size()));
  auto first = TRY(s.make_sequence(std::move(input.ids), std::move(input.images)));
  if (first->total() == s.context && !input.prompt_only) {
    return Error(ErrorCode::too_large,
                 "the prompt fills the maximum context length of " + std::to_string(s.context) +
                     " tokens and leaves no room for an answer: shorten it" +
                     (s.context < s.model.config().context_length ? " or raise --context" : ""));
  }
  int64_t wanted = int64_t{first->total()} + input.params.max_tokens;
  if (input.params.max_tokens == 0) wanted = s.context;
  if (input.prompt_only) wanted = first->total();
  first->max_tokens = static_cast<int32_t>(std::min(wanted, s.context));
  if (int64_t fixed = s.options.kv_tokens; fixed > 0 && first->max_tokens > s.kv_tokens()) {
    return s.no_room(first->max_tokens, s.kv_tokens());
  }
  first->params = std::move(input.params);
  if (first->params.repetition_penalty != 1.0) first->counts.add_prompt(first->tokens);
  first->prompt_only = input.prompt_only;
  first->tenant = std::move(input.tenant);
  first->times.submitted = EngineClock::now();
  const SequenceId id = s.last_id.fetch_add(static_cast<SequenceId>(n)) + 1;
  const uint64_t seed = first->params.seed;
  // Without the cache, the answers of a group share among themselves.
  if (s.options.prefix_cache) first->salt = "salt " + input.cache_salt;
  else if (n > 1) first->salt = "group " + std::to_string(id);

  PreparedGroup group;
  for (int32_t i = 0; i < n; ++i) {
    std::unique_ptr<Sequence> sequence;
    if (i + 1 == n && i == 0) {
      sequence = std::move(first);
    } else {
      sequence = std::make_unique<Sequence>(*first);  // pixels are shared
    }
    sequence->id = id + static_cast<SequenceId>(i);
    sequence->group = id;
    if (i > 0) sequence->params.seed = random_bits(seed, kGroupStream, static_cast<uint64_t>(i));
    if (input.make_mask) {
      auto mask = TRY(input.make_mask());
      sequence->mask = std::make_shared<MaskJob>(std::move(mask), s.vocab_size());
    }
    group.sequences.push_back(std::move(sequence));
  }
  return group;
}

Result<void> Engine::add(PreparedGroup group) {
  State& s = *state_;
  CHECK(!group.sequences.empty());
  const size_t waiting = s.scheduler ? s.scheduler->num_new() : 0;
  if (waiting + group.sequences.size() > static_cast<size_t>(s.options.max_waiting)) {
    return Error(ErrorCode::busy, "the queue is full: " + std::to_string(waiting) +
                                      " sequences wait, and no more than " +
                                      std::to_string(s.options.max_waiting) +
                                      " may: try again later");
  }
  TRY(s.make_room(group.sequences[0]->max_tokens));
  for (std::unique_ptr<Sequence>& sequence : group.sequences) {
    s.scheduler->add(std::move(sequence));
  }
  return {};
}

Result<std::vector<SequenceId>> Engine::submit_group(NewSequence input, int32_t n) {
  PreparedGroup group = TRY(prepare(std::move(input), n));
  std::vector<SequenceId> ids;
  for (const auto& sequence : group.sequences) ids.push_back(sequence->id);
  TRY(add(std::move(group)));
  return ids;
}

Result<SequenceId> Engine::submit(NewSequence input) {
  return TRY(submit_group(std::move(input), 1))[0];
}

}  // namespace bise
