// The tables with panels (panel_kernels.h) over emulated instructions: that of emulated AVX-512 with those of AVX512-BF16 and AMX.
// The emulation ends the program where the processor would: tiles used outside a configuration, or with
// shapes that do not fit.
#pragma once

#include "backend/cpu/cpu_kernels.h"

namespace bise {

extern const CpuKernels kEmulatedBf16Kernels, kEmulatedAmxKernels;

// Whether this thread has tiles configured: not outside of a product.
bool emulated_tiles_are_configured();

}  // namespace bise
