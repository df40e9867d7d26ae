#include "app/npy.h"

#include <gtest/gtest.h>

#include <cstring>

#include "support/temp_folder.h"

namespace bise {
namespace {

TEST(Npy, header_is_a_multiple_of_64_bytes_and_says_the_shape) {
  for (std::vector<int64_t> shape :
       {std::vector<int64_t>{}, {7}, {2, 3}, {3, 1540, 1540}, {1, 2, 3, 4}}) {
    std::string header = npy_header(shape);
    EXPECT_EQ(header.size() % 64, 0u);
    EXPECT_EQ(header.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
    auto length = load_le<uint16_t>(header.data() + 8);
    EXPECT_EQ(header.size(), 10u + length);
    EXPECT_EQ(header.back(), '\n');
  }
  EXPECT_NE(npy_header({7}).find("'shape': (7,), }"), std::string::npos);
  EXPECT_NE(npy_header({2, 3}).find("'shape': (2, 3), }"), std::string::npos);
  EXPECT_NE(npy_header({}).find("'shape': (), }"), std::string::npos);
}

TEST(Npy, values_follow_the_header_as_little_endian_floats) {
  TempFolder folder;
  std::string path = folder.at("values.npy");
  std::vector<float> values = {1.0f, -2.5f, 0.0f, 3.25f, 1e-20f, 7.0f};
  ASSERT_TRUE(write_npy(path, {2, 3}, values));
  std::string file = *read_file(path, 1 << 20);
  std::string header = npy_header({2, 3});
  ASSERT_EQ(file.size(), header.size() + values.size() * 4);
  EXPECT_EQ(file.substr(0, header.size()), header);
  EXPECT_EQ(std::memcmp(file.data() + header.size(), values.data(), values.size() * 4), 0);
}

TEST(Npy, a_file_with_too_few_values_does_not_appear) {
  TempFolder folder;
  std::string path = folder.at("short.npy");
  {
    auto writer = NpyWriter::create(path, {2, 2});
    ASSERT_TRUE(writer);
    ASSERT_TRUE(writer->write(std::vector<float>{1.0f, 2.0f, 3.0f}));
    EXPECT_FALSE(writer->close());
  }
  EXPECT_FALSE(file_exists(path));
}

TEST(Npy, shapes_that_overflow_are_refused) {
  TempFolder folder;
  EXPECT_FALSE(NpyWriter::create(folder.at("huge.npy"), {int64_t{1} << 40, int64_t{1} << 40}));
  EXPECT_FALSE(NpyWriter::create(folder.at("negative.npy"), {-1}));
}

}  // namespace
}  // namespace bise
