#include "backend/cuda/gpu_attention.h"

#include <algorithm>

namespace bise::gpu {

AttentionPlan plan_attention(std::span<const AttentionSequence> sequences, int32_t num_kv_heads, int32_t group,
                             int32_t window, bool causal, int64_t least_items) {
  int64_t whole = 0;
  for (const AttentionSequence& s : sequences)
    whole += (int64_t{s.num_rows} * group + kItemQueries - 1) / kItemQueries * num_kv_heads;
  const bool split = whole < least_items;
  AttentionPlan plan;
  for (const AttentionSequence& s : sequences) {
    // Neighbours in a block of the GPU read the same keys and values: those of one head.
    for (int32_t h = 0; h < num_kv_heads; ++h) {
      for (int32_t query = 0; query < s.num_rows * group; query += kItemQueries) {
        const int32_t last = std::min(query + kItemQueries, s.num_rows * group) - 1;
        auto end_of = [&](int32_t row) { return causal ? s.num_tokens - s.num_rows + row + 1 : s.num_tokens; };
        const int32_t begin = window > 0 ? std::max(0, end_of(query / group) - window) : 0;
        const int32_t first_segment = begin / kGpuSegment, end_segment = (end_of(last / group) - 1) / kGpuSegment + 1;
        AttentionItem item{s.first_row, s.num_rows, s.num_tokens, s.first_block, h, query, first_segment,
                           end_segment, -1};
        if (!split || end_segment - first_segment == 1) {
          plan.items.push_back(item);
          continue;
        }
        plan.joins.push_back({s.first_row, s.num_rows, h, query, plan.num_partials, end_segment - first_segment});
        for (int32_t segment = first_segment; segment < end_segment; ++segment) {
          item.first_segment = segment;
          item.end_segment = segment + 1;
          item.partial = plan.num_partials++;
          plan.items.push_back(item);
        }
      }
    }
  }
  return plan;
}

}  // namespace bise::gpu
