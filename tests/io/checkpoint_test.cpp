#include "io/checkpoint.h"

#include <gtest/gtest.h>

#include <tuple>

#include "io/file_builders.h"
#include "io/gguf.h"
#include "io/shard_name.h"
#include "support/temp_folder.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

using test::expect_error;
using test::GgufBuilder;
using test::SafetensorsBuilder;

const std::string kTiny = std::string(BISE_GOLDEN_DIR) + "/model/ckpt/";

// Opens and keeps what was logged.
struct Opened {
  std::string log;
  Result<Checkpoint> checkpoint;
  explicit Opened(const std::string& path, const CheckpointOptions& options = {})
      : checkpoint(Checkpoint::open(path, options, Log([this](LogLevel, const std::string& text) {
                                      log += text + "\n";
                                    }))) {}
};
CheckpointOptions forced(Layout layout) {
  CheckpointOptions options;
  options.layout = layout;
  return options;
}

std::string one_tensor(const std::string& name, float value = 1.0f) {
  return SafetensorsBuilder().add(name, "F32", {1, 1}, test::floats({value})).file();
}
std::string gguf_with(const std::string& tensor) {
  return GgufBuilder()
      .text("general.architecture", "llama")
      .tensor(tensor, {1}, 0, test::floats({1}))
      .file();
}
std::string gguf_shard(const std::string& tensor, uint16_t number, uint16_t count,
                       int32_t tensors) {
  return GgufBuilder()
      .number("split.no", 2, number)
      .number("split.count", 2, count)
      .number("split.tensors.count", 5, tensors)
      .tensor(tensor, {1}, 0, test::floats({1}))
      .file();
}

// --- the tiny checkpoints of the goldens ------------------------------------------------------

TEST(checkpoint, every_tiny_checkpoint_opens_and_every_matrix_decodes) {
  int opened = 0;
  for (const auto& model : std::filesystem::directory_iterator(kTiny)) {
    for (const auto& form : std::filesystem::directory_iterator(model.path())) {
      std::string path = form.path().string();
      SCOPED_TRACE(path);
      Opened at(path);
      ASSERT_TRUE(at.checkpoint.has_value()) << at.checkpoint.error().message();
      const Checkpoint& c = *at.checkpoint;
      bool hf = form.path().filename().string().starts_with("hf");
      EXPECT_EQ(c.layout(), hf ? Layout::hf : Layout::mistral);
      EXPECT_EQ(c.config_json().empty(), !hf);
      EXPECT_EQ(c.params_json().empty(), hf);
      EXPECT_EQ(c.gguf(), nullptr);
      EXPECT_NE(c.file_path("tekken.json"), "");
      EXPECT_EQ(c.file_path("no-such-file"), "");
      uint64_t bytes = 0;
      for (const auto& [name, tensor] : c.tensors()) {
        bytes += tensor.bytes.size();
        if (tensor.shape.size() == 1) {
          EXPECT_TRUE(c.values(name).has_value()) << name;
        }
        if (tensor.shape.size() != 2) continue;
        auto weight = c.weight(name);
        ASSERT_TRUE(weight.has_value()) << weight.error().message();
        std::vector<float> row(static_cast<size_t>(weight->columns));
        decode_row(*weight, weight->rows - 1, row);
        for (float value : row) ASSERT_TRUE(value > -1e3f && value < 1e3f) << name;
        c.drop(*weight);
      }
      EXPECT_EQ(bytes, c.total_bytes());
      EXPECT_EQ(at.log, "");
      ++opened;
    }
  }
  EXPECT_EQ(opened, 15);
}

