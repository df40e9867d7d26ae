// Weights that no training made: random codes with scales that give values of mean 0 and a chosen
// deviation, for measuring speed (zeros are faster than numbers on some machines) and for tests.
#pragma once

#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "tensor/dtype.h"
#include "tensor/weight_format.h"

namespace bise {

// The FP8 scale (one per tensor) that goes with fill_random_weight.
float random_fp8_scale(double deviation);

// Whether fill_random_weight knows the format: a new one needs its row there first.
bool has_random_weight(FormatId format);

// Writes blocks [first_block, …) of the endless matrix number `stream` of `seed`: as many as fill `out`,
// which is a whole number of blocks. What a block holds depends on (seed, stream, its number) alone,
// so any cut into calls and threads gives the same bytes. The values have mean 0 and standard deviation
// `deviation` within a few per cent; plain formats are normally distributed.
void fill_random_weight(FormatId format, double deviation, uint64_t seed, uint64_t stream,
                        uint64_t first_block, std::span<std::byte> out);

// The parts of formats that keep their codes and scales apart, cut and drawn in the same way.
// Codes: bytes of any value, from byte `first_byte` on, which is a multiple of 8.
void fill_random_codes(uint64_t seed, uint64_t stream, uint64_t first_byte, std::span<std::byte> out);
// Scales with the root mean square `size`, from element `first` on: 0.75 to 1.25 of it, and either sign
// in the float types; in E8M0 (f8_e8m0, u8) the two powers of two around it. `factor` multiplies
// every one of them, so that a second tensor can follow the first: same stream, another factor.
void fill_random_scales(DType type, double size, double factor, uint64_t seed, uint64_t stream,
                        uint64_t first, std::span<std::byte> out);

}  // namespace bise
