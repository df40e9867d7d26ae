// The engine over the tiny golden checkpoints: what it generates does not depend on how it
// computes.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/file.h"
#include "base/json.h"
#include "base/random.h"
#include "engine/engine_support.h"

namespace bise {
namespace {

TEST(engine, greedy_ids_are_those_of_the_reference) {
  for (const char* variant : {"smalltext", "ministral"}) {
    GoldenModel m = open_model(variant, Precision::reference);
    ASSERT_TRUE(m.model);
    auto engine = make_engine(m);
    std::string path = std::string(BISE_GOLDEN_DIR) + "/model/golden/" + variant + ".json";
    Json golden = parse_json(*read_file(path, 64 << 20)).value();
    int compared = 0;
    for (const Json& run : golden["runs"]) {
      const Json& prompt = golden["prompts"][run["case"].get<std::string>()];
      bool listed = std::find(run["formats"].begin(), run["formats"].end(), "hf-bf16") !=
                    run["formats"].end();
      if (!listed || run["dtype"] != "float32" || !prompt["images"].empty() ||
          !run.contains("greedy")) {
        continue;
      }
      NewSequence sequence;
      sequence.ids = prompt["ids"].get<std::vector<int32_t>>();
      sequence.params.temperature = 0.0;
      sequence.params.max_tokens = static_cast<int32_t>(run["greedy"].size());
      auto generated = engine->generate(std::move(sequence), {});
      ASSERT_TRUE(generated) << generated.error().message();
      ASSERT_EQ(generated->ids.size(), run["greedy"].size());
      EXPECT_EQ(generated->finish, FinishReason::length);
      for (size_t i = 0; i < generated->ids.size(); ++i) {
        if (run["gaps"][i].get<double>() < 1e-3) break;
        ASSERT_EQ(generated->ids[i], run["greedy"][i].get<int32_t>())
            << variant << " " << run["case"] << " step " << i;
        ++compared;
      }
    }
    EXPECT_GT(compared, 60) << variant;
  }
}

TEST(engine, answers_do_not_depend_on_chunks_company_or_preemption) {
  GoldenModel m = open_model("ministral");
  ASSERT_TRUE(m.model);
  const int32_t vocab_size = m.model->config().vocab_size;
  std::vector<NewSequence> sequences;
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    sequences.push_back(sampled_sequence(seed, 20 + 17 * seed, vocab_size));
  }
  Transcript alone;
  for (size_t i = 0; i < sequences.size(); ++i) {
    auto engine = make_engine(m);
    Transcript one = run_all(*engine, {sequences[i]});
    alone[i + 1] = one[1];
  }
  struct Case {
    int32_t chunk, sequences;
    int64_t kv_tokens;
  };
  int restarts = 0;
  // 128 tokens are four blocks: the first two sequences get them all and then grow.
  for (const Case& c : {Case{512, 16, 1024}, Case{7, 3, 1024}, Case{7, 5, 128}, Case{64, 5, 128}}) {
    EngineOptions options;
    options.max_step_tokens = c.chunk;
    options.max_sequences = c.sequences;
    options.kv_tokens = c.kv_tokens;
    auto engine = make_engine(m, options);
    EXPECT_EQ(run_all(*engine, sequences, &restarts), alone) << "chunk " << c.chunk;
  }
  EXPECT_GT(restarts, 0);
}

TEST(engine, pictures_give_the_same_answer_in_any_chunk) {
  GoldenModel m = open_model("medium");
  ASSERT_TRUE(m.model);
  const VisionConfig& vision = *m.model->config().vision;
  NewSequence sequence;
  sequence.ids = {1, 3};
  append_picture(sequence, vision, 5);
  const ProcessedImage image = sequence.images[0];
  sequence.ids.push_back(4);
  sequence.params.max_tokens = 6;
  sequence.params.num_logprobs = 0;
  auto whole = run_all(*make_engine(m), {sequence});
  EngineOptions options;
  options.max_step_tokens = 3;
  options.kv_tokens = 64;
  EXPECT_EQ(run_all(*make_engine(m, options), {sequence, sequence})[2], whole[1]);

  std::fill(sequence.images[0].pixels.begin(), sequence.images[0].pixels.end(), 0.25f);
  EXPECT_NE(run_all(*make_engine(m), {sequence})[1], whole[1]) << "the picture must matter";
  sequence.images.push_back(image);
  EXPECT_FALSE(make_engine(m)->submit(sequence)) << "more pictures than image tokens";
}

TEST(engine, scores_are_the_logits_that_sampling_sees) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  EngineOptions options;
  options.max_step_tokens = 9;
  auto engine = make_engine(m, options);
  NewSequence sequence = sampled_sequence(3, 40, m.model->config().vocab_size);
  sequence.params.frequency_penalty = 0.0;
  sequence.params.repetition_penalty = 1.0;
  std::vector<float> logprobs;
  auto generated = engine->generate(sequence, {[&](const SampledToken& token) {
                                                 logprobs.push_back(token.logprob);
                                                 return true;
                                               },
                                               {}});
  ASSERT_TRUE(generated);
  std::vector<int32_t> ids = sequence.ids, positions;
  ids.insert(ids.end(), generated->ids.begin(), generated->ids.end());
  for (size_t i = 0; i < generated->ids.size(); ++i) {
    positions.push_back(static_cast<int32_t>(sequence.ids.size() + i) - 1);
  }
  size_t seen = 0;
  auto scored =
      engine->score(ids, {}, positions, [&](int32_t position, std::span<const float> row) {
        EXPECT_EQ(position, positions[seen]);
        double logprob =
            static_cast<double>(row[static_cast<size_t>(generated->ids[seen])]) - log_sum_exp(row);
        EXPECT_EQ(static_cast<float>(logprob), logprobs[seen]);
        ++seen;
        return true;
      });
  ASSERT_TRUE(scored) << scored.error().message();
  EXPECT_EQ(seen, positions.size());
  std::vector<int32_t> unsorted = {3, 2};
  EXPECT_FALSE(engine->score(ids, {}, unsorted, {}));
}

