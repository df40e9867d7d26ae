#include "engine/scheduler.h"

#include <algorithm>
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
    : options_(options), blocks_(blocks) {
  // So many decodes always leave a row for a prompt that is being read.
  CHECK(options.max_sequences >= 1 && options.max_step_tokens >= options.max_sequences);
  CHECK(options.block_size >= 1);
}

int32_t Scheduler::blocks_for(int32_t num_tokens) const {
  return (num_tokens + options_.block_size - 1) / options_.block_size;
}

void Scheduler::add(std::unique_ptr<Sequence> sequence) {
  CHECK(sequence->total() >= 1);
  CHECK(sequence->total() < sequence->max_tokens + (sequence->prompt_only ? 1 : 0));
  CHECK(blocks_for(sequence->max_tokens) <= blocks_.num_blocks());
  CHECK(sequence->computed == 0 && sequence->block_table.empty());
  waiting_.push_back(std::move(sequence));
}

Sequence* Scheduler::find(SequenceId id) const {
  for (Sequence* sequence : all()) {
    if (sequence->id == id) return sequence;
  }
  return nullptr;
}

std::vector<Sequence*> Scheduler::all() const {
  std::vector<Sequence*> sequences;
  for (const auto& sequence : running_) sequences.push_back(sequence.get());
  for (const auto& sequence : waiting_) sequences.push_back(sequence.get());
  for (const auto& sequence : paused_) sequences.push_back(sequence.get());
  return sequences;
}

void Scheduler::add_stats(EngineStats& stats) const {
  stats.running = static_cast<int32_t>(running_.size());
  stats.waiting = static_cast<int32_t>(waiting_.size());
  stats.paused = static_cast<int32_t>(paused_.size());
  for (const auto& sequence : waiting_) stats.waiting_tokens += sequence->total();
  stats.total_blocks = blocks_.num_blocks();
  stats.free_blocks = blocks_.num_free();
  stats.used_blocks = stats.total_blocks - stats.free_blocks;
  stats.preemptions = preemptions_;
}

void Scheduler::pause(SequenceId id) {
  std::unique_ptr<Sequence> sequence = finish(id);
  if (!sequence) return;
  sequence->computed = 0;
  paused_.push_back(std::move(sequence));
}

void Scheduler::resume(SequenceId id) {
  auto has_id = [id](const std::unique_ptr<Sequence>& sequence) { return sequence->id == id; };
  auto it = std::find_if(paused_.begin(), paused_.end(), has_id);
  if (it == paused_.end()) return;
  waiting_.push_front(std::move(*it));
  paused_.erase(it);
}

bool Scheduler::schedule(Sequence& sequence, int32_t num_tokens, StepPlan& plan) {
  if (!blocks_.grow(sequence.block_table, blocks_for(sequence.computed + num_tokens))) return false;
  sequence.scheduled = num_tokens;
  plan.items.push_back(&sequence);
  plan.num_tokens += num_tokens;
  return true;
}

void Scheduler::preempt_youngest() {
  std::unique_ptr<Sequence> sequence = std::move(running_.back());
  running_.pop_back();
  CHECK(sequence->scheduled == 0);
  blocks_.release(sequence->block_table);
  sequence->computed = 0;
  ++preemptions_;
  waiting_.push_front(std::move(sequence));
}

StepPlan Scheduler::plan() {
  StepPlan plan;
  bool preempted = false;
  int32_t logits_rows = options_.max_logits_rows;
  while (plan.items.empty() && has_work()) {
    // Decodes, oldest first: whoever is preempted for one is younger and not yet in the plan.
    for (size_t i = 0; i < running_.size(); ++i) {
      if (running_[i]->remaining() != 1) continue;
      while (i < running_.size() && !schedule(*running_[i], 1, plan)) {
        preempt_youngest();
        preempted = true;
      }
    }
    // After a preemption nobody is admitted: the blocks just freed are for those that run.
    while (!preempted && !waiting_.empty() &&
           num_running() < static_cast<size_t>(options_.max_sequences)) {
      const Sequence& next = *waiting_.front();
      int32_t first_need = blocks_for(std::min(next.total() + 1, next.max_tokens));
      if (first_need > blocks_.num_free()) break;
      running_.push_back(std::move(waiting_.front()));
      waiting_.pop_front();
    }
    // Prompts take what is left of budget and blocks.
    for (const auto& sequence : running_) {
      if (sequence->scheduled > 0) continue;
      int64_t room = (static_cast<int64_t>(sequence->block_table.size()) + blocks_.num_free()) *
                         options_.block_size -
                     sequence->computed;
      int64_t budget = options_.max_step_tokens - plan.num_tokens;
      int32_t chunk = static_cast<int32_t>(
          std::min({static_cast<int64_t>(sequence->remaining()), room, budget}));
      if (sequence->params.num_prompt_logprobs >= 0) {
        chunk = std::min(chunk, logits_rows);
        logits_rows -= chunk;
      }
      if (chunk > 0) CHECK(schedule(*sequence, chunk, plan));
    }
    if (plan.items.empty()) {
      // Several prompts hold all blocks between them. One sequence alone always fits.
      if (running_.size() > 1) preempt_youngest();
      preempted = !running_.empty();
    }
  }
  return plan;
}

void Scheduler::complete(Sequence& sequence) {
  sequence.computed += sequence.scheduled;
  sequence.scheduled = 0;
}

std::unique_ptr<Sequence> Scheduler::finish(SequenceId id) {
  auto take = [id](auto& list) -> std::unique_ptr<Sequence> {
    auto it = std::find_if(list.begin(), list.end(),
                           [id](const auto& sequence) { return sequence->id == id; });
    if (it == list.end()) return nullptr;
    std::unique_ptr<Sequence> sequence = std::move(*it);
    list.erase(it);
    return sequence;
  };
  std::unique_ptr<Sequence> found = take(running_);
  if (!found) found = take(waiting_);
  if (!found) found = take(paused_);
  if (found) {
    found->scheduled = 0;
    blocks_.release(found->block_table);
  }
  return found;
}

void Scheduler::check() const {
  std::vector<const std::vector<int32_t>*> tables;
  for (const auto& sequence : running_) {
    CHECK(sequence->computed >= 0 && sequence->scheduled >= 0);
    CHECK(sequence->computed + sequence->scheduled <= sequence->total());
    CHECK(sequence->total() <= sequence->max_tokens);
    int32_t held = static_cast<int32_t>(sequence->block_table.size());
    CHECK(held == blocks_for(sequence->computed + sequence->scheduled));
    tables.push_back(&sequence->block_table);
  }
  for (const auto& sequence : waiting_) {
    CHECK(sequence->computed == 0 && sequence->scheduled == 0 && sequence->block_table.empty());
  }
  CHECK(running_.size() <= static_cast<size_t>(options_.max_sequences));
  blocks_.check(tables);
}

}  // namespace bise
