// What an answer may be limited to and what is told about it: masks, min_tokens, log-probabilities
// of the prompt, the queue.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "engine/engine.h"
#include "engine/engine_support.h"

namespace bise {
namespace {

// Allows the tokens of one residue class at each place, in turn; ends after `length` tokens.
class ResidueMask : public TokenMask {
 public:
  ResidueMask(int32_t vocab_size, int32_t length) : vocab_size_(vocab_size), length_(length) {}
  Result<bool> fill(std::span<uint32_t> bitmask) override {
    if (length_ == kDeadEnd && accepted_ == 3) return true;
    if (length_ == kBroken && accepted_ == 3) return Error(ErrorCode::internal, "fill says no");
    if (accepted_ % 5 == 4) return false;  // anything goes
    for (int32_t i = accepted_ % 7; i < vocab_size_; i += 7) {
      bitmask[static_cast<size_t>(i / 32)] |= uint32_t{1} << (i % 32);
    }
    return true;
  }
  Result<void> accept(int32_t token) override {
    if (length_ == kRefuses && accepted_ == 3) return Error(ErrorCode::internal, "accept says no");
    EXPECT_TRUE(accepted_ % 5 == 4 || token % 7 == accepted_ % 7) << token;
    ++accepted_;
    return {};
  }
  bool is_finished() const override { return accepted_ == length_; }

  static constexpr int32_t kDeadEnd = -1, kBroken = -2, kRefuses = -3;

 private:
  int32_t vocab_size_, length_, accepted_ = 0;
};

NewSequence masked_sequence(uint64_t seed, int32_t vocab_size, int32_t length) {
  NewSequence sequence = sampled_sequence(seed, 20 + 10 * seed, vocab_size);
  sequence.make_mask = [=]() -> Result<std::unique_ptr<TokenMask>> {
    return std::unique_ptr<TokenMask>(std::make_unique<ResidueMask>(vocab_size, length));
  };
  return sequence;
}

TEST(engine_output, a_mask_limits_every_token_and_may_end_the_sequence) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  const int32_t vocab_size = m.model->config().vocab_size;
  EngineOptions options;
  options.kv_tokens = 1024;
  auto engine = make_engine(m, options);
  std::vector<NewSequence> sequences;
  for (uint64_t i = 0; i < 4; ++i) sequences.push_back(masked_sequence(i, vocab_size, 9));
  std::vector<std::string> together = answers(*engine, sequences);
  for (size_t i = 0; i < sequences.size(); ++i) {
    EXPECT_EQ(answers(*engine, {sequences[i]})[0], together[i]);
    EXPECT_EQ(std::count(together[i].begin(), together[i].end(), ':'), 9);
    EXPECT_NE(together[i].find("stop"), std::string::npos);
  }
  // The same through preemption: a mask goes on where it was.
  options.kv_tokens = 128;
  auto tight = make_engine(m, options);
  EXPECT_EQ(answers(*tight, sequences), together);
  EXPECT_GT(tight->stats().preemptions, 0u);
  // Longer than max_tokens: the length ends it. Every answer of a group has a mask of its own.
  auto ids = engine->submit_group(masked_sequence(1, vocab_size, 100), 3);
  ASSERT_TRUE(ids);
  Transcript transcript;
  while (!engine->idle()) record(engine->step(), transcript);
  for (SequenceId id : *ids) EXPECT_NE(transcript[id].find("length"), std::string::npos);
}

TEST(engine_output, a_mask_that_fails_ends_its_sequence_alone) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  const int32_t vocab_size = m.model->config().vocab_size;
  EngineOptions options;
  options.kv_tokens = 1024;
  auto engine = make_engine(m, options);
  NewSequence good = sampled_sequence(5, 30, vocab_size);
  std::string alone = answers(*engine, {good})[0];
  std::vector<SequenceId> ids = {*engine->submit(good)};
  for (int32_t kind : {ResidueMask::kDeadEnd, ResidueMask::kBroken, ResidueMask::kRefuses}) {
    ids.push_back(*engine->submit(masked_sequence(1, vocab_size, kind)));
  }
  std::map<SequenceId, std::string> errors;
  Transcript transcript;
  while (!engine->idle()) {
    std::vector<SequenceEvent> events = engine->step();
    for (SequenceEvent& event : events) {
      if (!event.error) continue;
      errors[event.sequence] = event.error->message();
      EXPECT_EQ(event.finish, FinishReason::error);
      event.error.reset();
    }
    record(events, transcript);
    engine->check();
  }
  EXPECT_EQ(transcript[ids[0]], alone);
  EXPECT_NE(errors[ids[1]].find("allows no token"), std::string::npos);
  EXPECT_EQ(errors[ids[2]], "fill says no");
  EXPECT_EQ(errors[ids[3]], "accept says no");
  NewSequence refused = good;
  refused.make_mask = []() -> Result<std::unique_ptr<TokenMask>> {
    return Error(ErrorCode::invalid_argument, "no such grammar");
  };
  EXPECT_EQ(engine->submit(refused).error().message(), "no such grammar");
  EXPECT_TRUE(engine->idle());
}

