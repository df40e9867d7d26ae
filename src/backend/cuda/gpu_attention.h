// The work of one attention op, cut into items for the warps of a GPU.
#pragma once

#include <span>
#include <vector>

#include "backend/cuda/cuda_kernels.h"

namespace bise::gpu {

struct AttentionPlan {
  std::vector<AttentionItem> items;
  std::vector<JoinItem> joins;
  int32_t num_partials = 0;
};

// One sequence of a step: its rows are [first_row, first_row + num_rows), its blocks begin at `first_block` of the tables.
struct AttentionSequence {
  int32_t first_row = 0, num_rows = 0, num_tokens = 0, first_block = 0;
};

// `group`: query heads that share a KV head. `window`: 0 for none; only with `causal`. Segments go to warps of their own
// where there would be fewer than `least_items` otherwise.
AttentionPlan plan_attention(std::span<const AttentionSequence> sequences, int32_t num_kv_heads, int32_t group,
                             int32_t window, bool causal, int64_t least_items);

}  // namespace bise::gpu
