#include "io/gguf.h"

#include <gtest/gtest.h>

#include <random>

#include "io/file_builders.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

using test::append;
using test::append_counted;
using test::expect_error;
using test::GgufBuilder;

// Keeps the bytes beside the parsed file.
struct Parsed {
  std::string bytes;
  Result<GgufFile> file;
  explicit Parsed(std::string text)
      : bytes(std::move(text)), file(GgufFile::parse(as_bytes(bytes), "x.gguf")) {}
};

std::string model_file() {
  return GgufBuilder()
      .text("general.architecture", "llama")
      .u32("llama.block_count", 2)
      .texts("tokenizer.ggml.tokens", {"<s>", "", "world"})
      .tensor("norm.weight", {4}, 0, test::floats({1, 2, 3, 4}))
      .tensor("w.weight", {32, 2}, 3, std::string(40, 'q'))
      .file();
}

TEST(gguf, names_types_shapes_and_bytes_come_back) {
  Parsed parsed(model_file());
  ASSERT_TRUE(parsed.file.has_value()) << parsed.file.error().message();
  const GgufFile& file = *parsed.file;
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "norm.weight");
  EXPECT_EQ(file.tensors()[0].dtype, DType::f32);
  EXPECT_EQ(load_le<float>(file.tensors()[0].bytes.data() + 12), 4.0f);
  EXPECT_EQ(file.tensors()[1].shape, (std::vector<int64_t>{2, 32})) << "slowest dimension first";
  EXPECT_EQ(file.tensors()[1].dtype, DType::block);
  EXPECT_EQ(file.tensors()[1].ggml_type, 3);
  EXPECT_EQ(as_text(file.tensors()[1].bytes), std::string(40, 'q'));
}

TEST(gguf, the_published_example_has_its_published_offsets) {
  std::string bytes = GgufBuilder()
                          .text("general.architecture", "mistral3")
                          .u32("general.alignment", 32)
                          .tensor("output_norm.weight", {4}, 0, test::floats({1, 2, 3, 4}))
                          .file();
  bytes.resize(192);
  Parsed parsed(bytes);
  ASSERT_TRUE(parsed.file.has_value()) << parsed.file.error().message();
  EXPECT_EQ(parsed.file->tensors()[0].bytes.data(), as_bytes(parsed.bytes).data() + 160);
}

TEST(gguf, metadata_of_every_type_comes_back) {
  GgufBuilder builder;
  builder.number<uint8_t>("u8", 0, 200)
      .number<int8_t>("i8", 1, -3)
      .number<uint16_t>("u16", 2, 60000);
  builder.number<int16_t>("i16", 3, -300).u32("u32", 4000000000u).number<int32_t>("i32", 5, -7);
  builder.number<float>("f32", 6, 1e-5f).number<uint8_t>("yes", 7, 1).text("text", "Grüezi");
  builder.number<uint64_t>("u64", 10, UINT64_MAX).number<int64_t>("i64", 11, INT64_MIN);
  builder.number<double>("f64", 12, 2.5);
  builder.texts("texts", {"a", "", "ccc"});
  std::string ints, reals;
  append<uint32_t>(ints, 5);
  append<uint64_t>(ints, 2);
  append<int32_t>(ints, -1);
  append<int32_t>(ints, 9);
  append<uint32_t>(reals, 6);
  append<uint64_t>(reals, 1);
  append<float>(reals, 0.25f);
  builder.raw("ints", 9, ints).raw("reals", 9, reals);
  Parsed parsed(builder.file());
  ASSERT_TRUE(parsed.file.has_value()) << parsed.file.error().message();
  const GgufFile& f = *parsed.file;
  EXPECT_EQ(*f.get_int("u8", 0), 200);
  EXPECT_EQ(*f.get_int("i8", 0), -3);
  EXPECT_EQ(*f.get_int("u16", 0), 60000);
  EXPECT_EQ(*f.get_int("i16", 0), -300);
  EXPECT_EQ(*f.get_int("u32", 0), 4000000000);
  EXPECT_EQ(*f.get_int("i32", 0), -7);
  EXPECT_EQ(*f.get_int("i64", 0), INT64_MIN);
  EXPECT_EQ(*f.get_number("f32", 0), static_cast<double>(1e-5f));
  EXPECT_EQ(*f.get_number("f64", 0), 2.5);
  EXPECT_EQ(*f.get_number("i32", 0), -7.0);
  EXPECT_EQ(*f.get_bool("yes", false), true);
  EXPECT_EQ(*f.get_string("text", ""), "Grüezi");
  EXPECT_EQ(*f.get_strings("texts"), (std::vector<std::string_view>{"a", "", "ccc"}));
  EXPECT_EQ(*f.get_ints("ints"), (std::vector<int64_t>{-1, 9}));
  EXPECT_EQ(*f.get_floats("reals"), (std::vector<float>{0.25f}));
  EXPECT_TRUE(f.has("ints"));
  expect_error(f.get_int("u64", 0), "x.gguf: metadata u64: expected an integer");
  expect_error(f.get_int("text", 0), "expected an integer");
  expect_error(f.get_number("text", 0), "expected a number");
  expect_error(f.get_bool("u8", false), "expected true or false");
  expect_error(f.get_string("u8", ""), "expected a string");
  expect_error(f.get_strings("ints"), "expected an array of strings");
  expect_error(f.get_ints("reals"), "expected an array of integers");
  expect_error(f.get_ints("texts"), "expected an array of integers");
  expect_error(f.get_floats("ints"), "expected an array of numbers");
}