// The same model in both layouts: rows of Wq are permuted in one of them, scales have other names.
TEST(checkpoint, both_layouts_of_a_model_hold_the_same_weights) {
  for (const char* form : {"bf16", "fp8"}) {
    Opened hf(kTiny + "medium/hf-" + form), mistral(kTiny + "medium/mistral-" + form);
    ASSERT_TRUE(hf.checkpoint.has_value() && mistral.checkpoint.has_value());
    for (auto [hf_name, mistral_name, head] : {std::tuple{"self_attn.q_proj", "attention.wq", 128},
                                               {"self_attn.k_proj", "attention.wk", 128},
                                               {"self_attn.v_proj", "attention.wv", 0},
                                               {"mlp.down_proj", "feed_forward.w2", 0}}) {
      SCOPED_TRACE(hf_name);
      auto a = hf.checkpoint->weight(std::string("model.language_model.layers.1.") + hf_name +
                                     ".weight");
      auto b = mistral.checkpoint->weight(std::string("layers.1.") + mistral_name + ".weight");
      ASSERT_TRUE(a.has_value() && b.has_value());
      ASSERT_EQ(a->rows, b->rows);
      EXPECT_EQ(a->activation_scale, b->activation_scale);
      EXPECT_EQ(a->activation_scale > 0, std::string(form) == "fp8");
      EXPECT_EQ(b->order.interleaved_head, 0)
          << "the container does not know which rows are paired";
      b->order.interleaved_head = head;
      std::vector<float> row_a(static_cast<size_t>(a->columns)), row_b(row_a.size());
      for (int64_t r = 0; r < a->rows; ++r) {
        decode_row(*a, r, row_a);
        decode_row(*b, r, row_b);
        ASSERT_EQ(row_a, row_b) << "row " << r;
      }
    }
  }
}

// --- hf ---------------------------------------------------------------------------------------

const char* const kIndex = R"({"metadata":{"total_size":8},"weight_map":{
  "a.weight":"model-00001-of-00002.safetensors","b.weight":"model-00002-of-00002.safetensors"}})";

void write_sharded(const TempFolder& folder) {
  folder.write("config.json", "{}");
  folder.write("model.safetensors.index.json", kIndex);
  folder.write("model-00001-of-00002.safetensors", one_tensor("a.weight"));
  folder.write("model-00002-of-00002.safetensors", one_tensor("b.weight"));
}

TEST(checkpoint, an_index_joins_its_shards) {
  TempFolder folder;
  write_sharded(folder);
  Opened at(folder.path());
  ASSERT_TRUE(at.checkpoint.has_value()) << at.checkpoint.error().message();
  EXPECT_EQ(at.checkpoint->tensors().size(), 2u);
  EXPECT_EQ(at.checkpoint->files().size(), 2u);
  EXPECT_EQ(at.checkpoint->path(), folder.path());
}

TEST(checkpoint, a_missing_shard_is_named) {
  TempFolder folder;
  write_sharded(folder);
  std::filesystem::remove(folder.path() + "/model-00002-of-00002.safetensors");
  expect_error(Opened(folder.path()).checkpoint,
               "/model-00002-of-00002.safetensors: this shard is missing");
}

TEST(checkpoint, a_tensor_that_the_index_promises_must_be_in_its_shard) {
  TempFolder folder;
  write_sharded(folder);
  folder.write("model-00002-of-00002.safetensors", one_tensor("c.weight"));
  expect_error(Opened(folder.path()).checkpoint,
               "model-00002-of-00002.safetensors: the tensor \"b.weight\" is not in this shard");
  // In the other shard is not in its shard either.
  folder.write("model-00001-of-00002.safetensors", one_tensor("b.weight"));
  folder.write("model-00002-of-00002.safetensors", one_tensor("a.weight"));
  expect_error(Opened(folder.path()).checkpoint, "is not in this shard although the index says so");
}

TEST(checkpoint, a_tensor_in_two_shards_is_refused) {
  TempFolder folder;
  write_sharded(folder);
  folder.write(
      "model-00002-of-00002.safetensors",
      SafetensorsBuilder().add("a.weight", "U8", {1}, "x").add("b.weight", "U8", {1}, "x").file());
  expect_error(Opened(folder.path()).checkpoint, "tensor a.weight is also in another file");
}

TEST(checkpoint, a_shard_outside_the_index_is_left_out_with_a_warning) {
  TempFolder folder;
  write_sharded(folder);
  folder.write("model-00003-of-00003.safetensors", one_tensor("z.weight"));
  Opened at(folder.path());
  ASSERT_TRUE(at.checkpoint.has_value());
  EXPECT_EQ(at.checkpoint->find("z.weight"), nullptr);
  EXPECT_NE(at.log.find("model-00003-of-00003.safetensors: not part of this model"),
            std::string::npos);
}

