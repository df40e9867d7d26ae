// The life of sequences in the scheduler; the plan of a step is in scheduler_plan.cpp.
#include "engine/scheduler.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

namespace bise {

const char* finish_reason_name(FinishReason reason) {
  switch (reason) {
    case FinishReason::none: return "none";
    case FinishReason::stop: return "stop";
    case FinishReason::length: return "length";
    case FinishReason::cancelled: return "cancelled";
    case FinishReason::error: return "error";
  }
  return "none";
}

Scheduler::Scheduler(const SchedulerOptions& options, BlockManager& blocks)
    : options_(options), blocks_(blocks), waiting_(options.fair_quantum) {
  // So many decodes always leave a row for a prompt that is being read.
  CHECK(options.max_sequences >= 1 && options.max_step_tokens >= options.max_sequences);
  CHECK(options.block_size >= 1 && options.max_logits_rows >= 1);
}

int32_t Scheduler::blocks_for(int32_t num_tokens) const {
  return (num_tokens + options_.block_size - 1) / options_.block_size;
}

// What block `index` holds once its tokens are computed: they, and for each picture that reaches
// into it whose it is and with which row it begins there (where its rows are, the image tokens say).
BlockContents Scheduler::contents_of(const Sequence& sequence, int32_t index,
                                     std::vector<uint64_t>& image_words) const {
  const int32_t first = index * options_.block_size, last = first + options_.block_size;
  image_words.clear();
  for (const SequenceImage& image : sequence.images) {
    auto begin = std::lower_bound(image.places.begin(), image.places.end(), first);
    if (begin == image.places.end() || *begin >= last) continue;
    image_words.insert(image_words.end(), image.digest.begin(), image.digest.end());
    image_words.push_back(static_cast<uint64_t>(begin - image.places.begin()));
  }
  return {std::span(sequence.tokens)
              .subspan(static_cast<size_t>(first), static_cast<size_t>(options_.block_size)),
          image_words, &sequence.salt};
}

// --- in and out ---------------------------------------------------------------------------------------

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
  CHECK(sequence->total() >= 1);
  CHECK(sequence->total() < sequence->max_tokens + (sequence->prompt_only ? 1 : 0));
  CHECK(blocks_for(sequence->max_tokens) <= blocks_.num_blocks());
  CHECK(sequence->computed == 0 && sequence->block_table.empty());
  waiting_.push(std::move(sequence));
}

std::vector<Sequence*> Scheduler::all() const {
  std::vector<Sequence*> sequences;
  for (const auto& sequence : running_) sequences.push_back(sequence.get());
  waiting_.each([&sequences](Sequence& sequence) { sequences.push_back(&sequence); });
  for (const auto& sequence : paused_) sequences.push_back(sequence.get());
  return sequences;
}

size_t Scheduler::num_new() const {
  size_t count = 0;
  waiting_.each([&count](Sequence& sequence) { count += sequence.cached_tokens < 0 ? 1 : 0; });
  return count;
}

Sequence* Scheduler::find(SequenceId id) const {
  for (Sequence* sequence : all()) {
    if (sequence->id == id) return sequence;
  }
  return nullptr;
}

// Blocks go back; what is whole stays in the prefix cache until others need the room.
void Scheduler::give_up(Sequence& sequence) {
  blocks_.release(sequence.block_table);
  sequence.computed = 0;
  sequence.scheduled = 0;
  sequence.kept_blocks = 0;
  for (SequenceImage& image : sequence.images) image.features.reset();
}

std::unique_ptr<Sequence> Scheduler::stop_running(size_t index) {
  std::unique_ptr<Sequence> sequence = std::move(running_[index]);
  running_.erase(running_.begin() + static_cast<ptrdiff_t>(index));
  waiting_.stopped(*sequence);
  return sequence;
}

std::unique_ptr<Sequence> Scheduler::finish(SequenceId id) {
  auto has_id = [id](const std::unique_ptr<Sequence>& sequence) { return sequence->id == id; };
  std::unique_ptr<Sequence> found;
  if (auto it = std::find_if(running_.begin(), running_.end(), has_id); it != running_.end()) {
    found = stop_running(static_cast<size_t>(it - running_.begin()));
    blocks_.release(found->block_table);
    found->scheduled = 0;
  } else if (auto at = std::find_if(paused_.begin(), paused_.end(), has_id); at != paused_.end()) {
    found = std::move(*at);
    paused_.erase(at);
  } else {
    found = waiting_.take(id);
  }
  return found;
}