TEST(engine_output, no_stop_token_comes_before_min_tokens) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  auto engine = make_engine(m);
  NewSequence sequence = sampled_sequence(2, 25, m.model->config().vocab_size);
  sequence.params.temperature = 0.0;
  sequence.params.stop_tokens = {engine->generate(sequence, {})->ids[0]};
  sequence.params.logit_bias = {{sequence.params.stop_tokens[0], 100.0f}};
  EXPECT_EQ(engine->generate(sequence, {})->ids.size(), 1u);
  sequence.params.min_tokens = 7;
  auto generated = engine->generate(sequence, {});
  ASSERT_EQ(generated->ids.size(), 8u);
  EXPECT_EQ(generated->finish, FinishReason::stop);
  sequence.params.min_tokens = 13;
  EXPECT_EQ(engine->generate(sequence, {}).error().param(), "min_tokens");
}

// Every token of the prompt once, whatever the chunks, the cache and preemption; bits as score() has.
TEST(engine_output, prompt_logprobs_are_those_of_score) {
  GoldenModel m = open_model("ministral");
  ASSERT_TRUE(m.model);
  const int32_t vocab_size = m.model->config().vocab_size;
  NewSequence sequence = sampled_sequence(3, 90, vocab_size);
  sequence.params.num_prompt_logprobs = 2;
  std::vector<int32_t> positions;
  for (int32_t i = 0; i + 1 < 90; ++i) positions.push_back(i);
  std::vector<SampledToken> expected;
  auto scorer = make_engine(m);
  ASSERT_TRUE(scorer->score(sequence.ids, {}, positions,
                            [&](int32_t position, std::span<const float> row) {
                              size_t next = static_cast<size_t>(position) + 1;
                              expected.push_back(token_logprobs(row, sequence.ids[next], 2));
                              return true;
                            }));
  struct Case {
    int32_t chunk;
    int64_t kv_tokens;
    bool prompt_only;
  };
  uint64_t preemptions = 0;
  for (const Case& c : {Case{512, 512, false}, Case{7, 512, false}, Case{11, 160, false},
                        Case{13, 512, true}, Case{512, 512, true}}) {
    EngineOptions options;
    options.max_step_tokens = c.chunk;
    options.max_sequences = 4;
    options.kv_tokens = c.kv_tokens;
    auto engine = make_engine(m, options);
    NewSequence plain = sequence;  // fills the cache with the same blocks first
    plain.params.num_prompt_logprobs = -1;
    std::string answer = answers(*engine, {plain})[0];
    sequence.prompt_only = c.prompt_only;
    std::map<SequenceId, std::vector<SampledToken>> seen;
    Transcript transcript;
    for (const char* salt : {"one", "two"}) {  // no blocks in common
      sequence.cache_salt = salt;
      ASSERT_TRUE(engine->submit(sequence));
    }
    while (!engine->idle()) {
      std::vector<SequenceEvent> events = engine->step();
      for (const SequenceEvent& event : events) {
        auto& list = seen[event.sequence];
        if (event.prompt_logprobs.empty()) continue;
        EXPECT_EQ(static_cast<size_t>(event.prompt_logprobs_first), list.size() + 1);
        list.insert(list.end(), event.prompt_logprobs.begin(), event.prompt_logprobs.end());
      }
      record(events, transcript);
      engine->check();
    }
    preemptions += engine->stats().preemptions;
    ASSERT_EQ(seen.size(), 2u);
    for (const auto& [id, list] : seen) {
      ASSERT_EQ(list.size(), expected.size());
      for (size_t i = 0; i < list.size(); ++i) {
        ASSERT_EQ(list[i].id, expected[i].id);
        ASSERT_EQ(list[i].logprob, expected[i].logprob) << i;
        ASSERT_EQ(list[i].top.size(), 2u);
        ASSERT_EQ(list[i].top[1].logprob, expected[i].top[1].logprob);
      }
      EXPECT_EQ(transcript[id], c.prompt_only ? "length" : answer);
    }
  }
  EXPECT_GT(preemptions, 0u);
}

