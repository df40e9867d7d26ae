// A model that streams, under the engine: cancelled in the middle, several sequences, the same tokens.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include "model/golden_model.h"

namespace bise {
namespace {

std::vector<int32_t> answer(Engine& engine, int32_t first) {
  NewSequence sequence;
  for (int32_t i = 0; i < 20; ++i) sequence.ids.push_back(100 + (first + 7 * i) % 500);
  sequence.params.temperature = 0.0;
  sequence.params.max_tokens = 6;
  sequence.params.ignore_eos = true;
  auto done = engine.generate(std::move(sequence), {});
  EXPECT_TRUE(done.has_value());
  return done ? done->ids : std::vector<int32_t>();
}

TEST(OutOfCore, a_sequence_cancelled_between_steps_leaves_the_stream_in_order) {
  const std::string path = checkpoint_path("devstral2", "hf-fp8");
  const BackendOptions options{.num_threads = 2};
  GoldenModel whole = open_golden(path, options);
  ASSERT_NE(whole.model, nullptr);
  ModelLoadOptions load;
  load.weights.memory.is_firm = true;
  load.weights.memory.context = 128;
  load.weights.memory.ceiling = 1 << 20;
  GoldenModel tight;
  while (tight.model == nullptr) {  // the smallest ceiling, in steps of 3 %
    load.weights.memory.ceiling += load.weights.memory.ceiling / 32;
    ASSERT_LT(load.weights.memory.ceiling, uint64_t{1} << 30);
    tight.checkpoint = std::make_unique<Checkpoint>(Checkpoint::open(path, {}, Log()).value());
    tight.backend = create_backend("cpu", options).value();
    auto model = Model::load(*tight.checkpoint, *tight.backend, load, Log());
    if (model) tight.model = std::make_unique<Model>(std::move(*model));
    else ASSERT_EQ(model.error().code(), ErrorCode::out_of_memory) << model.error().message();
  }
  ASSERT_TRUE(tight.model->memory_plan().streams);
  EngineOptions engine_options;
  engine_options.context = 128;
  engine_options.max_step_tokens = 8;  // prompts in chunks, most of which have no logits
  auto expected = Engine::create(*whole.model, engine_options).value();
  auto engine = Engine::create(*tight.model, engine_options).value();
  EXPECT_EQ(answer(*engine, 3), answer(*expected, 3));
  for (int steps = 1; steps < 6; ++steps) {
    NewSequence sequence;
    sequence.ids.assign(20, 200);
    sequence.params.max_tokens = 50;
    const SequenceId id = engine->submit(std::move(sequence)).value();
    for (int i = 0; i < steps; ++i) engine->step();
    engine->cancel(id);
    while (!engine->idle()) engine->step();
    EXPECT_EQ(answer(*engine, steps), answer(*expected, steps));
  }
}

}  // namespace
}  // namespace bise
