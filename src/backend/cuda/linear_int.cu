#include "backend/cuda/linear.cuh"
#include "backend/cuda/linear_kernels.h"

namespace bise::gpu {

bool launch_linear_int(Queue& queue, const LinearArgs& a) {
  bool found = false;
  auto take = [&](auto codes, auto scales) {
    if (found || a.ints.codes != codes() || a.ints.block_scales != scales()) return;
    found = true;
    with_tokens(a.tokens, [&](auto n) { launch_tiles(linear_int<codes(), scales(), n()>, n(), queue, a); });
  };
  using enum IntCodes;
  auto codes = [&]<IntCodes c, BlockScales s>() {
    take(std::integral_constant<IntCodes, c>(), std::integral_constant<BlockScales, s>());
  };
  codes.template operator()<u2, BlockScales::none>();
  codes.template operator()<u3, BlockScales::none>();
  codes.template operator()<u4, BlockScales::none>();
  codes.template operator()<u5, BlockScales::none>();
  codes.template operator()<u6, BlockScales::none>();
  codes.template operator()<s8, BlockScales::none>();
  codes.template operator()<iq4, BlockScales::none>();
  codes.template operator()<e2m1, BlockScales::none>();
  codes.template operator()<e2m1, BlockScales::e4m3_halves>();
  codes.template operator()<u2, BlockScales::u4_halves>();
  codes.template operator()<u3, BlockScales::i8_halves>();
  codes.template operator()<u6, BlockScales::i8_halves>();
  codes.template operator()<u4, BlockScales::u8_min>();
  codes.template operator()<u5, BlockScales::u8_min>();
  codes.template operator()<iq4, BlockScales::i8>();
  return found;
}

}  // namespace bise::gpu
