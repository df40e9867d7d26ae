// From float32 to the KV cache: the codes of one head of one token, and their places in its block.
#pragma once

#include <cstdint>
#include <span>

#include "backend/cpu/kv_layout.h"

namespace bise {

// Stores K (else V) of one token of a block, 0 <= token < 32; `head` is what kv_head_bytes counts. Two
// tokens of one block may share bytes: one thread stores them.
void store_kv_head(KernelKv type, bool is_key, std::span<const float> x, int32_t token, uint8_t* head);

// Rotates x by the orthogonal Hadamard matrix of the largest power of two that divides its size, block by
// block: it is its own inverse. int4 keeps K and V rotated, which spreads outliers over the head; queries
// are rotated too, which leaves q K as it is, and outputs are rotated back.
void rotate_head(std::span<float> x);

// The largest magnitude of a code as the kernels multiply it.
int32_t kv_largest_code(KernelKv type);

}  // namespace bise
