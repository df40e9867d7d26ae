#include "io/safetensors.h"

#include <gtest/gtest.h>

#include <random>

#include "io/file_builders.h"

namespace bise {
namespace {

using test::expect_error;
using test::safetensors_file;

Result<std::vector<TensorView>> parse(const std::string& file) {
  return parse_safetensors(as_bytes(file), "x.safetensors");
}
// A file with one tensor entry as given and `bytes` bytes of data.
std::string with_entry(const std::string& entry, size_t bytes) {
  return safetensors_file("{\"w\":" + entry + "}", std::string(bytes, '\0'));
}

TEST(safetensors, names_types_shapes_and_bytes_come_back) {
  std::string file = test::SafetensorsBuilder()
                         .add("a.weight", "F32", {2, 2}, test::floats({1, 2, 3, 4}))
                         .add("b", "BF16", {3}, "abcdef")
                         .add("scale", "F32", {}, test::floats({0.5f}))
                         .add("empty", "I64", {0, 4}, "")
                         .file();
  auto tensors = parse(file);
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message();
  ASSERT_EQ(tensors->size(), 4u);
  EXPECT_EQ((*tensors)[0].name, "a.weight");
  EXPECT_EQ((*tensors)[0].shape, (std::vector<int64_t>{2, 2}));
  EXPECT_EQ(load_le<float>((*tensors)[0].bytes.data() + 8), 3.0f);
  EXPECT_EQ((*tensors)[1].dtype, DType::bf16);
  EXPECT_EQ(as_text((*tensors)[1].bytes), "abcdef");
  EXPECT_TRUE((*tensors)[2].shape.empty());
  EXPECT_EQ((*tensors)[2].bytes.size(), 4u);
  EXPECT_EQ((*tensors)[3].num_elements(), 0);
  EXPECT_EQ((*tensors)[0].ggml_type, -1);
}

TEST(safetensors, order_padding_and_metadata_do_not_matter) {
  std::string file = safetensors_file(
      R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]},"__metadata__":{"format":"pt"},)"
      R"("a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}   )",
      "AAABB");
  auto tensors = parse(file);
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message();
  EXPECT_EQ(as_text((*tensors)[0].bytes), "BB");
  EXPECT_EQ(as_text((*tensors)[1].bytes), "AAA");
}

TEST(safetensors, data_may_begin_at_an_odd_byte) {
  std::string header = R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
  while ((8 + header.size()) % 2 == 0) header += ' ';
  std::string file = safetensors_file(header, test::floats({7.0f}));
  auto tensors = parse(file);
  ASSERT_TRUE(tensors.has_value());
  EXPECT_EQ(load_le<float>((*tensors)[0].bytes.data()), 7.0f);
}

TEST(safetensors, a_file_without_tensors_is_valid) {
  auto tensors = parse(safetensors_file("{}", ""));
  ASSERT_TRUE(tensors.has_value());
  EXPECT_TRUE(tensors->empty());
}

TEST(safetensors, headers_that_lie_about_their_length_are_refused) {
  expect_error(parse(""), "x.safetensors: the file ends at byte 0");
  expect_error(parse("1234567"), "the file ends");
  std::string file = with_entry(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})", 1);
  for (uint64_t length : {uint64_t{1000}, uint64_t{100'000'001}, UINT64_MAX, UINT64_MAX - 7}) {
    std::memcpy(file.data(), &length, 8);
    expect_error(parse(file), "the header promises " + std::to_string(length));
  }
}

TEST(safetensors, headers_that_are_not_the_expected_json_are_refused) {
  expect_error(parse(safetensors_file("", "")), "header");
  expect_error(parse(safetensors_file("[]", "")), "expected an object");
  expect_error(parse(safetensors_file("{\"w\":", "")), "not valid JSON");
  expect_error(parse(safetensors_file(std::string(100, '['), "")), "nested deeper");
  expect_error(parse(with_entry("3", 0)), "tensor w: expected an object");
  expect_error(parse(with_entry(R"({"shape":[1],"data_offsets":[0,1]})", 1)),
               "expected dtype, shape");
  expect_error(parse(with_entry(R"({"dtype":"U8","shape":1,"data_offsets":[0,1]})", 1)),
               "tensor w");
  expect_error(parse(with_entry(R"({"dtype":"U8","shape":[1],"data_offsets":[0]})", 1)),
               "tensor w");
  expect_error(parse(with_entry(R"({"dtype":"U8","shape":[1],"data_offsets":[0,1.0]})", 1)),
               "tensor w: data_offsets: expected a number");
  expect_error(parse(with_entry(R"({"dtype":"U8","shape":[-1],"data_offsets":[0,1]})", 1)),
               "tensor w: shape: expected a number");
  expect_error(parse(with_entry(R"({"dtype":"Q\n9","shape":[1],"data_offsets":[0,1]})", 1)),
               "tensor w: dtype \"Q 9\" is not known");
}

