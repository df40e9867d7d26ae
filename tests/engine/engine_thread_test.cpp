// Many callers, one engine: every stream gets its own tokens, whatever the others do.
#include "engine/engine_thread.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "engine/engine_support.h"

namespace bise {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kLong(60000);

EngineOptions server_options() {
  EngineOptions options;
  options.kv_tokens = 1024;
  options.max_sequences = 6;
  options.max_step_stretch = 2.0;
  options.check_every_step = true;
  return options;
}

// Reads a stream to its end, as one text per sequence.
std::vector<std::string> read_all(TokenStream& stream) {
  Transcript transcript;
  const auto end = EngineClock::now() + kLong;
  while (!stream.is_done() && EngineClock::now() < end) {
    record(stream.wait(milliseconds(1000)), transcript);
  }
  EXPECT_TRUE(stream.is_done());
  std::vector<std::string> texts;
  for (SequenceId id : stream.ids()) texts.push_back(transcript[id]);
  return texts;
}

struct Served {
  GoldenModel model = open_model("smalltext");
  std::vector<NewSequence> sequences;
  std::vector<std::string> expected;

  explicit Served(size_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      sequences.push_back(sampled_sequence(i, 10 + 13 * i, model.model->config().vocab_size));
      sequences.back().tenant = i % 2 == 0 ? "even" : "odd";
    }
    EngineOptions options;
    options.kv_tokens = 4096;
    expected = answers(*make_engine(model, options), sequences);
  }
};

TEST(engine_thread, streams_of_many_threads_are_not_mixed_up) {
  Served s(8);
  EngineThread engine(make_engine(s.model, server_options()), {.channel_capacity = 4});
  std::vector<std::thread> callers;
  for (size_t caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      for (uint64_t round = 0; round < 12; ++round) {
        const uint64_t what = random_bits(caller, 1, round);
        const size_t i = what % s.sequences.size();
        const int32_t n = what / 64 % 5 == 0 ? 3 : 1;
        std::atomic<int> calls = 0;
        auto stream = engine.submit(s.sequences[i], n, [&calls] { ++calls; });
        ASSERT_TRUE(stream) << stream.error().message();
        if (what / 1024 % 4 == 0) {  // goes away in the middle
          stream->wait(milliseconds(20));
          if (what / 4096 % 2 == 0) {
            engine.cancel(stream->ids()[0]);
            while (!stream->is_done()) stream->wait(milliseconds(1000));
          }
          TokenStream gone = std::move(*stream);
          continue;
        }
        if (what / 8192 % 3 == 0) std::this_thread::sleep_for(milliseconds(30));  // slow
        EXPECT_EQ(read_all(*stream)[0], s.expected[i]);
        EXPECT_GT(calls, 0);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_TRUE(engine.drain(kLong));
  EngineStats stats = engine.stats();
  EXPECT_EQ(stats.running + stats.waiting + stats.paused, 0);
  EXPECT_EQ(stats.used_blocks, 0);
  EXPECT_EQ(engine.submit(s.sequences[0]).error().code(), ErrorCode::busy);
  engine.stop();
  engine.stop();
}

TEST(engine_thread, a_slow_reader_is_paused_and_loses_nothing) {
  Served s(3);
  NewSequence longest = s.sequences[0];
  longest.params.max_tokens = 200;
  std::string expected = answers(*make_engine(s.model), {longest})[0];
  EngineThread engine(make_engine(s.model, server_options()), {.channel_capacity = 16});
  auto slow = engine.submit(longest);
  ASSERT_TRUE(slow);
  // It takes nothing, and the others run at their own pace.
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 1; i < 3; ++i) {
      auto stream = engine.submit(s.sequences[i]);
      ASSERT_TRUE(stream);
      EXPECT_EQ(read_all(*stream)[0], s.expected[i]);
    }
  }
  const auto end = EngineClock::now() + kLong;
  while ((engine.stats().paused == 0 || engine.heartbeat().has_work) && EngineClock::now() < end) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_EQ(engine.stats().paused, 1);
  EXPECT_FALSE(engine.heartbeat().has_work) << "what waits for a reader is no work";
  Transcript first;
  std::vector<SequenceEvent> events = slow->poll();
  EXPECT_GE(events.size(), 16u);
  EXPECT_LT(events.size(), 32u) << "the channel is bounded";
  record(events, first);
  EXPECT_EQ(first.begin()->second + read_all(*slow)[0], expected);
}

TEST(engine_thread, the_queue_is_bounded_in_all_and_by_tenant) {
  Served s(2);
  EngineOptions options = server_options();
  options.max_sequences = 1;
  options.max_waiting = 5;
  options.max_waiting_per_tenant = 3;
  EngineThread engine(make_engine(s.model, options), {.channel_capacity = 1});
  NewSequence greedy = s.sequences[0];
  greedy.params.max_tokens = 500;
  auto busy = [&](const NewSequence& sequence, int32_t n) {
    auto stream = engine.submit(sequence, n);
    return !stream && stream.error().code() == ErrorCode::busy;
  };
  EXPECT_TRUE(busy(greedy, 4)) << "more than a tenant may have waiting";
  EXPECT_TRUE(busy(greedy, 6)) << "more than may wait at all";
  auto held = engine.submit(greedy, 3);
  ASSERT_TRUE(held);
  EngineHeartbeat beat = engine.heartbeat();
  EXPECT_FALSE(beat.is_stopped);
  auto polite = engine.submit(s.sequences[1]);
  ASSERT_TRUE(polite);
  EXPECT_EQ(read_all(*polite)[0], s.expected[1]);
}

TEST(engine_thread, stop_ends_what_runs) {
  Served s(2);
  NewSequence longest = s.sequences[0];
  longest.params.max_tokens = 2000;
  EngineOptions options = server_options();
  options.kv_tokens = 4096;
  auto engine = std::make_unique<EngineThread>(make_engine(s.model, options));
  auto stream = engine->submit(longest, 2);
  ASSERT_TRUE(stream);
  auto other = engine->submit(longest);
  stream->wait(kLong);
  EXPECT_FALSE(engine->drain(milliseconds(1)));
  engine->stop();
  EXPECT_TRUE(engine->heartbeat().is_stopped);
  engine.reset();
  std::vector<std::string> texts = read_all(*stream);  // streams outlive the engine
  EXPECT_NE(texts[0].find("cancelled"), std::string::npos);
  EXPECT_NE(texts[1].find("cancelled"), std::string::npos);
}

TEST(engine_thread, a_submission_that_cannot_run_is_refused_at_once) {
  Served s(1);
  EngineThread engine(make_engine(s.model, server_options()));
  NewSequence sequence = s.sequences[0];
  sequence.ids.clear();
  EXPECT_EQ(engine.submit(sequence).error().code(), ErrorCode::invalid_argument);
  sequence.ids.assign(2000, 1000);
  sequence.params.max_tokens = 1;
  EXPECT_EQ(engine.submit(sequence).error().code(), ErrorCode::too_large);
  EXPECT_TRUE(engine.drain(kLong));
}

}  // namespace
}  // namespace bise
