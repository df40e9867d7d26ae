#include "model/model_config.h"

#include <gtest/gtest.h>

#include "edited_checkpoint.h"
#include "golden_model.h"
#include "model/config_readers.h"
#include "model/tensor_names.h"

namespace bise {
namespace {

Result<ModelConfig> config_of(const std::string& path, const ConfigOptions& options = {}) {
  Checkpoint checkpoint = TRY(Checkpoint::open(path, {}, Log()));
  return read_model_config(checkpoint, options, Log());
}

TEST(ModelConfig, both_layouts_of_each_checkpoint_give_the_same_numbers) {
  for (const char* variant : {"medium", "ministral", "devstral2", "smalltext"}) {
    auto hf = config_of(checkpoint_path(variant, "hf-bf16"));
    auto mistral = config_of(checkpoint_path(variant, "mistral-bf16"));
    ASSERT_TRUE(hf.has_value()) << hf.error().message();
    ASSERT_TRUE(mistral.has_value()) << mistral.error().message();
    EXPECT_EQ(hf->hidden_size, mistral->hidden_size);
    EXPECT_EQ(hf->num_layers, mistral->num_layers);
    EXPECT_EQ(hf->num_heads, mistral->num_heads);
    EXPECT_EQ(hf->num_kv_heads, mistral->num_kv_heads);
    EXPECT_EQ(hf->head_dim, mistral->head_dim);
    EXPECT_EQ(hf->intermediate_size, mistral->intermediate_size);
    EXPECT_EQ(hf->vocab_size, mistral->vocab_size);
    EXPECT_EQ(hf->context_length, mistral->context_length);
    EXPECT_EQ(hf->tied, mistral->tied);
    EXPECT_EQ(hf->architecture, mistral->architecture);
    EXPECT_EQ(hf->rope.theta, mistral->rope.theta);
    EXPECT_EQ(hf->rope.yarn, mistral->rope.yarn);
    EXPECT_EQ(hf->rope.factor, mistral->rope.factor);
    EXPECT_EQ(hf->rope.beta_fast, mistral->rope.beta_fast);
    EXPECT_EQ(hf->rope.attention_factor, mistral->rope.attention_factor) << variant;
    EXPECT_EQ(hf->rope.query_scaling_beta, mistral->rope.query_scaling_beta);
    EXPECT_EQ(hf->vision.has_value(), mistral->vision.has_value());
    EXPECT_TRUE(hf->warnings.empty());
  }
}

TEST(ModelConfig, the_medium_checkpoint_has_the_published_yarn_numbers) {
  auto config = config_of(checkpoint_path("medium", "hf-bf16"));
  ASSERT_TRUE(config.has_value());
  EXPECT_EQ(config->rope.factor, 64.0);
  EXPECT_EQ(config->rope.original_context, 4096);
  EXPECT_EQ(config->rope.beta_fast, 4.0);
  EXPECT_NEAR(config->rope.attention_factor, 1.4158883083359672, 1e-15);
  EXPECT_FALSE(config->tied);
  ASSERT_TRUE(config->vision.has_value());
  EXPECT_EQ(config->vision->image_size, 1540);
}

TEST(ModelConfig, the_mscale_error_of_the_first_release_is_corrected_once_and_can_be_kept) {
  EditedCheckpoint folder("medium", "hf-bf16");
  ASSERT_TRUE(folder.replace("config.json", "\"mscale_all_dim\": 0.0", "\"mscale_all_dim\": 1.0"));
  auto corrected = config_of(folder.path());
  ASSERT_TRUE(corrected.has_value());
  EXPECT_NEAR(corrected->rope.attention_factor, 1.4158883083359672, 1e-15);
  ASSERT_EQ(corrected->warnings.size(), 1u);
  EXPECT_NE(corrected->warnings[0].find("--trust-config"), std::string::npos);

  auto trusted = config_of(folder.path(), {.trust_config = true});
  ASSERT_TRUE(trusted.has_value());
  EXPECT_EQ(trusted->rope.attention_factor, 1.0);
  EXPECT_EQ(trusted->warnings.size(), 1u);
}

TEST(ModelConfig, siblings_with_query_scaling_keep_their_own_mscale) {
  auto config = config_of(checkpoint_path("ministral", "hf-bf16"));
  ASSERT_TRUE(config.has_value());
  EXPECT_EQ(config->rope.attention_factor, 1.0);
  EXPECT_EQ(config->rope.query_scaling_beta, 0.1);
  EXPECT_TRUE(config->tied);
  EXPECT_TRUE(config->warnings.empty());
}

TEST(ModelConfig, old_nesting_is_untied_by_its_head_and_keeps_its_gelu_tower) {
  auto config = config_of(checkpoint_path("small31", "hf-bf16"));
  ASSERT_TRUE(config.has_value());
  EXPECT_FALSE(config->tied);
  EXPECT_EQ(config->architecture, "mistral");
  EXPECT_EQ(config->vision->act, Activation::gelu_erf);
}

TEST(ModelConfig, language_model_only_leaves_the_tower_out) {
  auto config = config_of(checkpoint_path("medium", "hf-bf16"), {.language_model_only = true});
  ASSERT_TRUE(config.has_value());
  EXPECT_FALSE(config->vision.has_value());
}

struct BadConfig {
  const char *file, *from, *to, *expected;
};
void PrintTo(const BadConfig& bad, std::ostream* out) { *out << bad.file << ": " << bad.to; }

class BadConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, is_refused_in_one_line_that_names_the_field) {
  const BadConfig& bad = GetParam();
  bool hf = std::string(bad.file) == "config.json";
  EditedCheckpoint folder("medium", hf ? "hf-bf16" : "mistral-bf16");
  ASSERT_TRUE(folder.replace(bad.file, bad.from, bad.to)) << bad.from;
  auto config = config_of(folder.path());
  ASSERT_FALSE(config.has_value()) << bad.to;
  EXPECT_NE(config.error().message().find(bad.expected), std::string::npos)
      << config.error().message();
  EXPECT_EQ(config.error().message().find('\n'), std::string::npos);
}

const BadConfig kBad[] = {
    {"config.json", "\"mistral3\"", "\"qwen3\"", "qwen3"},
    {"config.json", "\"ministral3\"", "\"mixtral\"", "mixtral"},
    {"config.json", "\"hidden_act\": \"silu\"", "\"hidden_act\": \"relu\"", "hidden_act"},
    {"config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": -3", "num_hidden_layers"},
    {"config.json", "\"num_key_value_heads\": 1", "\"num_key_value_heads\": 3", "num_key_value_heads"},
    {"config.json", "\"rope_type\": \"yarn\"", "\"rope_type\": \"longrope\"", "longrope"},
    {"config.json", "\"factor\": 64.0", "\"factor\": -1.0", "factor"},
    {"config.json", "\"vision_feature_layer\": -1", "\"vision_feature_layer\": 3", "vision_feature_layer"},
    {"config.json", "\"vocab_size\": 1536", "\"vocab_size\": \"many\"", "vocab_size"},
    {"config.json", "\"model_type\": \"pixtral\"", "\"model_type\": \"siglip\"", "siglip"},
    {"params.json", "\"n_layers\": 3", "\"n_layers\": 0", "num_hidden_layers"},
    {"params.json", "\"moe\": null", "\"moe\": {\"num_experts\": 8}", "moe"},
    {"params.json", "\"patch_merge\"", "\"linear\"", "mm_projector_id"},
    {"params.json", "\"head_dim\": 128", "\"head_dim\": null", "head_dim"},
};

INSTANTIATE_TEST_SUITE_P(configs, BadConfigTest, ::testing::ValuesIn(kBad));

TEST(TensorNames, every_published_spelling_has_one_canonical_name) {
  for (const char* spelling :
       {"model.language_model.layers.7.self_attn.q_proj.weight",
        "language_model.model.layers.7.self_attn.q_proj.weight", "model.layers.7.self_attn.q_proj.weight",
        "language_model.layers.7.self_attn.q_proj.weight"}) {
    EXPECT_EQ(canonical_tensor_name(spelling), "language_model.layers.7.self_attn.q_proj.weight");
  }
  EXPECT_EQ(canonical_tensor_name("language_model.lm_head.weight"), "lm_head.weight");
  EXPECT_EQ(canonical_tensor_name("model.vision_tower.ln_pre.weight"), "vision_tower.ln_pre.weight");
}

// Every tensor of the HF file, decoded from the consolidated file, has the same values: names,
// orientation and the order of interleaved rows.
TEST(TensorNames, consolidated_files_decode_to_the_values_of_the_hf_files) {
  for (const char* variant : {"medium", "ministral", "devstral2", "smalltext"}) {
    for (const char* form : {"bf16", "fp8"}) {
      std::string hf_path = checkpoint_path(variant, std::string("hf-") + form);
      if (!folder_exists(hf_path)) continue;
      auto hf = Checkpoint::open(hf_path, {}, Log());
      auto mistral = Checkpoint::open(checkpoint_path(variant, std::string("mistral-") + form), {}, Log());
      ASSERT_TRUE(hf.has_value() && mistral.has_value());
      auto hf_config = read_model_config(*hf, {}, Log());
      auto mistral_config = read_model_config(*mistral, {}, Log());
      ASSERT_TRUE(hf_config.has_value() && mistral_config.has_value());
      size_t compared = 0;
      for (const auto& [name, tensor] : hf->tensors()) {
        if (!name.ends_with(".weight")) continue;
        auto a = decode_tensor(*hf, *hf_config, name);
        auto b = decode_tensor(*mistral, *mistral_config, name);
        ASSERT_TRUE(a.has_value()) << a.error().message();
        ASSERT_TRUE(b.has_value()) << b.error().message();
        EXPECT_EQ(a->shape, b->shape) << name;
        EXPECT_TRUE(a->values == b->values) << variant << " " << name;
        ++compared;
      }
      EXPECT_GT(compared, 10u);
    }
  }
}

TEST(ModelLoad, a_wrong_shape_names_tensor_shapes_and_field) {
  EditedCheckpoint folder("medium", "hf-bf16");
  ASSERT_TRUE(folder.replace("config.json", "\"intermediate_size\": ", "\"intermediate_size\": 1"));
  auto checkpoint = Checkpoint::open(folder.path(), {}, Log());
  ASSERT_TRUE(checkpoint.has_value());
  auto backend = create_backend("cpu", {.num_threads = 1});
  auto model = Model::load(*checkpoint, **backend, {}, Log());
  ASSERT_FALSE(model.has_value());
  for (const char* word : {"gate_proj", "found shape", "expected", "intermediate_size"}) {
    EXPECT_NE(model.error().message().find(word), std::string::npos) << model.error().message();
  }
}

TEST(ModelLoad, progress_reaches_the_end_and_can_stop_the_load) {
  auto checkpoint = Checkpoint::open(checkpoint_path("smalltext", "hf-bf16"), {}, Log());
  auto backend = create_backend("cpu", {.num_threads = 1});
  uint64_t last = 0;
  ModelLoadOptions options;
  options.weights.progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GE(done, last);
    EXPECT_LE(done, total);
    last = done;
    return true;
  };
  ASSERT_TRUE(Model::load(*checkpoint, **backend, options, Log()).has_value());
  EXPECT_GT(last, checkpoint->total_bytes() * 9 / 10);
  options.weights.progress = [](uint64_t, uint64_t) { return false; };
  auto stopped = Model::load(*checkpoint, **backend, options, Log());
  ASSERT_FALSE(stopped.has_value());
  EXPECT_EQ(stopped.error().code(), ErrorCode::cancelled);
}

}  // namespace
}  // namespace bise
