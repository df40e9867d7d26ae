// Prefix cache, groups and preemption over the tiny golden checkpoints: the answers are the same bit
// for bit, with fewer tokens computed.
#include <gtest/gtest.h>

#include <algorithm>

#include "engine/engine.h"
#include "engine/engine_support.h"

namespace bise {
namespace {

EngineOptions with_cache(bool prefix_cache, int64_t kv_tokens = 2048) {
  EngineOptions options;
  options.prefix_cache = prefix_cache;
  options.kv_tokens = kv_tokens;
  return options;
}

// Conversations: each prompt begins with one of three beginnings and goes its own way.
std::vector<NewSequence> branching_sequences(int32_t vocab_size) {
  std::vector<NewSequence> sequences;
  for (uint64_t i = 0; i < 9; ++i) {
    NewSequence sequence = sampled_sequence(100 + i, 8 + 9 * i, vocab_size);
    std::vector<int32_t> ids = random_prompt(i % 3, 96 + 7 * (i % 3), vocab_size);
    ids.insert(ids.end(), sequence.ids.begin() + 1, sequence.ids.end());
    sequence.ids = std::move(ids);
    sequences.push_back(std::move(sequence));
  }
  return sequences;
}

TEST(engine_cache, answers_are_the_same_with_and_without_the_cache) {
  GoldenModel m = open_model("ministral");
  ASSERT_TRUE(m.model);
  std::vector<NewSequence> sequences = branching_sequences(m.model->config().vocab_size);
  auto plain = make_engine(m, with_cache(false));
  std::vector<std::string> expected = answers(*plain, sequences);
  EXPECT_EQ(plain->stats().prefix_hit_tokens, 0u);
  // A large cache, one of few blocks that evicts and preempts, and small chunks.
  struct Case {
    int64_t kv_tokens;
    int32_t chunk, sequences;
  };
  uint64_t evicted = 0, preemptions = 0;
  for (const Case& c : {Case{4096, 512, 16}, Case{320, 512, 16}, Case{256, 19, 4}}) {
    EngineOptions options = with_cache(true, c.kv_tokens);
    options.max_step_tokens = c.chunk;
    options.max_sequences = c.sequences;
    auto engine = make_engine(m, options);
    for (int round = 0; round < 3; ++round) {
      EXPECT_EQ(answers(*engine, sequences), expected) << c.kv_tokens << " round " << round;
    }
    EngineStats stats = engine->stats();
    EXPECT_GT(stats.prefix_hit_tokens, 0u);
    EXPECT_EQ(stats.free_blocks + stats.cached_blocks, stats.total_blocks);
    evicted += stats.evicted_blocks;
    preemptions += stats.preemptions;
  }
  EXPECT_GT(evicted, 0u);
  EXPECT_GT(preemptions, 0u);
}

TEST(engine_cache, cached_tokens_are_whole_blocks_and_leave_the_last_token) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  auto engine = make_engine(m, with_cache(true));
  NewSequence sequence = sampled_sequence(1, 3 * kKvBlockSize, m.model->config().vocab_size);
  auto cached = [&] { return engine->generate(sequence, {})->cached_tokens; };
  EXPECT_EQ(cached(), 0);
  EXPECT_EQ(cached(), 2 * kKvBlockSize) << "the last token is in the third block";
  sequence.ids.push_back(1000);
  EXPECT_EQ(cached(), 3 * kKvBlockSize);
  sequence.ids[kKvBlockSize + 3] += 1;
  EXPECT_EQ(cached(), kKvBlockSize);
  sequence.cache_salt = "another";
  EXPECT_EQ(cached(), 0) << "salts do not share";
  EXPECT_EQ(cached(), 3 * kKvBlockSize);

  EngineStats stats = engine->stats();
  EXPECT_EQ(stats.prefix_queried_tokens, static_cast<uint64_t>(2 * 96 + 4 * 97));
  EXPECT_EQ(stats.prefix_hit_tokens, static_cast<uint64_t>(9 * kKvBlockSize));
}

TEST(engine_cache, an_answer_is_found_again_in_the_next_turn) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  auto engine = make_engine(m, with_cache(true));
  NewSequence sequence = sampled_sequence(1, 40, m.model->config().vocab_size);
  sequence.params.max_tokens = 60;
  auto first = engine->generate(sequence, {});
  ASSERT_TRUE(first);
  sequence.ids.insert(sequence.ids.end(), first->ids.begin(), first->ids.end());
  sequence.ids.push_back(1001);
  // 99 tokens were computed: the last one drawn was not.
  EXPECT_EQ(engine->generate(sequence, {})->cached_tokens, 3 * kKvBlockSize);
}