TEST(checkpoint, a_broken_index_is_refused) {
  TempFolder folder;
  folder.write("config.json", "{}");
  const std::string name = "model.safetensors.index.json";
  for (const char* index :
       {"", "[]", "{}", R"({"weight_map":{}})", R"({"weight_map":[]})", R"({"weight_map":{"a":1}})",
        R"({"weight_map":{"a":"../model.safetensors"}})", R"({"weight_map":{"a":"x\u0000y"}})",
        R"({"weight_map":{"a":""}})"}) {
    folder.write(name, index);
    expect_error(Opened(folder.path()).checkpoint, name);
  }
}

TEST(checkpoint, shards_without_an_index_are_joined_by_their_names) {
  TempFolder folder;
  write_sharded(folder);
  std::filesystem::remove(folder.path() + "/model.safetensors.index.json");
  Opened at(folder.path());
  ASSERT_TRUE(at.checkpoint.has_value()) << at.checkpoint.error().message();
  EXPECT_EQ(at.checkpoint->tensors().size(), 2u);
}

TEST(checkpoint, corrupt_weights_say_the_file) {
  TempFolder folder;
  folder.write("config.json", "{}");
  folder.write("model.safetensors", "rubbish");
  expect_error(Opened(folder.path()).checkpoint, "/model.safetensors: the file ends");
  folder.write("model.safetensors", one_tensor("a"));
  folder.write("config.json", "{\"quantization_config\":{\"quant_method\":\"hqq\"}}");
  expect_error(Opened(folder.path()).checkpoint, "quant_method: found \"hqq\"");
}

TEST(checkpoint, calibration_leftovers_are_ignored) {
  TempFolder folder;
  folder.write("params.json", "{}");
  folder.write(
      "consolidated.safetensors",
      SafetensorsBuilder()
          .add("layers.0.attention.wk.weight", "F32", {1, 1}, test::floats({1}))
          .add("layers.0.attention.k_fake_quantizer.qscale_act", "F32", {}, test::floats({1}))
          .file());
  Opened at(folder.path());
  ASSERT_TRUE(at.checkpoint.has_value()) << at.checkpoint.error().message();
  EXPECT_EQ(at.checkpoint->tensors().size(), 1u);
  EXPECT_EQ(at.checkpoint->total_bytes(), 4u);
}

// --- mistral ----------------------------------------------------------------------------------

TEST(checkpoint, consolidated_shards_are_joined_and_a_missing_one_is_named) {
  TempFolder folder;
  folder.write("params.json", "{}");
  folder.write("consolidated-00001-of-00003.safetensors", one_tensor("a.weight"));
  folder.write("consolidated-00003-of-00003.safetensors", one_tensor("c.weight"));
  expect_error(Opened(folder.path()).checkpoint,
               "/consolidated-00002-of-00003.safetensors: this shard");
  folder.write("consolidated-00002-of-00003.safetensors", one_tensor("b.weight"));
  Opened at(folder.path());
  ASSERT_TRUE(at.checkpoint.has_value()) << at.checkpoint.error().message();
  EXPECT_EQ(at.checkpoint->tensors().size(), 3u);
}

TEST(checkpoint, of_two_layouts_hf_is_taken_and_an_option_chooses) {
  TempFolder folder;
  folder.write("config.json", "{}");
  folder.write("model.safetensors", one_tensor("hf.weight"));
  folder.write("params.json", "{}");
  folder.write("consolidated.safetensors", one_tensor("mistral.weight"));
  Opened both(folder.path());
  ASSERT_TRUE(both.checkpoint.has_value());
  EXPECT_EQ(both.checkpoint->layout(), Layout::hf);
  EXPECT_NE(both.log.find("hf is taken"), std::string::npos);
  Opened mistral(folder.path(), forced(Layout::mistral));
  ASSERT_TRUE(mistral.checkpoint.has_value());
  EXPECT_NE(mistral.checkpoint->find("mistral.weight"), nullptr);
  expect_error(Opened(folder.path(), forced(Layout::gguf)).checkpoint,
               "no model in the layout gguf");
  // Without its weights hf is no layout to take.
  std::filesystem::remove(folder.path() + "/model.safetensors");
  EXPECT_EQ(Opened(folder.path()).checkpoint->layout(), Layout::mistral);
  expect_error(Opened(folder.path(), forced(Layout::hf)).checkpoint, "config.json without weights");
}

