// The KV cache of docs/FORMATS.md by plain loops: what the backends' bytes and attention are compared with.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "backend/kv_type.h"

namespace bise::test {

// Stores K (else V) of one token of a block of 32 in the bytes of its head.
void reference_store_kv(KvDType type, bool is_key, std::span<const float> x, int32_t token, uint8_t* head);
// The values that these bytes stand for.
std::vector<double> reference_load_kv(KvDType type, bool is_key, int32_t head_dim, int32_t token, const uint8_t* head);

}  // namespace bise::test