TEST(engine, generation_stops_at_stop_tokens_length_and_when_told) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  auto engine = make_engine(m);
  NewSequence sequence;
  sequence.ids = random_prompt(1, 30, m.model->config().vocab_size);
  sequence.params.temperature = 0.0;
  sequence.params.max_tokens = 8;
  int64_t last_done = 0;
  GenerateCallbacks callbacks;
  callbacks.on_prefill = [&](int64_t done, int64_t total) {
    EXPECT_EQ(total, 30);
    EXPECT_GT(done, last_done);
    last_done = done;
    return true;
  };
  auto whole = engine->generate(sequence, callbacks);
  ASSERT_TRUE(whole);
  EXPECT_EQ(last_done, 30);
  EXPECT_EQ(whole->ids.size(), 8u);
  EXPECT_EQ(whole->finish, FinishReason::length);
  EXPECT_GT(whole->prefill_seconds, 0.0);

  sequence.params.stop_tokens = {whole->ids[3]};
  size_t first = static_cast<size_t>(
      std::find(whole->ids.begin(), whole->ids.end(), whole->ids[3]) - whole->ids.begin());
  auto stopped = engine->generate(sequence, {});
  ASSERT_TRUE(stopped);
  EXPECT_EQ(stopped->finish, FinishReason::stop);
  EXPECT_EQ(stopped->ids.size(), first + 1) << "the stop token itself is published";
  sequence.params.ignore_eos = true;
  EXPECT_EQ(engine->generate(sequence, {})->ids, whole->ids);

  callbacks = {};
  int left = 2;
  callbacks.on_token = [&](const SampledToken&) { return --left > 0; };
  auto cancelled = engine->generate(sequence, callbacks);
  ASSERT_TRUE(cancelled);
  EXPECT_EQ(cancelled->finish, FinishReason::cancelled);
  EXPECT_EQ(cancelled->ids.size(), 2u);
  EXPECT_TRUE(engine->idle());
}