// --- gguf -------------------------------------------------------------------------------------

TEST(checkpoint, a_gguf_file_opens_by_its_name_or_by_its_folder) {
  TempFolder folder;
  std::string file = folder.write("model.Q4_1.gguf", gguf_with("token_embd.weight"));
  for (const std::string& path : {file, folder.path()}) {
    Opened at(path);
    ASSERT_TRUE(at.checkpoint.has_value()) << at.checkpoint.error().message();
    EXPECT_EQ(at.checkpoint->layout(), Layout::gguf);
    ASSERT_NE(at.checkpoint->gguf(), nullptr);
    EXPECT_EQ(*at.checkpoint->gguf()->get_string("general.architecture", ""), "llama");
    EXPECT_EQ(at.checkpoint->mmproj(), nullptr);
    EXPECT_EQ(*at.checkpoint->values("token_embd.weight"), std::vector<float>{1});
  }
  folder.write("other.gguf", gguf_with("t"));
  expect_error(Opened(folder.path()).checkpoint, "holds 2 GGUF models; name one of them");
  expect_error(Opened(file, forced(Layout::hf)).checkpoint, "no model in the layout hf");
}

TEST(checkpoint, a_split_gguf_is_joined_from_any_of_its_shards) {
  TempFolder folder;
  std::string first = folder.write("m-00001-of-00002.gguf", gguf_shard("a", 0, 2, 2));
  std::string second = folder.write("m-00002-of-00002.gguf", gguf_shard("b", 1, 2, 2));
  for (const std::string& path : {first, second, folder.path()}) {
    Opened at(path);
    ASSERT_TRUE(at.checkpoint.has_value()) << at.checkpoint.error().message();
    EXPECT_EQ(at.checkpoint->tensors().size(), 2u);
    EXPECT_EQ(at.checkpoint->gguf()->path(), first);
  }
  std::filesystem::remove(second);
  expect_error(Opened(folder.path()).checkpoint, "/m-00002-of-00002.gguf: this shard is missing");
}

TEST(checkpoint, shards_that_disagree_with_their_names_are_refused) {
  TempFolder folder;
  std::string first = folder.write("m-00001-of-00002.gguf", gguf_shard("a", 0, 2, 2));
  folder.write("m-00002-of-00002.gguf", gguf_shard("b", 0, 2, 2));
  expect_error(Opened(first).checkpoint, "split.no: found 0, expected 1");
  folder.write("m-00002-of-00002.gguf", gguf_shard("b", 1, 3, 2));
  expect_error(Opened(first).checkpoint, "split.count: found 3, expected 2");
  folder.write("m-00002-of-00002.gguf", gguf_shard("a", 1, 2, 2));
  expect_error(Opened(first).checkpoint, "tensor a is also in another file");
  folder.write("m-00001-of-00002.gguf", gguf_shard("a", 0, 2, 3));
  folder.write("m-00002-of-00002.gguf", gguf_shard("b", 1, 2, 3));
  expect_error(Opened(first).checkpoint, "split.tensors.count: found 3, but the shards hold 2");
  expect_error(Opened(folder.write("renamed.gguf", gguf_shard("a", 0, 2, 2))).checkpoint,
               "give them their published names");
}

std::string projector_file() {
  return GgufBuilder()
      .text("general.architecture", "clip")
      .tensor("mm.1.weight", {1}, 0, test::floats({1}))
      .file();
}

TEST(checkpoint, a_projector_beside_the_model_is_taken_or_left) {
  TempFolder folder;
  std::string model = folder.write("model.gguf", gguf_with("token_embd.weight"));
  std::string projector = folder.write("mmproj-model-f16.gguf", projector_file());
  for (const std::string& path : {model, folder.path()}) {
    Opened at(path);
    ASSERT_TRUE(at.checkpoint.has_value()) << at.checkpoint.error().message();
    ASSERT_NE(at.checkpoint->mmproj(), nullptr);
    EXPECT_NE(at.checkpoint->find("mm.1.weight"), nullptr);
  }
  CheckpointOptions text_only;
  text_only.language_model_only = true;
  EXPECT_EQ(Opened(model, text_only).checkpoint->mmproj(), nullptr);
  std::filesystem::remove(projector);
  EXPECT_EQ(Opened(model).checkpoint->mmproj(), nullptr);
}

