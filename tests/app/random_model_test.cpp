// Random models are read back by our own readers, in every format and layout that can hold them.
#include "app/random_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "io/file_builders.h"
#include "model/model_config.h"
#include "model/tensor_names.h"
#include "support/temp_folder.h"

namespace bise {
namespace {

using test::expect_error;
using test::slurp;

RandomModelOptions small(const std::string& format, Layout layout) {
  RandomModelOptions options;
  options.shape = {.layers = 1, .hidden = 256, .ffn = 512, .heads = 4, .kv_heads = 2, .head_dim = 64, .vocab = 512};
  options.format = format;
  options.layout = layout;
  return options;
}
Result<void> write(const RandomModelOptions& options, const std::string& path, int threads = 1) {
  const RandomModel model = TRY(plan_random_model(options));
  ThreadPool pool(threads);
  return write_random_model(model, path, pool, {});
}

TEST(random_model, every_format_in_every_layout_is_read_back) {
  TempFolder folder;
  for (const ModelFormat& format : model_formats()) {
    for (Layout layout : format.layouts) {
      const std::string name = format.name + "-" + layout_name(layout);
      SCOPED_TRACE(name);
      const std::string path = folder.at(name + (layout == Layout::gguf ? ".gguf" : ""));
      auto written = write(small(format.name, layout), path);
      ASSERT_TRUE(written) << written.error().message();
      auto checkpoint = Checkpoint::open(path, {}, Log());
      ASSERT_TRUE(checkpoint) << checkpoint.error().message();
      EXPECT_EQ(checkpoint->layout(), layout);
      auto config = read_model_config(*checkpoint, {}, Log());
      ASSERT_TRUE(config) << config.error().message();
      EXPECT_TRUE(config->warnings.empty()) << config->warnings[0];
      EXPECT_EQ(config->hidden_size, 256);
      EXPECT_EQ(config->num_heads, 4);
      EXPECT_EQ(config->num_kv_heads, 2);
      EXPECT_EQ(config->head_dim, 64);
      EXPECT_EQ(config->intermediate_size, 512);
      EXPECT_EQ(config->vocab_size, 512);
      EXPECT_FALSE(config->tied);
      EXPECT_EQ(config->context_length, 262144);
      EXPECT_TRUE(config->rope.yarn);
      EXPECT_EQ(config->rope.factor, 64);
      EXPECT_NEAR(config->rope.attention_factor, 0.1 * std::log(64.0) + 1.0, 1e-6);
      const TensorNames names = TensorNames::detect(*checkpoint).value();
      auto view = checkpoint->weight(names.stored("language_model.layers.0.mlp.down_proj.weight"));
      ASSERT_TRUE(view) << view.error().message();
      EXPECT_EQ(view->format, format.weights);
      auto decoded = decode_tensor(*checkpoint, *config, "model.layers.0.mlp.down_proj.weight");
      ASSERT_TRUE(decoded) << decoded.error().message();
      EXPECT_EQ(decoded->shape, (std::vector<int64_t>{256, 512}));
      double squares = 0;
      for (float x : decoded->values) squares += double{x} * x;
      EXPECT_NEAR(std::sqrt(squares / static_cast<double>(decoded->values.size())), kRandomDeviation, 0.05 * kRandomDeviation);
      auto norm = checkpoint->values(names.stored("language_model.norm.weight"));
      ASSERT_TRUE(norm) << norm.error().message();
      EXPECT_EQ(*norm, std::vector<float>(256, 1.0f));
    }
  }
}

TEST(random_model, the_same_seed_gives_the_same_bytes_with_any_threads_and_another_seed_others) {
  TempFolder folder;
  RandomModelOptions options = small("Q4_K", Layout::gguf);
  ASSERT_TRUE(write(options, folder.at("a.gguf"), 1));
  ASSERT_TRUE(write(options, folder.at("b.gguf"), 3));
  options.seed = 1;
  ASSERT_TRUE(write(options, folder.at("c.gguf"), 1));
  EXPECT_EQ(slurp(folder.at("a.gguf")), slurp(folder.at("b.gguf")));
  EXPECT_NE(slurp(folder.at("a.gguf")), slurp(folder.at("c.gguf")));
}

TEST(random_model, the_default_shape_is_the_published_one) {
  RandomModelOptions options;
  options.shape.layers = 88;
  const RandomModel model = plan_random_model(options).value();
  // 125.024 B parameters of text, in BF16.
  EXPECT_NEAR(static_cast<double>(model.bytes), 2 * 125.024e9, 0.01e9);
  options.format = "FP8";
  EXPECT_NEAR(static_cast<double>(plan_random_model(options)->bytes), 121.803e9 + 2 * 3.2212e9, 0.01e9);
  options.format = "W4A16";  // 4 bits and a scale of 16 for 128
  EXPECT_NEAR(static_cast<double>(plan_random_model(options)->bytes), 121.803e9 * 4.125 / 8 + 2 * 3.2212e9, 0.01e9);
  options.format = "MLX-4bit";  // 4 bits, scale and bias for 64; embedding and head too
  EXPECT_NEAR(static_cast<double>(plan_random_model(options)->bytes), 125.024e9 * 4.5 / 8, 0.01e9);
}

TEST(random_model, what_cannot_be_is_refused_before_anything_is_written) {
  TempFolder folder;
  expect_error(plan_random_model(small("Q4_K", Layout::hf)), "expected gguf");
  expect_error(plan_random_model(small("FP8", Layout::gguf)), "expected hf or mistral");
  expect_error(plan_random_model(small("Q9", Layout::hf)), "BF16");
  RandomModelOptions odd = small("Q4_K", Layout::gguf);
  odd.shape.hidden = 100;
  expect_error(plan_random_model(odd), "groups of 256");
  odd.format = "W4A16";
  odd.layout = Layout::hf;
  expect_error(plan_random_model(odd), "groups of 128");
  odd = small("BF16", Layout::hf);
  odd.shape.kv_heads = 3;
  expect_error(plan_random_model(odd), "--heads");
  odd = small("BF16", Layout::hf);
  odd.shape.head_dim = 63;
  expect_error(plan_random_model(odd), "--head-dim");
  folder.write("full/file", "x");
  expect_error(write(small("BF16", Layout::hf), folder.at("full")), "not empty");
}

TEST(random_model, an_interrupted_one_leaves_nothing) {
  TempFolder folder;
  ThreadPool pool(1);
  for (Layout layout : {Layout::hf, Layout::gguf}) {
    const RandomModel model = plan_random_model(small("BF16", layout)).value();
    int calls = 0;
    auto written = write_random_model(model, folder.at(layout == Layout::gguf ? "m.gguf" : "m"), pool,
                                      [&](uint64_t, uint64_t) { return ++calls < 5; });
    ASSERT_FALSE(written);
    EXPECT_EQ(written.error().code(), ErrorCode::cancelled);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  }
}

}  // namespace
}  // namespace bise
