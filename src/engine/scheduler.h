// Scheduler: waiting and running sequences to the plan of one step: decodes first, one token each,
// then chunks of prompts, oldest first, up to the budget of tokens. Blocks are handed out as a
// sequence grows; when they run out, the youngest sequence gives its own back and starts again
// later (recomputing is exact: results do not depend on chunks). Host only, knows no model. One
// thread.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "engine/block_manager.h"
#include "engine/sequence.h"

namespace bise {

struct SchedulerOptions {
  int32_t max_step_tokens = 512;
  int32_t max_sequences = 16;  // running at the same time
  int32_t block_size = 32;
  // Rows of a step whose logits may be wanted for tokens of prompts.
  int32_t max_logits_rows = 512;
};

// The rows of one step, in order: item i computes item->scheduled tokens from item->computed on.
struct StepPlan {
  std::vector<Sequence*> items;
  int32_t num_tokens = 0;
};

class Scheduler {
 public:
  Scheduler(const SchedulerOptions& options, BlockManager& blocks);

  // The sequence must fit the cache alone: max_tokens tokens in all blocks.
  void add(std::unique_ptr<Sequence> sequence);
  bool empty() const { return waiting_.empty() && running_.empty() && paused_.empty(); }
  // Whether there is a sequence that is not paused.
  bool has_work() const { return !waiting_.empty() || !running_.empty(); }
  size_t num_waiting() const { return waiting_.size(); }
  size_t num_running() const { return running_.size(); }
  Sequence* find(SequenceId id) const;
  std::vector<Sequence*> all() const;
  void add_stats(EngineStats& stats) const;

  // Sets `scheduled` of the sequences in the plan. Never empty while has_work().
  // complete() or finish() of each must follow before the next plan.
  StepPlan plan();
  // The step was run: computed += scheduled.
  void complete(Sequence& sequence);
  // Takes the sequence out of the plans until resume(); it gives up its blocks. Not for one in the
  // step that is being run. Unknown ids are ignored.
  void pause(SequenceId id);
  void resume(SequenceId id);
  // Takes the sequence out and frees its blocks; nullptr when there is none with this id.
  std::unique_ptr<Sequence> finish(SequenceId id);

  // CHECKs counters, tables and blocks. Costs time in proportion to the cache.
  void check() const;

 private:
  bool schedule(Sequence& sequence, int32_t num_tokens, StepPlan& plan);
  void preempt_youngest();
  int32_t blocks_for(int32_t num_tokens) const;

  const SchedulerOptions options_;
  BlockManager& blocks_;
  std::deque<std::unique_ptr<Sequence>> waiting_;   // oldest first
  std::vector<std::unique_ptr<Sequence>> running_;  // in the order of admission, oldest first
  std::vector<std::unique_ptr<Sequence>> paused_;
  uint64_t preemptions_ = 0;
};

}  // namespace bise