TEST(checkpoint, a_projector_by_option_must_be_one_and_needs_a_gguf_model) {
  TempFolder folder;
  std::string model = folder.write("model.gguf", gguf_with("token_embd.weight"));
  CheckpointOptions options;
  options.mmproj = folder.path() + "/sub.gguf";
  expect_error(Opened(model, options).checkpoint, "/sub.gguf: cannot open");
  folder.write("sub.gguf", gguf_with("t"));
  expect_error(Opened(model, options).checkpoint, "found \"llama\", expected \"clip\"");
  folder.write("sub.gguf", projector_file());
  EXPECT_NE(Opened(model, options).checkpoint->mmproj(), nullptr);
  std::filesystem::remove(model);
  std::filesystem::remove(options.mmproj);
  folder.write("config.json", "{}");
  folder.write("model.safetensors", one_tensor("a.weight"));
  expect_error(Opened(folder.path(), options).checkpoint, "goes with a GGUF model");
}

// --- paths and lookups ------------------------------------------------------------------------

TEST(checkpoint, paths_without_a_model_are_refused) {
  TempFolder folder;
  expect_error(Opened(folder.path() + "/none").checkpoint, "/none: no such file or folder");
  expect_error(Opened(folder.path()).checkpoint, "no model here; expected config.json");
  expect_error(Opened(folder.write("weights.bin", "x")).checkpoint,
               "expected a model folder or a .gguf");
  expect_error(Opened(folder.write("x.gguf", "")).checkpoint, "not a GGUF file");
  folder.write("params.json", "{}");
  std::filesystem::remove(folder.path() + "/x.gguf");
  expect_error(Opened(folder.path()).checkpoint,
               "params.json without weights; expected consolidated");
}

TEST(checkpoint, lookups_say_what_is_wrong_with_a_tensor) {
  TempFolder folder;
  folder.write("config.json", "{}");
  folder.write("model.safetensors",
               SafetensorsBuilder()
                   .add("norm.weight", "F16", {2}, std::string("\x00\x3C\x00\xC0", 4))
                   .add("ids", "I32", {1}, std::string(4, '\0'))
                   .add("eight", "F8_E4M3", {1, 1}, "x")
                   .file());
  Opened at(folder.path());
  ASSERT_TRUE(at.checkpoint.has_value());
  EXPECT_EQ(*at.checkpoint->values("norm.weight"), (std::vector<float>{1.0f, -2.0f}));
  expect_error(at.checkpoint->values("none"), "tensor none is missing");
  expect_error(at.checkpoint->values("ids"), "tensor ids: found I32, expected F32, F16 or BF16");
  expect_error(at.checkpoint->weight("none.weight"), "tensor none.weight is missing");
  expect_error(at.checkpoint->weight("norm.weight"), "found shape [2], expected a matrix");
  expect_error(at.checkpoint->weight("eight"), "found dtype F8_E4M3");
}

TEST(shard_name, five_digits_each_make_a_shard) {
  auto shard = parse_shard_name("m-x-00002-of-00010.gguf", ".gguf");
  ASSERT_TRUE(shard.has_value());
  EXPECT_EQ(shard->stem, "m-x");
  EXPECT_EQ(shard->number, 2);
  EXPECT_EQ(shard->count, 10);
  EXPECT_EQ(make_shard_name(*shard, ".gguf"), "m-x-00002-of-00010.gguf");
  for (const char* name :
       {"m.gguf", "-00001-of-00001.gguf", "m-0001-of-00001.gguf", "m-00000-of-00001.gguf",
        "m-00002-of-00001.gguf", "m-0000x-of-00001.gguf", "m_00001-of-00001.gguf",
        "m-00001-of-00001.ggu", "m-00001_of-00001.gguf", ""}) {
    EXPECT_FALSE(parse_shard_name(name, ".gguf").has_value()) << name;
  }
}

}  // namespace
}  // namespace bise