TEST(engine_cache, pictures_count_by_their_pixels) {
  GoldenModel m = open_model("medium");
  ASSERT_TRUE(m.model);
  const VisionConfig& vision = *m.model->config().vision;
  auto conversation = [&](uint64_t first, uint64_t second) {
    NewSequence sequence;
    sequence.ids = {1, 3};
    append_picture(sequence, vision, first);
    sequence.ids.insert(sequence.ids.end(), 40, 1500);
    append_picture(sequence, vision, second);
    sequence.ids.insert(sequence.ids.end(), 30, 1501);
    sequence.params.max_tokens = 6;
    sequence.params.num_logprobs = 0;
    return sequence;
  };
  std::vector<NewSequence> sequences = {conversation(1, 2), conversation(1, 2), conversation(1, 3),
                                        conversation(4, 2)};
  auto plain = make_engine(m, with_cache(false, 512));
  auto engine = make_engine(m, with_cache(true, 512));
  std::vector<int64_t> cached;
  for (const NewSequence& sequence : sequences) {
    EXPECT_EQ(answers(*engine, {sequence}), answers(*plain, {sequence}));
    cached.push_back(static_cast<int64_t>(engine->stats().prefix_hit_tokens));
  }
  // 88 tokens: blocks end at 32 (first picture and text), 64 (the second picture begins at 50).
  EXPECT_EQ(cached, (std::vector<int64_t>{0, 64, 96, 96}));
  EXPECT_EQ(plain->stats().encoded_images, 8u);
  EXPECT_EQ(engine->stats().encoded_images, 5u) << "what is in the cache is not encoded again";
}

TEST(engine_cache, a_group_reads_its_prompt_once_and_draws_differently) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  for (bool prefix_cache : {false, true}) {
    auto engine = make_engine(m, with_cache(prefix_cache));
    NewSequence sequence = sampled_sequence(7, 100, m.model->config().vocab_size);
    std::string alone = answers(*engine, {sequence})[0];
    const uint64_t before = engine->stats().prompt_tokens;
    auto ids = engine->submit_group(sequence, 5);
    ASSERT_TRUE(ids);
    Transcript transcript;
    std::map<SequenceId, int32_t> index;
    while (!engine->idle()) {
      std::vector<SequenceEvent> events = engine->step();
      for (const SequenceEvent& event : events) index[event.sequence] = event.index;
      record(events, transcript);
      engine->check();
    }
    ASSERT_EQ(transcript.size(), 5u);
    EXPECT_EQ(transcript[(*ids)[0]], alone) << "the first one draws like one alone";
    EXPECT_NE(transcript[(*ids)[1]], alone);
    for (int32_t i = 0; i < 5; ++i) EXPECT_EQ(index[(*ids)[static_cast<size_t>(i)]], i);
    // The first reads what is not cached, the others the last 4 tokens of 100.
    EXPECT_EQ(engine->stats().prompt_tokens - before, prefix_cache ? 5u * 4 : 100u + 4 * 4);
    auto again = engine->submit_group(sequence, 5);
    ASSERT_TRUE(again);
    Transcript second;
    record(engine->step(), second);
    engine->cancel((*again)[0]);  // before or while it reads the prompt: another one takes over
    while (!engine->idle()) record(engine->step(), second), engine->check();
    for (size_t i = 1; i < 5; ++i) EXPECT_EQ(second[(*again)[i]], transcript[(*ids)[i]]);
  }
  auto engine = make_engine(m, with_cache(true));
  EXPECT_EQ(engine->submit_group(sampled_sequence(1, 9, 2000), 0).error().param(), "n");
  EXPECT_EQ(engine->submit_group(sampled_sequence(1, 9, 2000), 129).error().param(), "n");
}

TEST(engine_cache, pausing_and_resuming_loses_nothing) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  auto engine = make_engine(m, with_cache(true, 256));
  std::vector<NewSequence> sequences;
  for (uint64_t i = 0; i < 3; ++i) {
    sequences.push_back(sampled_sequence(i, 30 + 20 * i, m.model->config().vocab_size));
  }
  std::vector<std::string> expected = answers(*engine, sequences);
  Transcript transcript;
  std::vector<SequenceId> ids;
  for (const NewSequence& sequence : sequences) ids.push_back(*engine->submit(sequence));
  for (uint64_t step = 0; step < 1000 && !engine->idle(); ++step) {
    record(engine->step(), transcript);
    engine->check();
    SequenceId id = ids[random_bits(3, 1, step) % 3];
    engine->pause(id), engine->pause(id);
    engine->check();
    record(engine->step(), transcript);
    engine->resume(id), engine->resume(id);
    engine->check();
  }
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(transcript[ids[i]], expected[i]);

  SequenceId id = *engine->submit(sequences[0]);
  engine->step();
  engine->pause(id);
  EXPECT_TRUE(engine->idle());
  EXPECT_EQ(engine->stats().paused, 1);
  EXPECT_TRUE(engine->step().empty());
  engine->cancel(id);
  std::vector<SequenceEvent> events = engine->step();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].finish, FinishReason::cancelled);
  EXPECT_EQ(engine->stats().paused, 0);
}

}  // namespace
}  // namespace bise