void Scheduler::pause(SequenceId id) {
  auto is_it = [id](const std::unique_ptr<Sequence>& sequence) { return sequence->id == id; };
  if (std::any_of(paused_.begin(), paused_.end(), is_it)) return;
  std::unique_ptr<Sequence> sequence = finish(id);
  if (!sequence) return;
  give_up(*sequence);
  paused_.push_back(std::move(sequence));
}

void Scheduler::resume(SequenceId id) {
  auto has_id = [id](const std::unique_ptr<Sequence>& sequence) { return sequence->id == id; };
  auto it = std::find_if(paused_.begin(), paused_.end(), has_id);
  if (it == paused_.end()) return;
  waiting_.push_front(std::move(*it));
  paused_.erase(it);
}

void Scheduler::complete(Sequence& sequence) {
  sequence.computed += sequence.scheduled;
  sequence.scheduled = 0;
  if (sequence.salt.empty()) return;
  std::vector<uint64_t> image_words;
  while ((sequence.kept_blocks + 1) * options_.block_size <= sequence.computed) {
    blocks_.keep(sequence.block_table, sequence.kept_blocks,
                 contents_of(sequence, sequence.kept_blocks, image_words));
    ++sequence.kept_blocks;
  }
}

// --- numbers and checks -------------------------------------------------------------------------------

void Scheduler::add_stats(EngineStats& stats) const {
  stats.running = static_cast<int32_t>(running_.size());
  stats.waiting = static_cast<int32_t>(waiting_.size());
  stats.paused = static_cast<int32_t>(paused_.size());
  waiting_.each([&stats](Sequence& sequence) { stats.waiting_tokens += sequence.total(); });
  stats.total_blocks = blocks_.num_blocks();
  stats.free_blocks = blocks_.num_free();
  stats.cached_blocks = blocks_.num_cached();
  stats.used_blocks = blocks_.num_used();
  stats.evicted_blocks = blocks_.num_evicted();
  stats.preemptions = preemptions_;
  stats.fair_preemptions = fair_preemptions_;
  stats.prefix_queried_tokens = queried_tokens_;
  stats.prefix_hit_tokens = hit_tokens_;
  StepShape decodes;
  for (const auto& sequence : running_) {
    if (sequence->remaining() != 1) continue;
    ++decodes.decode_rows;
    decodes.decode_attended += sequence->total();
  }
  if (decodes.decode_rows > 0) stats.decode_step_seconds = cost_.decode_seconds(decodes);
  stats.prefill_token_seconds = cost_.prompt_token_seconds();
  stats.step_bound_seconds = options_.max_step_seconds > 0.0
                                 ? options_.max_step_seconds
                                 : options_.max_step_stretch * stats.decode_step_seconds;
}

void Scheduler::check() const {
  std::vector<const std::vector<int32_t>*> tables;
  std::vector<uint64_t> image_words;
  std::map<std::string, int32_t> running;
  for (const auto& sequence : running_) {
    CHECK(sequence->computed >= 0 && sequence->scheduled >= 0);
    CHECK(sequence->computed + sequence->scheduled <= sequence->total());
    CHECK(sequence->total() <= sequence->max_tokens);
    int32_t held = static_cast<int32_t>(sequence->block_table.size());
    CHECK(held == blocks_for(sequence->computed + sequence->scheduled));
    const bool keeps = !sequence->salt.empty();
    CHECK(sequence->kept_blocks == (keeps ? sequence->computed / options_.block_size : 0));
    for (int32_t i = 0; i < sequence->kept_blocks; ++i) {
      CHECK(blocks_.is_kept(sequence->block_table, i, contents_of(*sequence, i, image_words)));
    }
    tables.push_back(&sequence->block_table);
    ++running[sequence->tenant];
  }
  auto check_outside = [](const Sequence& sequence) {
    CHECK(sequence.computed == 0 && sequence.scheduled == 0 && sequence.kept_blocks == 0);
    CHECK(sequence.block_table.empty());
  };
  waiting_.each(check_outside);
  for (const auto& sequence : paused_) check_outside(*sequence);
  CHECK(running_.size() <= static_cast<size_t>(options_.max_sequences));
  waiting_.check(running);
  blocks_.check(tables);
}

}  // namespace bise
