// Weights that no training made: random codes with scales that give values of mean 0 and a chosen
// deviation, for measuring speed (zeros are faster than numbers on some machines) and for tests.
#pragma once

#include <cstdint>
#include <span>

#include "base/bytes.h"
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

}  // namespace bise