TEST(engine, cancelling_one_sequence_leaves_the_others_alone) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  EngineOptions options;
  options.kv_tokens = 512;
  auto engine = make_engine(m, options);
  const int32_t vocab_size = m.model->config().vocab_size;
  NewSequence first = sampled_sequence(1, 20, vocab_size),
              second = sampled_sequence(2, 33, vocab_size);
  Transcript alone = run_all(*engine, {second});
  SequenceId a = *engine->submit(first), b = *engine->submit(second);
  Transcript transcript;
  record(engine->step(), transcript);
  engine->cancel(a);
  engine->cancel(a);
  engine->cancel(12345);
  while (!engine->idle()) record(engine->step(), transcript);
  EXPECT_EQ(transcript[b], alone[1]);
  EXPECT_NE(transcript[a].find("cancelled"), std::string::npos);
}

TEST(engine, what_cannot_run_is_refused_before_anything_runs) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  EngineOptions options;
  options.context = 64;
  auto engine = make_engine(m, options);
  auto refusal = [&](auto change) {
    NewSequence sequence;
    sequence.ids = random_prompt(1, 10, m.model->config().vocab_size);
    sequence.params.max_tokens = 4;
    change(sequence);
    auto id = engine->submit(std::move(sequence));
    return id ? std::string("accepted") : id.error().message();
  };
  auto contains = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  std::string message = refusal([](auto& s) { s.ids.assign(100, 1000); });
  EXPECT_TRUE(contains(message, "100 tokens") &&
              contains(message, "maximum context length is 64") && contains(message, "--context"))
      << message;
  message = refusal([](auto& s) { s.ids.assign(64, 1000); });
  EXPECT_TRUE(contains(message, "no room for an answer")) << message;
  message = refusal([](auto& s) { s.ids.clear(); });
  EXPECT_TRUE(contains(message, "empty")) << message;
  message = refusal([](auto& s) { s.ids[3] = 1 << 30; });
  EXPECT_TRUE(contains(message, "token 3") && contains(message, "1073741824")) << message;
  message = refusal([](auto& s) { s.ids[0] = -1; });
  EXPECT_TRUE(contains(message, "-1")) << message;
  message = refusal([](auto& s) { s.images.emplace_back(); });
  EXPECT_TRUE(contains(message, "vision")) << message;
  message = refusal([](auto& s) { s.params.temperature = 9; });
  EXPECT_TRUE(contains(message, "temperature")) << message;
  EXPECT_TRUE(engine->idle());

  EngineOptions too_long;
  too_long.context = m.model->config().context_length + 1;
  EXPECT_FALSE(Engine::create(*m.model, too_long));
  EngineOptions small;
  small.kv_tokens = 32;
  auto tight = make_engine(m, small);
  NewSequence sequence;
  sequence.ids = random_prompt(1, 40, m.model->config().vocab_size);
  sequence.params.max_tokens = 4;
  auto id = tight->submit(sequence);
  ASSERT_FALSE(id);
  EXPECT_TRUE(contains(id.error().message(), "44 tokens") && contains(id.error().message(), "32"))
      << id.error().message();
}

TEST(engine, the_cache_is_as_large_as_the_sequence_needs) {
  GoldenModel m = open_model("smalltext");
  ASSERT_TRUE(m.model);
  auto engine = make_engine(m);
  EXPECT_EQ(engine->kv_bytes(), 0u);
  NewSequence sequence;
  sequence.ids = random_prompt(1, 30, m.model->config().vocab_size);
  sequence.params.max_tokens = 10;
  ASSERT_TRUE(engine->generate(sequence, {}));
  uint64_t token = KvCache::bytes_per_token(m.model->config(), KvDType::bf16);
  EXPECT_EQ(engine->kv_bytes(), 64 * token);
  EXPECT_EQ(engine->kv_step_bytes(40), 40 * token);
}

}  // namespace
}  // namespace bise
