#include "tensor/dtype.h"

#include <gtest/gtest.h>

#include "tensor/tensor_view.h"

namespace bise {
namespace {

TEST(dtype, every_type_is_found_by_its_own_name) {
  for (int i = 0; i < static_cast<int>(DType::block); ++i) {
    DType type = static_cast<DType>(i);
    auto found = dtype_from_safetensors(dtype_name(type));
    ASSERT_TRUE(found.has_value()) << dtype_name(type);
    EXPECT_EQ(*found, type);
    EXPECT_GT(dtype_bytes(type), 0u);
  }
}

TEST(dtype, blocks_have_no_element_size_and_no_name_in_files) {
  EXPECT_EQ(dtype_bytes(DType::block), 0u);
  EXPECT_FALSE(dtype_from_safetensors("block").has_value());
  EXPECT_FALSE(dtype_from_safetensors("F4").has_value());
  EXPECT_FALSE(dtype_from_safetensors("").has_value());
}

TEST(dtype, sizes_are_those_of_the_format) {
  EXPECT_EQ(dtype_bytes(DType::f8_e4m3), 1u);
  EXPECT_EQ(dtype_bytes(DType::bf16), 2u);
  EXPECT_EQ(dtype_bytes(DType::f32), 4u);
  EXPECT_EQ(dtype_bytes(DType::i64), 8u);
}

TEST(tensor_view, shapes_are_shown_as_lists) {
  EXPECT_EQ(shape_text({576, 49152}), "[576, 49152]");
  EXPECT_EQ(shape_text({}), "[]");
}

}  // namespace
}  // namespace bise
