// Packing for every processor (pack_kernels.h).
#include <stdint.h>
#include <string.h>

#include "backend/cpu/pack_kernels.h"

namespace bise {
namespace {

#include "backend/cpu/pack.inl"

}  // namespace

void pack_rows_scalar(const PackJob& job, const PackRow* rows, int lane, int count) { pack(job, rows, lane, count); }

}  // namespace bise
