// Element types of stored tensors, their sizes and their names in the safetensors dialect.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace bise {

// `block` is a tensor whose bytes only mean something in the blocks of a GGUF type.
enum class DType : uint8_t {
  f32,
  f16,
  bf16,
  f64,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  i8,
  u8,
  i16,
  u16,
  i32,
  u32,
  i64,
  u64,
  boolean,
  block
};

// Bytes per element; 0 for `block`.
uint32_t dtype_bytes(DType type);
// "BF16", "F8_E4M3", … as safetensors writes them.
std::string_view dtype_name(DType type);
std::optional<DType> dtype_from_safetensors(std::string_view name);

}  // namespace bise
