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

bool place_in_turn(Buffer& buffer, const ThreadPool& pool) {
  if (pool.groups().size() < 2 || buffer.bytes() < kMapFrom) return true;
  std::vector<MemoryNode> nodes;
  for (const ThreadPool::Group& group : pool.groups()) nodes.push_back(group.node);
  return place_in_turn(buffer.data(), buffer.bytes(), nodes);
}

bool place_by_parts(uint8_t* data, int64_t count, uint64_t run_bytes, const ThreadPool& pool) {
  if (pool.groups().size() < 2 || static_cast<uint64_t>(count) * run_bytes < kMapFrom) return true;
  int64_t begin = 0;
  bool done = true;
  for (size_t g = 0; g < pool.groups().size(); ++g) {
    const int64_t end = pool.part_end(g, count);
    done = place_on_node(data + static_cast<uint64_t>(begin) * run_bytes, static_cast<uint64_t>(end - begin) * run_bytes,
                         pool.groups()[g].node.id) && done;
    begin = end;
  }
  return done;
}

}  // namespace bise
