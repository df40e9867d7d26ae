#include "backend/cuda/linear.cuh"
#include "backend/cuda/linear_kernels.h"

namespace bise::gpu {

bool launch_linear_float(Queue& queue, const LinearArgs& a) {
  if (a.floats.group_columns % 16 != 0) return false;
  const bool has_groups = a.floats.group_columns != 0;
  CHECK(!has_groups || a.floats.codes == FloatCodes::e4m3);
  auto take = [&]<FloatCodes codes, bool groups>() {
    with_tokens(a.tokens, [&](auto n) { launch_tiles(linear_float<codes, groups, n()>, n(), queue, a); });
  };
  switch (a.floats.codes) {
    case FloatCodes::f32: take.template operator()<FloatCodes::f32, false>(); break;
    case FloatCodes::f16: take.template operator()<FloatCodes::f16, false>(); break;
    case FloatCodes::bf16: take.template operator()<FloatCodes::bf16, false>(); break;
    case FloatCodes::e4m3:
      if (has_groups) take.template operator()<FloatCodes::e4m3, true>();
      else take.template operator()<FloatCodes::e4m3, false>();
      break;
  }
  return true;
}

}  // namespace bise::gpu
