#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/random.h"

namespace bise {
namespace {

std::unique_ptr<Sequence> make_sequence(SequenceId id, int32_t prompt, int32_t max_tokens) {
  auto sequence = std::make_unique<Sequence>();
  sequence->id = id;
  sequence->tokens.assign(static_cast<size_t>(prompt), 1);
  sequence->prompt_tokens = prompt;
  sequence->max_tokens = max_tokens;
  return sequence;
}

// What the engine does with a plan, without a model: every sampled token is 7.
void run(Scheduler& scheduler, const StepPlan& plan) {
  for (Sequence* sequence : plan.items) {
    bool samples = sequence->samples();
    scheduler.complete(*sequence);
    if (!samples) continue;
    sequence->tokens.push_back(7);
    if (sequence->total() == sequence->max_tokens) scheduler.finish(sequence->id);
  }
}

TEST(block_manager, blocks_are_free_or_used) {
  BlockManager blocks(4);
  std::vector<int32_t> a, b;
  ASSERT_TRUE(blocks.grow(a, 2));
  EXPECT_TRUE(blocks.grow(a, 1)) << "never shrinks";
  EXPECT_EQ(a.size(), 2u);
  EXPECT_FALSE(blocks.grow(b, 3));
  EXPECT_TRUE(b.empty()) << "a refusal takes nothing";
  ASSERT_TRUE(blocks.grow(b, 2));
  EXPECT_EQ(blocks.num_free(), 0);
  blocks.check(std::vector<const std::vector<int32_t>*>{&a, &b});
  blocks.release(a);
  EXPECT_EQ(blocks.num_free(), 2);
  blocks.check(std::vector<const std::vector<int32_t>*>{&b});
  blocks.release(b);
  EXPECT_EQ(blocks.num_free(), 4);
  blocks.check({});
}

TEST(block_manager_death, a_table_that_nobody_owns_is_noticed) {
  BlockManager blocks(2);
  std::vector<int32_t> table;
  ASSERT_TRUE(blocks.grow(table, 1));
  EXPECT_DEATH(blocks.check({}), "CHECK");
  std::vector<int32_t> copy = table;
  blocks.release(table);
  EXPECT_DEATH(blocks.release(copy), "CHECK");
}

TEST(scheduler, a_prompt_is_read_in_chunks_beside_decodes) {
  BlockManager blocks(100);
  Scheduler scheduler({.max_step_tokens = 8, .max_sequences = 4, .block_size = 4}, blocks);
  scheduler.add(make_sequence(1, 5, 20));
  StepPlan plan = scheduler.plan();
  ASSERT_EQ(plan.items.size(), 1u);
  EXPECT_EQ(plan.items[0]->scheduled, 5);
  EXPECT_TRUE(plan.items[0]->samples());
  run(scheduler, plan);

  scheduler.add(make_sequence(2, 20, 30));
  std::vector<int32_t> chunks;
  for (int i = 0; i < 3; ++i) {
    plan = scheduler.plan();
    ASSERT_EQ(plan.items.size(), 2u);
    EXPECT_EQ(plan.items[0]->id, 1u);
    EXPECT_EQ(plan.items[0]->scheduled, 1);
    chunks.push_back(plan.items[1]->scheduled);
    EXPECT_LE(plan.num_tokens, 8);
    EXPECT_EQ(plan.items[1]->samples(), i == 2);
    run(scheduler, plan);
    scheduler.check();
  }
  EXPECT_EQ(chunks, (std::vector<int32_t>{7, 7, 6}));
}

TEST(scheduler, when_blocks_run_out_the_youngest_starts_again) {
  BlockManager blocks(4);
  Scheduler scheduler({.max_step_tokens = 16, .max_sequences = 4, .block_size = 4}, blocks);
  scheduler.add(make_sequence(1, 4, 16));
  scheduler.add(make_sequence(2, 4, 16));
  size_t preemptions = 0, steps = 0;
  std::vector<SequenceId> order;
  while (!scheduler.empty()) {
    StepPlan plan = scheduler.plan();
    ASSERT_FALSE(plan.items.empty());
    preemptions += scheduler.num_waiting();
    run(scheduler, plan);
    scheduler.check();
    for (SequenceId id : {SequenceId{1}, SequenceId{2}}) {
      bool listed = std::find(order.begin(), order.end(), id) != order.end();
      if (!listed && scheduler.find(id) == nullptr) order.push_back(id);
    }
    ASSERT_LT(++steps, 100u);
  }
  EXPECT_GT(preemptions, 0u);
  EXPECT_EQ(order, (std::vector<SequenceId>{1, 2}));
  EXPECT_EQ(blocks.num_free(), 4);
}

TEST(scheduler, the_limit_of_running_sequences_holds) {
  BlockManager blocks(100);
  Scheduler scheduler({.max_step_tokens = 64, .max_sequences = 2, .block_size = 4}, blocks);
  for (SequenceId id = 1; id <= 3; ++id) scheduler.add(make_sequence(id, 2, 4));
  StepPlan plan = scheduler.plan();
  EXPECT_EQ(plan.items.size(), 2u);
  EXPECT_EQ(scheduler.num_waiting(), 1u);
  run(scheduler, plan);
}

TEST(scheduler, a_short_prompt_does_not_wait_for_the_long_ones_before_it) {
  BlockManager blocks(1000);
  Scheduler scheduler({.max_step_tokens = 100, .max_sequences = 8, .block_size = 4}, blocks);
  for (SequenceId id : {1, 2}) scheduler.add(make_sequence(id, 1000, 1001));
  run(scheduler, scheduler.plan());
  scheduler.add(make_sequence(3, 50, 60));
  StepPlan plan = scheduler.plan();
  ASSERT_EQ(plan.items.size(), 2u);
  EXPECT_EQ(plan.items[0]->id, 3u);
  EXPECT_TRUE(plan.items[0]->samples());
  EXPECT_EQ(plan.items[1]->id, 1u) << "what is left of the step is for the oldest";
  EXPECT_EQ(plan.items[1]->scheduled, 50);
  run(scheduler, plan);
}

TEST(scheduler, who_fits_may_pass_who_does_not_but_not_for_ever) {
  BlockManager blocks(25);  // 100 tokens
  Scheduler scheduler({.max_step_tokens = 100, .max_sequences = 8, .block_size = 4}, blocks);
  scheduler.add(make_sequence(1, 60, 80));
  run(scheduler, scheduler.plan());
  scheduler.add(make_sequence(2, 50, 60));  // fits when the first is done
  for (SequenceId id = 3; id < 30; ++id) scheduler.add(make_sequence(id, 10, 11));
  std::vector<SequenceId> order;
  for (int step = 0; !scheduler.empty(); ++step) {
    ASSERT_LT(step, 200);
    StepPlan plan = scheduler.plan();
    for (Sequence* sequence : plan.items) {
      if (std::find(order.begin(), order.end(), sequence->id) == order.end()) order.push_back(sequence->id);
    }
    run(scheduler, plan);
    scheduler.check();
  }
  ASSERT_EQ(order.size(), 29u);
  const auto place = std::find(order.begin(), order.end(), SequenceId{2}) - order.begin();
  EXPECT_EQ(place, 7) << "five of ten tokens pass one of fifty; a sixth begins with it";
  EXPECT_EQ(order[1], 3u);
}

TEST(scheduler, long_prompts_of_one_tenant_are_read_one_after_the_other) {
  BlockManager blocks(1000);
  Scheduler scheduler({.max_step_tokens = 100, .max_sequences = 8, .block_size = 4}, blocks);
  for (SequenceId id : {1, 2, 3}) scheduler.add(make_sequence(id, 1000, 1001));
  std::vector<SequenceId> ended;
  for (int step = 0; step < 100 && ended.size() < 3; ++step) {
    run(scheduler, scheduler.plan());
    for (SequenceId id : {SequenceId{1}, SequenceId{2}, SequenceId{3}}) {
      const bool listed = std::find(ended.begin(), ended.end(), id) != ended.end();
      if (!listed && scheduler.find(id) == nullptr) ended.push_back(id);
    }
    if (step == 9) {
      EXPECT_EQ(ended.size(), 1u);
    }
  }
  EXPECT_EQ(ended, (std::vector<SequenceId>{1, 2, 3}));
}

TEST(scheduler, a_long_prompt_keeps_half_of_its_speed_however_many_short_ones_come) {
  BlockManager blocks(4000);
  Scheduler scheduler({.max_step_tokens = 100, .max_sequences = 64, .block_size = 4}, blocks);
  scheduler.add(make_sequence(1, 2000, 2001));
  SequenceId next_id = 2;
  int steps = 0, shorts_done = 0;
  while (scheduler.find(1) != nullptr) {
    // More than the machine can read.
    for (int i = 0; i < 3 && scheduler.num_waiting() < 4; ++i) scheduler.add(make_sequence(next_id++, 45, 46));
    const size_t before = scheduler.all().size();
    run(scheduler, scheduler.plan());
    scheduler.check();
    shorts_done += static_cast<int>(before - scheduler.all().size());
    ASSERT_LT(++steps, 100);
  }
  EXPECT_GE(steps, 38) << "and the short ones have the other half";
  EXPECT_LE(steps, 42);
  EXPECT_GE(shorts_done, 40);
}

// Arrivals, steps, failures and cancels in random order: after every step the books balance, every
// plan makes progress within its budget, and every sequence that is not cancelled ends at its
// length.
TEST(scheduler, random_arrivals_and_cancels_keep_the_books_balanced) {
  for (uint64_t seed = 0; seed < 40 / BISE_TEST_SHARE; ++seed) {
    uint64_t draws = 0;
    auto below = [&](uint64_t n) { return random_bits(seed, 3, draws++) % n; };
    const int32_t block_size = static_cast<int32_t>(1 + below(8));
    const int32_t num_blocks = static_cast<int32_t>(4 + below(30));
    SchedulerOptions options;
    options.max_sequences = static_cast<int32_t>(1 + below(6));
    options.max_step_tokens = options.max_sequences + static_cast<int32_t>(below(20));
    options.block_size = block_size;
    BlockManager blocks(num_blocks);
    Scheduler scheduler(options, blocks);
    std::map<SequenceId, int32_t> live;  // id -> max_tokens
    SequenceId next_id = 1;
    for (int step = 0; step < 400 || !scheduler.empty(); ++step) {
      ASSERT_LT(step, 100000) << "seed " << seed;
      while (step < 400 && below(3) == 0) {
        uint64_t capacity = static_cast<uint64_t>(num_blocks) * static_cast<uint64_t>(block_size);
        int32_t max_tokens = static_cast<int32_t>(2 + below(capacity - 1));
        int32_t prompt = static_cast<int32_t>(1 + below(static_cast<uint64_t>(max_tokens) - 1));
        live[next_id] = max_tokens;
        scheduler.add(make_sequence(next_id++, prompt, max_tokens));
      }
      if (!live.empty() && below(6) == 0) {
        SequenceId id = 1 + below(next_id);
        bool known = live.erase(id) > 0;
        ASSERT_EQ(scheduler.finish(id) != nullptr, known);
        scheduler.check();
      }
      StepPlan plan = scheduler.plan();
      scheduler.check();
      ASSERT_EQ(plan.items.empty(), scheduler.empty()) << "seed " << seed;
      ASSERT_LE(plan.num_tokens, options.max_step_tokens);
      int32_t total = 0;
      std::set<Sequence*> distinct(plan.items.begin(), plan.items.end());
      ASSERT_EQ(distinct.size(), plan.items.size());
      for (Sequence* sequence : plan.items) {
        ASSERT_GT(sequence->scheduled, 0);
        total += sequence->scheduled;
      }
      ASSERT_EQ(total, plan.num_tokens);
      run(scheduler, plan);
      for (auto it = live.begin(); it != live.end();) {
        it = scheduler.find(it->first) == nullptr ? live.erase(it) : std::next(it);
      }
      scheduler.check();
    }
    EXPECT_TRUE(live.empty());
    EXPECT_EQ(blocks.num_free(), num_blocks);
  }
}

}  // namespace
}  // namespace bise
