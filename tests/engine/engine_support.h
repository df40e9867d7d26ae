// What the tests of the engine share: tiny golden models, prompts, and what was published as text.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/random.h"
#include "engine/engine.h"
#include "model/golden_model.h"

namespace bise {

inline GoldenModel open_model(const std::string& variant, Precision precision = Precision::fast) {
  BackendOptions options;
  options.num_threads = 2;
  options.precision = precision;
  options.row_invariant = true;  // scores and answers are compared across chunks, bit by bit
  return open_golden(checkpoint_path(variant, "hf-bf16"), options);
}

inline std::unique_ptr<Engine> make_engine(const GoldenModel& m, const EngineOptions& options = {}) {
  auto engine = Engine::create(*m.model, options);
  EXPECT_TRUE(engine) << engine.error().message();
  return engine ? std::move(*engine) : nullptr;
}

inline std::vector<int32_t> random_prompt(uint64_t seed, size_t length, int32_t vocab_size) {
  std::vector<int32_t> ids = {1};
  while (ids.size() < length) {
    uint64_t ordinary = static_cast<uint64_t>(vocab_size) - 1000;
    ids.push_back(1000 + static_cast<int32_t>(random_bits(seed, 4, ids.size()) % ordinary));
  }
  return ids;
}

inline NewSequence sampled_sequence(uint64_t seed, size_t length, int32_t vocab_size) {
  NewSequence sequence;
  sequence.ids = random_prompt(seed, length, vocab_size);
  sequence.params.seed = seed;
  sequence.params.max_tokens = 12;
  sequence.params.num_logprobs = 1;
  sequence.params.frequency_penalty = 0.5;
  sequence.params.repetition_penalty = 1.1;
  return sequence;
}

// What was published of each sequence, as one comparable text (bits of the log-probabilities).
using Transcript = std::map<SequenceId, std::string>;

inline void record(const std::vector<SequenceEvent>& events, Transcript& transcript) {
  for (const SequenceEvent& event : events) {
    std::string& text = transcript[event.sequence];
    if (event.token) {
      char bits[64];
      std::snprintf(bits, sizeof bits, "%d:%a ", event.token->id,
                    static_cast<double>(event.token->logprob));
      text += bits;
    }
    if (event.finish != FinishReason::none) text += finish_reason_name(event.finish);
    EXPECT_FALSE(event.error) << event.error->message();
  }
}

// `restarts`: how often a sequence lost what it had in the cache.
inline Transcript run_all(Engine& engine, const std::vector<NewSequence>& sequences,
                          int* restarts = nullptr) {
  Transcript transcript;
  std::map<SequenceId, int32_t> done;
  for (const NewSequence& sequence : sequences) {
    auto id = engine.submit(sequence);
    EXPECT_TRUE(id) << id.error().message();
  }
  for (int steps = 0; !engine.idle(); ++steps) {
    std::vector<SequenceEvent> events = engine.step();
    for (const SequenceEvent& event : events) {
      if (restarts != nullptr && event.prompt_done < done[event.sequence]) ++*restarts;
      done[event.sequence] = event.prompt_done;
    }
    record(events, transcript);
    engine.check();
    if (steps > 10000) {
      ADD_FAILURE() << "the engine does not come to an end";
      break;
    }
  }
  return transcript;
}

// Of sequences on an engine that may have run others before, in their order.
inline std::vector<std::string> answers(Engine& engine, const std::vector<NewSequence>& sequences) {
  std::vector<std::string> texts;
  for (auto& [id, text] : run_all(engine, sequences)) texts.push_back(text);
  return texts;
}

// A picture of 2 x 3 merged patches whose pixels depend on the seed, and the ids around its rows.
inline ProcessedImage small_picture(const VisionConfig& vision, uint64_t seed) {
  ProcessedImage image;
  image.rows = 2, image.columns = 3;
  image.height = image.rows * vision.patch_size * vision.spatial_merge_size;
  image.width = image.columns * vision.patch_size * vision.spatial_merge_size;
  image.pixels.resize(static_cast<size_t>(3 * image.height * image.width));
  for (size_t i = 0; i < image.pixels.size(); ++i) {
    image.pixels[i] = static_cast<float>(random_uniform(seed, 5, i) - 0.5);
  }
  return image;
}
inline void append_picture(NewSequence& sequence, const VisionConfig& vision, uint64_t seed) {
  ProcessedImage image = small_picture(vision, seed);
  for (int32_t row = 0; row < image.rows; ++row) {
    sequence.ids.insert(sequence.ids.end(), static_cast<size_t>(image.columns), vision.image_token);
    sequence.ids.push_back(vision.image_break_token);
  }
  sequence.ids.back() = vision.image_end_token;
  sequence.images.push_back(std::move(image));
}

}  // namespace bise