TEST(safetensors, names_that_would_break_a_line_are_refused) {
  expect_error(
      parse(safetensors_file(R"({"a\nb":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", "x")),
      "the name \"a b\"");
  expect_error(parse(safetensors_file("{\"" + std::string(2000, 'n') +
                                          R"(":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                                      "x")),
               "up to 1024 bytes");
}

TEST(safetensors, a_name_that_occurs_twice_is_refused) {
  std::string entry = R"("w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  expect_error(parse(safetensors_file("{" + entry + "," + entry + "}", "x")), "occurs twice");
}

TEST(safetensors, sizes_must_agree_with_shape_and_type) {
  expect_error(parse(with_entry(R"({"dtype":"F32","shape":[2,3],"data_offsets":[0,20]})", 20)),
               "data_offsets 0 to 20, expected 24 bytes for F32 [2, 3]");
  expect_error(parse(with_entry(R"({"dtype":"U8","shape":[1],"data_offsets":[2,1]})", 2)),
               "tensor w");
  std::string huge = "1048576,1048576,1048576,1048576";
  expect_error(
      parse(with_entry("{\"dtype\":\"F32\",\"shape\":[" + huge + R"(],"data_offsets":[0,0]})", 0)),
      "tensor w: its size overflows");
  expect_error(parse(with_entry(
                   R"({"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,4]})", 4)),
               "overflows");
  expect_error(
      parse(with_entry(R"({"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]})", 1)),
      "found 9 dimensions");
}

TEST(safetensors, data_outside_the_file_is_refused) {
  expect_error(parse(with_entry(R"({"dtype":"U8","shape":[9],"data_offsets":[0,9]})", 8)),
               "tensor w: bytes 0 to 9 lie outside the data of 8 bytes");
  expect_error(
      parse(with_entry(
          R"({"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]})",
          8)),
      "outside the data");
}

TEST(safetensors, overlaps_gaps_and_leftovers_are_refused) {
  auto two = [](const char* second, size_t bytes) {
    return safetensors_file(
        std::string(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":)") + second + "}",
        std::string(bytes, 'x'));
  };
  expect_error(parse(two(R"({"dtype":"U8","shape":[4],"data_offsets":[3,7]})", 7)),
               "tensor b overlaps");
  expect_error(parse(two(R"({"dtype":"U8","shape":[4],"data_offsets":[0,4]})", 4)), "overlaps");
  expect_error(parse(two(R"({"dtype":"U8","shape":[4],"data_offsets":[6,10]})", 10)),
               "a gap of 2 bytes before tensor b");
  expect_error(parse(two(R"({"dtype":"U8","shape":[4],"data_offsets":[4,8]})", 9)),
               "1 bytes behind the last tensor");
}

TEST(safetensors, every_truncation_of_a_file_is_refused) {
  std::string file = test::SafetensorsBuilder().add("a", "F32", {2}, test::floats({1, 2})).file();
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_FALSE(parse(file.substr(0, size)).has_value()) << size;
  }
  EXPECT_TRUE(parse(file).has_value());
}

TEST(safetensors, changed_bytes_never_give_views_outside_the_file) {
  const std::string good = test::SafetensorsBuilder()
                               .add("a", "F32", {2, 3}, std::string(24, 'a'))
                               .add("b", "BF16", {4}, std::string(8, 'b'))
                               .file();
  std::mt19937 random(3);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string file = good;
    for (int i = 0, n = 1 + static_cast<int>(random() % 3); i < n; ++i) {
      file[random() % file.size()] = static_cast<char>("0123456789[]{},:\"Fx\n"[random() % 20]);
    }
    auto tensors = parse(file);
    if (!tensors) {
      EXPECT_EQ(tensors.error().message().find('\n'), std::string::npos);
      continue;
    }
    ++accepted;
    for (const TensorView& t : *tensors) {
      EXPECT_GE(t.bytes.data(), as_bytes(file).data());
      EXPECT_LE(t.bytes.data() + t.bytes.size(), as_bytes(file).data() + file.size());
      EXPECT_EQ(t.bytes.size(), static_cast<size_t>(t.num_elements()) * dtype_bytes(t.dtype));
    }
  }
  EXPECT_GT(accepted, 0);
  EXPECT_LT(accepted, 20000);
}

}  // namespace
}  // namespace bise
