// Packing with AVX2 and BMI2 (pack_kernels.h): the same code, whose words of 32 bytes become vectors, and whose
// codes of odd widths are spread by one instruction.
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "backend/cpu/pack_kernels.h"

namespace bise {
namespace {

#define BISE_PACK_BMI2 1
#include "backend/cpu/pack.inl"

}  // namespace

void pack_rows_avx2(const PackJob& job, const PackRow* rows, int lane, int count) { pack(job, rows, lane, count); }

}  // namespace bise
