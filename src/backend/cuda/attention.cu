#include "backend/cuda/attention.cuh"
#include "backend/cuda/attention_kernels.h"

namespace bise::gpu {
namespace {

// A block of a thread for each element of the head takes one item.
BISE_KERNEL(kMostHeadDim) join_partials(const AttendArgs a) {
  begin_kernel();
  const JoinItem item = a.joins[block_x()];
  const int padded = kv_padded(a.head_dim), group = a.num_heads / a.num_kv_heads, element = thread_index();
  if (element >= a.head_dim) return;
  for (int q = 0; q < kItemQueries; ++q) {
    const int query = item.first_query + q;
    if (query >= item.num_rows * group) return;
    float top = kNoScore, sum = 0.0f, total = 0.0f;
    for (int p = item.first; p < item.first + item.count; ++p) {
      const float* part = a.partials + p * partial_floats(padded);
      const float* of_query = part + padded * kItemQueries + q;
      const Joint joint = join(top, sum, of_query[0], of_query[kItemQueries]);
      total = joint(total, part[element * kItemQueries + q]);
    }
    const int64_t row = item.first_row + query / group, head = int64_t{item.kv_head} * group + query % group;
    a.out[(row * a.num_heads + head) * a.head_dim + element] = total / sum;
  }
}

}  // namespace

void launch_attention(Queue& queue, const AttendArgs& a) {
  switch (a.type) {
    case KernelKv::bf16: launch_attend_bf16(queue, a); break;
    case KernelKv::f16: launch_attend_f16(queue, a); break;
    case KernelKv::f32: launch_attend_f32(queue, a); break;
    case KernelKv::fp8: launch_attend_fp8(queue, a); break;
    case KernelKv::int8: launch_attend_int8(queue, a); break;
    case KernelKv::int4: launch_attend_int4(queue, a); break;
  }
  if (a.num_joins > 0) launch(join_partials, a.num_joins, 1, kMostHeadDim, 0, queue, a);
}

}  // namespace bise::gpu
