// The plan of one step: who is admitted, who decodes, whose prompt is read and how much of it.
#include <algorithm>
#include <string>
#include <utility>

#include "engine/scheduler.h"

namespace bise {

bool Scheduler::schedule(Sequence& sequence, int32_t num_tokens, StepPlan& plan) {
  if (!blocks_.grow(sequence.block_table, blocks_for(sequence.computed + num_tokens))) return false;
  const bool is_decode = sequence.remaining() == 1;
  const double n = num_tokens;
  const double attended = n * sequence.computed + n * (n + 1) / 2;
  sequence.scheduled = num_tokens;
  plan.items.push_back(&sequence);
  plan.num_tokens += num_tokens;
  (is_decode ? plan.shape.decode_rows : plan.shape.prompt_rows) += num_tokens;
  (is_decode ? plan.shape.decode_attended : plan.shape.prompt_attended) += attended;
  return true;
}

// --- admission ----------------------------------------------------------------------------------------

// The answers of a group wait until one of them has read the blocks of the prompt they share.
bool Scheduler::is_ready(const Sequence& sequence) const {
  if (sequence.salt.empty()) return true;
  const int32_t shared =
      (sequence.prompt_tokens - 1) / options_.block_size * options_.block_size;
  return std::none_of(running_.begin(), running_.end(), [&](const auto& other) {
    return other->group == sequence.group && other->computed < shared;
  });
}

// The cached blocks that the sequence can begin with; how many of them nobody owns. At least its
// last token is left to compute, and all rows whose logits are wanted.
int32_t Scheduler::find_prefix(const Sequence& sequence, std::vector<int32_t>& blocks,
                               int32_t& num_idle) const {
  blocks.clear();
  num_idle = 0;
  if (sequence.salt.empty()) return 0;
  int32_t limit = sequence.total() - 1;
  if (sequence.params.num_prompt_logprobs >= 0 &&
      sequence.prompt_logprobs < sequence.prompt_tokens) {
    limit = sequence.prompt_logprobs - 1;
  }
  std::vector<uint64_t> image_words;
  int32_t last = PrefixCache::kNone;
  for (int32_t i = 0; (i + 1) * options_.block_size <= limit; ++i) {
    bool is_idle = false;
    last = blocks_.find_next(last, contents_of(sequence, i, image_words), is_idle);
    if (last == PrefixCache::kNone) break;
    blocks.push_back(last);
    num_idle += is_idle ? 1 : 0;
  }
  return static_cast<int32_t>(blocks.size()) * options_.block_size;
}

// Admits the sequence if there is a place and room for its tokens and one more.
bool Scheduler::try_admit(const Sequence& next) {
  if (num_running() >= static_cast<size_t>(options_.max_sequences)) return false;
  std::vector<int32_t> prefix;
  int32_t num_idle = 0;
  const int32_t hit = find_prefix(next, prefix, num_idle);
  const int32_t need = blocks_for(std::min(next.total() + 1, next.max_tokens));
  const int32_t fresh = need - static_cast<int32_t>(prefix.size());
  if (fresh + num_idle > blocks_.num_available()) return false;

  std::unique_ptr<Sequence> sequence = waiting_.take(next.id);
  for (int32_t block : prefix) blocks_.take(sequence->block_table, block);
  sequence->computed = hit;
  sequence->kept_blocks = static_cast<int32_t>(prefix.size());
  if (sequence->cached_tokens < 0) {  // for the first time
    sequence->cached_tokens = hit;
    queried_tokens_ += static_cast<uint64_t>(sequence->prompt_tokens);
    hit_tokens_ += static_cast<uint64_t>(hit);
  }
  waiting_.started(*sequence);
  running_.push_back(std::move(sequence));
  return true;
}

void Scheduler::admit() {
  for (;;) {
    Sequence* next = waiting_.next([this](const Sequence& s) { return is_ready(s); });
    if (next == nullptr || (!try_admit(*next) && !admit_past(*next))) return;
  }
}

// There are too few blocks for `next`, whose turn it is. A shorter one that fits may pass, until those
// that passed have as many tokens as it has: then it waits for nobody but those that run.
bool Scheduler::admit_past(Sequence& next) {
  if (num_running() >= static_cast<size_t>(options_.max_sequences)) return false;
  if (next.cached_tokens >= 0) return false;  // who was preempted comes back before others
  const int32_t left = next.total() - next.passed;
  Sequence* shorter = waiting_.next([&](const Sequence& s) {
    return &s != &next && s.total() <= left && blocks_for(s.total() + 1) <= blocks_.num_available() && is_ready(s);
  });
  if (shorter == nullptr) return false;
  const int32_t tokens = shorter->total();
  if (!try_admit(*shorter)) return false;
  next.passed += tokens;
  return true;
}

// A tenant that has two sequences more running than the one whose turn it is gives the youngest of
// them back, when the other would have to wait for a place or for blocks.
void Scheduler::make_places() {
  while (!waiting_.empty() && !running_.empty()) {
    Sequence* next = waiting_.next([this](const Sequence& s) { return is_ready(s); });
    if (next == nullptr || try_admit(*next)) return;  // admit() goes on
    const size_t index = youngest_of_largest(0);
    if (waiting_.running(running_[index]->tenant) < waiting_.running(next->tenant) + 2) return;
    ++fair_preemptions_;
    std::unique_ptr<Sequence> sequence = stop_running(index);
    give_up(*sequence);
    waiting_.push_front(std::move(sequence));
  }
}

// --- preemption ---------------------------------------------------------------------------------------

// Of the running sequences from index `first` on: the youngest of the tenant that has most running.
// The oldest of all is never it unless it is alone, so that there is always one that comes to its end.
size_t Scheduler::youngest_of_largest(size_t first) const {
  size_t best = running_.size() - 1;
  int32_t most = waiting_.running(running_[best]->tenant);
  for (size_t i = running_.size(); i-- > first;) {
    int32_t count = waiting_.running(running_[i]->tenant);
    if (count > most) best = i, most = count;
  }
  return best;
}

void Scheduler::preempt(size_t index) {
  CHECK(running_[index]->scheduled == 0);
  std::unique_ptr<Sequence> sequence = stop_running(index);
  give_up(*sequence);
  waiting_.push_front(std::move(sequence));
  ++preemptions_;
}

// --- the plan -----------------------------------------------------------------------------------------

// One token of each sequence whose prompt is read, oldest first. Returns whether anybody was
// preempted for want of blocks.
bool Scheduler::plan_decodes(StepPlan& plan) {
  bool preempted = false;
  for (size_t i = 0; i < running_.size();) {
    if (running_[i]->remaining() != 1 || running_[i]->scheduled > 0) {
      ++i;
      continue;
    }
    if (schedule(*running_[i], 1, plan)) {
      ++i;
      continue;
    }
    preempt(youngest_of_largest(i));  // behind i or i itself: none of them is in the plan yet
    preempted = true;
  }
  return preempted;
}

// How many tokens of this prompt the step has time for.
int32_t Scheduler::time_for(const StepPlan& plan, const Sequence& sequence) const {
  const bool is_bounded = options_.max_step_seconds > 0.0 || options_.max_step_stretch > 0.0;
  if (!is_bounded || plan.shape.decode_rows == 0) return options_.max_step_tokens;
  if (cost_.wants_decodes_alone(plan.shape)) return 0;
  double bound = options_.max_step_seconds > 0.0
                     ? options_.max_step_seconds
                     : options_.max_step_stretch * cost_.decode_seconds(plan.shape);
  return cost_.prompt_tokens(plan.shape, sequence.computed, bound);
}

// Chunks of prompts take what is left of tokens, blocks and time, by turns.
void Scheduler::plan_prompts(StepPlan& plan) {
  int32_t logits_rows = options_.max_logits_rows;
  std::vector<Sequence*> prompts;  // oldest first
  for (const auto& sequence : running_) {
    if (sequence->scheduled == 0) prompts.push_back(sequence.get());
  }
  while (!prompts.empty() && plan.num_tokens < options_.max_step_tokens) {
    const FairQueue::Turn turn = waiting_.turn(prompts);
    Sequence& sequence = *prompts[turn.index];
    prompts.erase(prompts.begin() + static_cast<ptrdiff_t>(turn.index));

    const int32_t held = static_cast<int32_t>(sequence.block_table.size());
    const int64_t room = (int64_t{held} + blocks_.num_available()) * options_.block_size;
    int64_t chunk = std::min<int64_t>(sequence.remaining(), room - sequence.computed);
    chunk = std::min<int64_t>(chunk, options_.max_step_tokens - plan.num_tokens);
    const int32_t in_time = time_for(plan, sequence);
    if (in_time <= 0) return;
    chunk = std::min<int64_t>(chunk, in_time);
    if (sequence.params.num_prompt_logprobs >= 0) {
      chunk = std::min<int64_t>(chunk, logits_rows);
      logits_rows -= static_cast<int32_t>(std::max<int64_t>(chunk, 0));
    }
    if (chunk <= 0) continue;
    waiting_.charge(turn, sequence, static_cast<int32_t>(chunk));
    CHECK(schedule(sequence, static_cast<int32_t>(chunk), plan));
  }
}

StepPlan Scheduler::plan() {
  StepPlan plan;
  make_places();
  bool preempted = false;
  while (plan.items.empty() && has_work()) {
    preempted |= plan_decodes(plan);
    // After a preemption nobody is admitted: the blocks just freed are for those that run.
    if (!preempted) admit();
    plan_prompts(plan);
    if (!plan.items.empty()) break;
    // Several prompts hold all blocks between them. One sequence alone always fits.
    if (running_.size() > 1) preempt(youngest_of_largest(0));
    preempted = !running_.empty();
  }
  return plan;
}

}  // namespace bise
