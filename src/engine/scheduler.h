// Scheduler: waiting and running sequences to the plan of one step: decodes first, one token each,
// then chunks of prompts up to the budget of tokens and, beside decodes, of time. Whose prompt, and
// who is admitted, is a matter of turns (FairQueue). Blocks are handed out as a sequence grows; when
// they run out, the youngest sequence of the tenant with most of them gives its own back and starts
// again later. Recomputing is exact: results do not depend on chunks. Host only, knows no model. One
// thread.
//
//   waiting  ->  running  ->  finished        pause() and preemption lead back to the left: computed
//                                             is 0 then, but what the prefix cache still has at the
//                                             next admission is not computed again
#pragma once

#include <memory>
#include <vector>

#include "engine/block_manager.h"
#include "engine/fair_queue.h"
#include "engine/sequence.h"
#include "engine/step_cost.h"

namespace bise {

struct SchedulerOptions {
  int32_t max_step_tokens = 512;
  int32_t max_sequences = 16;  // running at the same time
  int32_t block_size = 32;
  // Rows of a step whose logits may be wanted for tokens of prompts.
  int32_t max_logits_rows = 512;
  int32_t fair_quantum = 4096;  // tokens
  // Of a step with decodes: seconds, or times of the decodes alone; see EngineOptions. 0: no bound.
  double max_step_seconds = 0.0;
  double max_step_stretch = 0.0;
};

// The rows of one step, in order: item i computes item->scheduled tokens from item->computed on.
struct StepPlan {
  std::vector<Sequence*> items;
  int32_t num_tokens = 0;
  StepShape shape;
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
  // Of those that wait, the ones that never ran.
  size_t num_new() const;
  size_t num_running() const { return running_.size(); }
  Sequence* find(SequenceId id) const;
  std::vector<Sequence*> all() const;
  void add_stats(EngineStats& stats) const;

  // Sets `scheduled` of the sequences in the plan. Never empty while has_work(). complete() or
  // finish() of each must follow before the next plan.
  StepPlan plan();
  // The step was run: computed += scheduled, and whole blocks go to the prefix cache.
  void complete(Sequence& sequence);
  // How long it took, of what was complete.
  void observe(const StepPlan& plan, double seconds) { cost_.observe(plan.shape, seconds); }
  // Takes the sequence out of the plans until resume(); it gives up its place and blocks. Not
  // between plan() and complete(). Unknown ids are ignored.
  void pause(SequenceId id);
  void resume(SequenceId id);
  // Takes the sequence out and frees its blocks; nullptr when there is none with this id.
  std::unique_ptr<Sequence> finish(SequenceId id);

  // CHECKs counters, tables, blocks and what is in the prefix cache. Costs time in proportion to the
  // cache.
  void check() const;

 private:
  // scheduler.cpp
  int32_t blocks_for(int32_t num_tokens) const;
  BlockContents contents_of(const Sequence& sequence, int32_t index,
                            std::vector<uint64_t>& image_words) const;
  void give_up(Sequence& sequence);
  std::unique_ptr<Sequence> stop_running(size_t index);

  // scheduler_plan.cpp
  bool schedule(Sequence& sequence, int32_t num_tokens, StepPlan& plan);
  bool is_ready(const Sequence& sequence) const;
  int32_t find_prefix(const Sequence& sequence, std::vector<int32_t>& blocks,
                      int32_t& num_idle) const;
  bool try_admit(const Sequence& next);
  bool admit_past(Sequence& next);
  void admit();
  void make_places();
  size_t youngest_of_largest(size_t first) const;
  void preempt(size_t index);
  bool plan_decodes(StepPlan& plan);
  void plan_prompts(StepPlan& plan);
  int32_t time_for(const StepPlan& plan, const Sequence& sequence) const;

  const SchedulerOptions options_;
  BlockManager& blocks_;
  FairQueue waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in the order of admission, oldest first
  std::vector<std::unique_ptr<Sequence>> paused_;
  StepCost cost_;
  uint64_t preemptions_ = 0, fair_preemptions_ = 0;
  uint64_t queried_tokens_ = 0, hit_tokens_ = 0;
};

}  // namespace bise
