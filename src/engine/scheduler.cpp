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
  CHECK(sequence->total() >= 1 && sequence->total() < sequence->max_tokens);
  CHECK(blocks_for(sequence->max_tokens) <= blocks_.num_blocks());
  CHECK(sequence->computed == 0 && sequence->block_table.empty());
  waiting_.push_back(std::move(sequence));
}

Sequence* Scheduler::find(SequenceId id) const {
  for (const auto& sequence : running_) {
    if (sequence->id == id) return sequence.get();
  }
  for (const auto& sequence : waiting_) {
    if (sequence->id == id) return sequence.get();
  }
  return nullptr;
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
  waiting_.push_front(std::move(sequence));
}

StepPlan Scheduler::plan() {
  StepPlan plan;
  bool preempted = false;
  while (plan.items.empty() && !empty()) {
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
  auto has_id = [id](const std::unique_ptr<Sequence>& sequence) { return sequence->id == id; };
  std::unique_ptr<Sequence> found;
  if (auto it = std::find_if(running_.begin(), running_.end(), has_id); it != running_.end()) {
    found = std::move(*it);
    running_.erase(it);
  } else if (auto at = std::find_if(waiting_.begin(), waiting_.end(), has_id);
             at != waiting_.end()) {
    found = std::move(*at);
    waiting_.erase(at);
  }
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
