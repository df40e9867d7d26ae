// The types of the KV cache. docs/FORMATS.md defines the values of each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

enum class KvDType : uint8_t { bf16, f16, f32, fp8, int8, int4 };

// "bf16", as in --kv-cache-dtype.
const char* kv_type_name(KvDType type);
std::optional<KvDType> kv_type_of(std::string_view name);
std::vector<std::string> kv_type_names();

// Bytes of K, or of V, of one token and KV head, scales included. The memory of a block of 32 tokens is 32
// times that; how it is laid out is the backend's own.
uint64_t kv_token_bytes(KvDType type, int32_t head_dim);

}  // namespace bise
