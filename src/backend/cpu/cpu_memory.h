// Zeroed host memory, aligned to 64 bytes; large blocks ask for huge pages, because a decode step
// walks through all of them.
#pragma once

#include "backend/buffer.h"
#include "base/error.h"

namespace bise {

Result<Buffer> allocate_host(uint64_t bytes, const char* what);

}  // namespace bise
