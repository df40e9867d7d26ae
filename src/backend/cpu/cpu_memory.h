// Zeroed host memory, aligned to 64 bytes; large blocks ask for huge pages, because a decode step
// walks through all of them.
#pragma once

#include "backend/buffer.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace bise {

Result<Buffer> allocate_host(uint64_t bytes, const char* what);

// Where the pool has several memory nodes, before the first touch: pages from all of them in turn; or for each part of a loop
// over `count` runs of `run_bytes` from the node whose threads begin with it. False: the system refuses.
bool place_in_turn(Buffer& buffer, const ThreadPool& pool);
bool place_by_parts(uint8_t* data, int64_t count, uint64_t run_bytes, const ThreadPool& pool);

}  // namespace bise
