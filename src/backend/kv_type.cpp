#include "backend/kv_type.h"

#include "backend/cpu/kv_layout.h"

namespace bise {
namespace {

struct Row {
  KvDType type;
  const char* name;
};
constexpr Row kTypes[] = {{KvDType::bf16, "bf16"}, {KvDType::f16, "f16"},   {KvDType::f32, "f32"},
                          {KvDType::fp8, "fp8"},   {KvDType::int8, "int8"}, {KvDType::int4, "int4"}};

}  // namespace

const char* kv_type_name(KvDType type) { return kTypes[static_cast<size_t>(type)].name; }

std::optional<KvDType> kv_type_of(std::string_view name) {
  for (const Row& row : kTypes) {
    if (name == row.name) return row.type;
  }
  return std::nullopt;
}

std::vector<std::string> kv_type_names() {
  std::vector<std::string> names;
  for (const Row& row : kTypes) names.emplace_back(row.name);
  return names;
}

uint64_t kv_token_bytes(KvDType type, int32_t head_dim) {
  // The kernels' enumeration has the same order.
  static_assert(static_cast<int>(KvDType::int4) == static_cast<int>(KernelKv::int4));
  return static_cast<uint64_t>(kv_head_bytes(static_cast<KernelKv>(type), head_dim)) / kKvTokens;
}

}  // namespace bise
