#include "backend/cpu/cpu_memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "base/bytes.h"

namespace bise {
namespace {

constexpr uint64_t kMapFrom = uint64_t{1} << 20;  // smaller blocks come from the heap
// Below it a huge page would make memory resident that may never be used: the KV cache of a layer is
// reserved for the whole context and touched token by token.
constexpr uint64_t kHugeFrom = uint64_t{16} << 20;

Error no_memory(uint64_t bytes, const char* what) {
  return Error(ErrorCode::out_of_memory, "no memory for " + std::string(what) + ": " +
                                             std::to_string(bytes >> 20) +
                                             " MiB could not be had; a smaller --context or a smaller "
                                             "format needs less");
}

}  // namespace

Result<Buffer> allocate_host(uint64_t bytes, const char* what) {
  if (bytes > uint64_t{1} << 46) return no_memory(bytes, what);
  if (bytes < kMapFrom) {
    const uint64_t rounded = round_up(bytes == 0 ? 1 : bytes, 64);
    void* data = std::aligned_alloc(64, rounded);
    if (data == nullptr) return no_memory(bytes, what);
    std::memset(data, 0, rounded);
    return Buffer(data, bytes, [](void* p, size_t) { std::free(p); });
  }
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) return no_memory(bytes, what);
  if (bytes >= kHugeFrom) ::madvise(data, bytes, MADV_HUGEPAGE);  // refused where there are none: no harm
  return Buffer(data, bytes, [](void* p, size_t size) { ::munmap(p, size); });
}

}  // namespace bise