TEST(gguf, a_missing_key_gives_the_fallback) {
  Parsed parsed(model_file());
  ASSERT_TRUE(parsed.file.has_value());
  EXPECT_EQ(*parsed.file->get_int("no.such", 5), 5);
  EXPECT_EQ(*parsed.file->get_string("no.such", "x"), "x");
  EXPECT_TRUE(parsed.file->get_strings("no.such")->empty());
  EXPECT_FALSE(parsed.file->has("no.such"));
}

TEST(gguf, version_2_reads_as_version_3_and_others_are_refused) {
  GgufBuilder builder;
  builder.u32("k", 1);
  builder.version = 2;
  EXPECT_TRUE(Parsed(builder.file()).file.has_value());
  for (uint32_t version : {0u, 1u, 4u, 0x03000000u}) {
    builder.version = version;
    expect_error(Parsed(builder.file()).file, "expected 2 or 3");
  }
  expect_error(Parsed("GGML").file, "not a GGUF file");
  expect_error(Parsed(std::string(100, 'G')).file, "not a GGUF file");
}

TEST(gguf, counts_that_the_file_cannot_hold_are_refused) {
  std::string file = model_file();
  for (uint64_t count : {UINT64_MAX, uint64_t{1} << 40}) {
    std::string tensors = file, keys = file;
    std::memcpy(tensors.data() + 8, &count, 8);
    std::memcpy(keys.data() + 16, &count, 8);
    expect_error(Parsed(tensors).file, "the header promises");
    expect_error(Parsed(keys).file, "the header promises");
  }
  uint64_t million = 1'000'000;
  std::memcpy(file.data() + 8, &million, 8);
  EXPECT_FALSE(Parsed(file).file.has_value());
}

TEST(gguf, arrays_that_the_file_cannot_hold_are_refused) {
  for (uint32_t type : {0u, 6u, 8u, 12u}) {
    for (uint64_t count : {UINT64_MAX, uint64_t{1} << 61, uint64_t{100}}) {
      std::string value;
      append(value, type);
      append(value, count);
      const Parsed parsed(GgufBuilder().raw("k", 9, value).file());
      expect_error(parsed.file, "metadata k");
      if (type == 8) expect_error(parsed.file, "is the download complete?");
    }
  }
}

TEST(gguf, arrays_of_arrays_are_refused_at_any_depth) {
  std::string value;
  for (int depth = 0; depth < 100000; ++depth) {
    append<uint32_t>(value, 9);
    append<uint64_t>(value, 1);
  }
  expect_error(Parsed(GgufBuilder().raw("k", 9, value).file()).file, "array of value type 9");
}

TEST(gguf, unknown_value_types_and_long_strings_are_refused) {
  expect_error(Parsed(GgufBuilder().raw("k", 13, "xxxx").file()).file, "value type 13");
  std::string value;
  append<uint64_t>(value, UINT64_MAX);
  expect_error(Parsed(GgufBuilder().raw("k", 8, value).file()).file, "metadata k: a string of");
}

TEST(gguf, names_that_occur_twice_are_refused) {
  expect_error(Parsed(GgufBuilder().u32("k", 1).u32("k", 2).file()).file,
               "metadata k occurs twice");
  expect_error(Parsed(GgufBuilder()
                          .tensor("t", {1}, 0, test::floats({1}))
                          .tensor("t", {1}, 0, test::floats({1}))
                          .file())
                   .file,
               "tensor t occurs twice");
}

TEST(gguf, names_that_would_break_a_line_are_refused) {
  expect_error(Parsed(GgufBuilder().u32("a\nb", 1).file()).file, "\"a b\"");
  expect_error(Parsed(GgufBuilder().u32("", 1).file()).file, "1 to 1024 bytes");
  expect_error(Parsed(GgufBuilder().tensor("\xFF", {1}, 0, test::floats({1})).file()).file,
               "the name of a tensor");
}

TEST(gguf, the_alignment_must_be_a_power_of_two) {
  for (uint32_t alignment : {0u, 24u, 0x80000001u}) {
    expect_error(Parsed(GgufBuilder().u32("general.alignment", alignment).file()).file,
                 "general.alignment");
  }
  expect_error(Parsed(GgufBuilder().text("general.alignment", "32").file()).file,
               "general.alignment");
  GgufBuilder builder;
  builder.alignment = 64;
  builder.u32("general.alignment", 64).tensor("t", {1}, 0, test::floats({9}));
  Parsed parsed(builder.file());
  ASSERT_TRUE(parsed.file.has_value()) << parsed.file.error().message();
  EXPECT_EQ(load_le<float>(parsed.file->tensors()[0].bytes.data()), 9.0f);
}

