// What the writers write, our readers read back; files appear whole or not at all.
#include <gtest/gtest.h>

#include <filesystem>

#include "base/json.h"
#include "io/checkpoint.h"
#include "io/file_builders.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"
#include "io/safetensors.h"
#include "io/safetensors_writer.h"
#include "support/temp_folder.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

using test::expect_error;
using test::slurp;

std::string bytes_of(size_t count, char first) {
  std::string bytes(count, '\0');
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(first + static_cast<char>(i % 61));
  return bytes;
}
size_t files_in(const std::string& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

// --- safetensors

const std::vector<StoredTensor> kTensors = {{"a.weight", DType::bf16, {3, 5}},
                                            {"a.weight_scale", DType::f32, {}},
                                            {"b.weight", DType::f8_e4m3, {7, 4}},
                                            {"empty", DType::f16, {0, 4}},
                                            {"norm.weight", DType::bf16, {4}}};

// Writes every tensor with bytes of its own, in pieces of `piece`; the bytes by name.
std::map<std::string, std::string> write_all(SafetensorsWriter& writer, size_t piece) {
  std::map<std::string, std::string> written;
  for (const StoredTensor& tensor : writer.tensors()) {
    std::string bytes = bytes_of(stored_bytes(tensor).value(), tensor.name[0]);
    written[tensor.name] = bytes;
    for (size_t at = 0; at < bytes.size(); at += piece) {
      EXPECT_TRUE(writer.write(as_bytes(bytes).subspan(at, std::min(piece, bytes.size() - at))));
    }
  }
  return written;
}

TEST(safetensors_writer, one_file_is_read_back_with_names_shapes_and_bytes) {
  TempFolder folder;
  auto writer = SafetensorsWriter::create(folder.path(), kTensors, {});
  ASSERT_TRUE(writer) << writer.error().message();
  auto written = write_all(*writer, 7);
  EXPECT_FALSE(file_exists(folder.at("model.safetensors")));
  ASSERT_TRUE(writer->commit());
  EXPECT_EQ(files_in(folder.path()), 1u);
  std::string file = slurp(folder.at("model.safetensors"));
  EXPECT_EQ(load_le<uint64_t>(file.data()) % 8, 0u);
  EXPECT_EQ(file.substr(8, 34), "{\"__metadata__\":{\"format\":\"pt\"},\"a");
  auto views = parse_safetensors(as_bytes(file), "model.safetensors");
  ASSERT_TRUE(views) << views.error().message();
  ASSERT_EQ(views->size(), kTensors.size());
  for (const TensorView& view : *views) {
    auto wanted = std::find_if(kTensors.begin(), kTensors.end(), [&](const StoredTensor& t) { return t.name == view.name; });
    ASSERT_NE(wanted, kTensors.end());
    EXPECT_EQ(view.dtype, wanted->dtype);
    EXPECT_EQ(view.shape, wanted->shape);
    EXPECT_EQ(as_text(view.bytes), written[view.name]);
    if (!view.bytes.empty()) {
      EXPECT_EQ((view.bytes.data() - as_bytes(file).data()) % dtype_bytes(view.dtype), 0) << view.name;
    }
  }
}

TEST(safetensors_writer, shards_have_an_index_and_open_as_a_checkpoint) {
  TempFolder folder;
  auto writer = SafetensorsWriter::create(folder.path(), kTensors, {.stem = "model", .max_shard_bytes = 40});
  ASSERT_TRUE(writer) << writer.error().message();
  auto written = write_all(*writer, 1000);
  ASSERT_TRUE(writer->commit());
  folder.write("config.json", "{}");
  Json index = parse_json(slurp(folder.at("model.safetensors.index.json"))).value();
  EXPECT_EQ(index["metadata"]["total_size"], writer->total_bytes());
  EXPECT_EQ(index["weight_map"]["a.weight"], "model-00001-of-00002.safetensors");
  EXPECT_EQ(index["weight_map"]["b.weight"], "model-00002-of-00002.safetensors");
  auto checkpoint = Checkpoint::open(folder.path(), {}, Log());
  ASSERT_TRUE(checkpoint) << checkpoint.error().message();
  EXPECT_EQ(checkpoint->tensors().size(), kTensors.size());
  for (const auto& [name, bytes] : written) EXPECT_EQ(as_text(checkpoint->find(name)->bytes), bytes);
}

TEST(safetensors_writer, a_tensor_larger_than_a_shard_has_one_of_its_own) {
  TempFolder folder;
  auto writer = SafetensorsWriter::create(
      folder.path(), {{"a", DType::u8, {10}}, {"b", DType::u8, {100}}, {"c", DType::u8, {10}}}, {.stem = "x", .max_shard_bytes = 50});
  ASSERT_TRUE(writer);
  write_all(*writer, 1000);
  ASSERT_TRUE(writer->commit());
  EXPECT_EQ(files_in(folder.path()), 4u);
  EXPECT_TRUE(file_exists(folder.at("x-00003-of-00003.safetensors")));
}

TEST(safetensors_writer, what_was_not_committed_leaves_nothing) {
  TempFolder folder;
  {
    auto writer = SafetensorsWriter::create(folder.path(), kTensors, {.stem = "model", .max_shard_bytes = 40});
    ASSERT_TRUE(writer);
    write_all(*writer, 1000);
    EXPECT_EQ(files_in(folder.path()), 2u);
  }
  EXPECT_EQ(files_in(folder.path()), 0u);
}

TEST(safetensors_writer, refuses_names_twice_names_that_cannot_be_read_and_sizes_that_overflow) {
  TempFolder folder;
  auto create = [&](std::vector<StoredTensor> t) { return SafetensorsWriter::create(folder.path(), std::move(t), {}); };
  expect_error(create({{"a", DType::u8, {1}}, {"a", DType::u8, {1}}}), "a occurs twice");
  expect_error(create({{"a\nb", DType::u8, {1}}}), "control characters");
  expect_error(create({{"a", DType::f32, {int64_t{1} << 40, int64_t{1} << 40}}}), "overflows");
  expect_error(create({{"a", DType::f32, {-1}}}), "overflows");
  expect_error(create({}), "no tensors");
  expect_error(SafetensorsWriter::create(folder.at("none"), kTensors, {}), folder.at("none"));
}

// --- GGUF

TEST(gguf_writer, metadata_and_tensors_are_read_back) {
  TempFolder folder;
  GgufMetadata metadata;
  metadata.set_string("general.architecture", "mistral3");
  metadata.set_u32("n", 4'000'000'000u);
  metadata.set_f32("x", 0.25f);
  metadata.set_bool("flag", true);
  const std::vector<std::string> words = {"a", "", "ü"};
  metadata.set_strings("words", words);
  const std::vector<int32_t> ints = {-1, 2};
  metadata.set_i32s("ints", ints);
  const std::vector<float> floats = {0.5f, -2.0f};
  metadata.set_f32s("floats", floats);
  const std::vector<GgufTensor> tensors = {
      {"norm.weight", 0, {3}}, {"q.weight", weight_format(FormatId::q4_k).ggml_type, {3, 512}}, {"b.weight", 30, {2, 3}}};
  const std::string path = folder.at("m.gguf");
  auto writer = GgufWriter::create(path, metadata, tensors);
  ASSERT_TRUE(writer) << writer.error().message();
  std::vector<std::string> written;
  for (const GgufTensor& tensor : writer->tensors()) {
    written.push_back(bytes_of(gguf_tensor_bytes(tensor).value(), tensor.name[0]));
    ASSERT_TRUE(writer->write(as_bytes(written.back()).first(5)));
    ASSERT_TRUE(writer->write(as_bytes(written.back()).subspan(5)));
  }
  EXPECT_EQ(writer->total_bytes(), 12u + 3 * 288 + 12);
  EXPECT_FALSE(file_exists(path));
  ASSERT_TRUE(writer->commit());
  auto file = GgufFile::open(path);
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(file->metadata().size(), 7u);
  EXPECT_EQ(file->get_string("general.architecture", "").value(), "mistral3");
  EXPECT_EQ(file->get_int("n", 0).value(), 4'000'000'000);
  EXPECT_EQ(file->get_number("x", 0).value(), 0.25);
  EXPECT_EQ(file->get_bool("flag", false).value(), true);
  EXPECT_EQ(file->get_strings("words").value(), (std::vector<std::string_view>{"a", "", "ü"}));
  EXPECT_EQ(file->get_ints("ints").value(), (std::vector<int64_t>{-1, 2}));
  EXPECT_EQ(file->get_floats("floats").value(), floats);
  ASSERT_EQ(file->tensors().size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorView& view = file->tensors()[i];
    EXPECT_EQ(view.name, tensors[i].name);
    EXPECT_EQ(view.shape, tensors[i].shape);
    EXPECT_EQ(as_text(view.bytes), written[i]);
  }
}

TEST(gguf_writer, refuses_rows_that_are_no_whole_blocks_and_names_twice) {
  TempFolder folder;
  const int q4_k = weight_format(FormatId::q4_k).ggml_type;
  expect_error(GgufWriter::create(folder.at("a.gguf"), {}, {{"a", q4_k, {3, 100}}}), "blocks of 256");
  expect_error(GgufWriter::create(folder.at("a.gguf"), {}, {{"a", 0, {3}}, {"a", 0, {3}}}), "occurs twice");
  expect_error(GgufWriter::create(folder.at("a.gguf"), {}, {{"a", 0, {1, 1, 1, 1, 1}}}), "1 to 4");
  EXPECT_EQ(files_in(folder.path()), 0u);
}

}  // namespace
}  // namespace bise