TEST(engine_output, a_prompt_alone_may_fill_the_context) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  EngineOptions options;
  options.context = 64;
  auto engine = make_engine(m, options);
  NewSequence sequence = sampled_sequence(1, 64, m.model->config().vocab_size);
  EXPECT_FALSE(engine->submit(sequence));
  sequence.prompt_only = true;
  sequence.params.num_prompt_logprobs = 0;
  auto generated = engine->generate(sequence, {});
  ASSERT_TRUE(generated) << generated.error().message();
  EXPECT_TRUE(generated->ids.empty());
  EXPECT_EQ(generated->finish, FinishReason::length);
  EXPECT_EQ(engine->kv_tokens(), 64);
}

TEST(engine_output, a_full_queue_says_busy) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  EngineOptions options;
  options.kv_tokens = 512;
  options.max_waiting = 3;
  options.max_sequences = 1;
  auto engine = make_engine(m, options);
  NewSequence sequence = sampled_sequence(1, 20, m.model->config().vocab_size);
  EXPECT_EQ(engine->submit_group(sequence, 4).error().code(), ErrorCode::busy);
  ASSERT_TRUE(engine->submit_group(sequence, 3));
  auto refused = engine->submit(sequence);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::busy);
  EXPECT_NE(refused.error().message().find("3 sequences wait"), std::string::npos);
  engine->step();
  EXPECT_TRUE(engine->submit(sequence)) << "one of them runs now";
  engine->fail_all(Error(ErrorCode::device, "gone"));
  std::vector<SequenceEvent> events = engine->step();
  EXPECT_EQ(events.size(), 4u);
  for (const SequenceEvent& event : events) EXPECT_EQ(event.error->message(), "gone");
  EXPECT_TRUE(engine->idle());
  engine->check();
}

TEST(engine_output, a_bound_of_time_or_a_tenant_changes_no_answer) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  const int32_t vocab_size = m.model->config().vocab_size;
  std::vector<NewSequence> sequences;
  for (uint64_t i = 0; i < 8; ++i) {
    sequences.push_back(sampled_sequence(i, 20 + 40 * i, vocab_size));
    sequences.back().tenant = i % 3 == 0 ? "a" : "b";
  }
  EngineOptions options;
  options.kv_tokens = 4096;
  std::vector<std::string> expected = answers(*make_engine(m, options), sequences);
  options.max_sequences = 4;
  options.fair_quantum = 30;
  for (double stretch : {1.1, 2.0}) {
    options.max_step_stretch = stretch;
    EXPECT_EQ(answers(*make_engine(m, options), sequences), expected);
  }
  options.max_step_ms = 0.001;  // less than a step of decodes takes: prompts move all the same
  EXPECT_EQ(answers(*make_engine(m, options), sequences), expected);
  options.max_step_stretch = 0.5;
  EXPECT_FALSE(Engine::create(*m.model, options));
}

}  // namespace
}  // namespace bise