TEST(gguf, dimensions_that_overflow_are_refused) {
  auto with_dims = [](const std::vector<uint64_t>& dims) {
    return GgufBuilder().tensor_at("t", dims, 0, 0).file() + std::string(64, '\0');
  };
  expect_error(Parsed(with_dims({uint64_t{1} << 40, uint64_t{1} << 40})).file,
               "its size overflows");
  expect_error(Parsed(with_dims({UINT64_MAX})).file, "its size overflows");
  expect_error(Parsed(with_dims({0, uint64_t{1} << 40, uint64_t{1} << 40})).file,
               "its size overflows");
  expect_error(Parsed(with_dims({1, 1, 1, 1, 1})).file, "found 5 dimensions");
  EXPECT_TRUE(Parsed(with_dims({0, 7})).file.has_value());
  EXPECT_TRUE(Parsed(with_dims({})).file.has_value()) << "a scalar";
}

TEST(gguf, rows_must_be_whole_blocks) {
  expect_error(Parsed(GgufBuilder().tensor("t", {48}, 2, std::string(27, 'x')).file()).file,
               "tensor t: rows of 48 elements do not divide into blocks of 32 (Q4_0)");
}

TEST(gguf, offsets_must_be_aligned_inside_and_apart) {
  std::string data(256, '\0');
  expect_error(Parsed(GgufBuilder().tensor_at("t", {4}, 0, 4).file() + data).file,
               "tensor t: offset 4 is not a multiple of the alignment 32");
  expect_error(Parsed(GgufBuilder().tensor_at("t", {65}, 0, 0).file() + data).file,
               "tensor t: bytes 0 to 260 lie outside the data of 256 bytes");
  expect_error(Parsed(GgufBuilder().tensor_at("t", {4}, 0, UINT64_MAX - 31).file() + data).file,
               "lie outside the data");
  expect_error(
      Parsed(GgufBuilder().tensor_at("a", {16}, 0, 0).tensor_at("b", {4}, 0, 32).file() + data)
          .file,
      "tensors a and b overlap");
  expect_error(
      Parsed(GgufBuilder().tensor_at("a", {4}, 0, 32).tensor_at("b", {4}, 0, 32).file() + data)
          .file,
      "overlap");
}

TEST(gguf, tensors_of_unknown_type_are_listed_with_their_number) {
  Parsed parsed(GgufBuilder()
                    .tensor("odd", {256, 2}, 16, std::string(64, 'x'))
                    .tensor("t", {1}, 0, test::floats({5}))
                    .file());
  ASSERT_TRUE(parsed.file.has_value()) << parsed.file.error().message();
  EXPECT_EQ(parsed.file->tensors()[0].ggml_type, 16);
  EXPECT_EQ(parsed.file->tensors()[0].dtype, DType::block);
  EXPECT_EQ(parsed.file->tensors()[0].bytes.size(), 64u);
  EXPECT_EQ(ggml_type_name(16), "IQ2_XXS");
  EXPECT_EQ(ggml_type_name(12), "Q4_K");
  EXPECT_EQ(ggml_type_name(9999), "number 9999");
}

TEST(gguf, every_truncation_of_a_file_is_refused) {
  std::string file = model_file();
  for (size_t size = 0; size < file.size(); ++size) {
    const Parsed parsed(file.substr(0, size));
    EXPECT_FALSE(parsed.file.has_value()) << size;
    if (size < 24)
      expect_error(parsed.file, size < 4 ? "not a GGUF file" : "the file ends at byte " + std::to_string(size));
  }
  EXPECT_TRUE(Parsed(file).file.has_value());
}

TEST(gguf, changed_bytes_never_give_views_outside_the_file) {
  const std::string good = model_file();
  std::mt19937 random(11);
  int accepted = 0;
  for (int round = 0; round < 50000; ++round) {
    std::string bytes = good;
    for (int i = 0, n = 1 + static_cast<int>(random() % 3); i < n; ++i) {
      bytes[random() % bytes.size()] = static_cast<char>(random() % 4 == 0 ? 0xFF : random());
    }
    Parsed parsed(bytes);
    if (!parsed.file) {
      EXPECT_EQ(parsed.file.error().message().find('\n'), std::string::npos);
      continue;
    }
    ++accepted;
    for (const TensorView& t : parsed.file->tensors()) {
      EXPECT_GE(t.bytes.data(), as_bytes(parsed.bytes).data());
      EXPECT_LE(t.bytes.data() + t.bytes.size(),
                as_bytes(parsed.bytes).data() + parsed.bytes.size());
      EXPECT_GE(t.num_elements(), 0);
    }
    EXPECT_TRUE(parsed.file->get_strings("tokenizer.ggml.tokens").has_value() ||
                parsed.file->has("tokenizer.ggml.tokens"));
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 50000);
}

}  // namespace
}  // namespace bise
