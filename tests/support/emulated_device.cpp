// cuda/device.h without a GPU. What a "device" holds can be read in kernels and copies alone, as on a real one: a
// host that reaches into it dies.
#include <sys/mman.h>

#include <cstring>
#include <iterator>
#include <map>
#include <string_view>
#include <vector>

#include "backend/cuda/device.h"
#include "support/device_failures.h"
#include "support/emulated_gpu.h"

namespace bise::gpu {
namespace {

constexpr size_t kPage = 4096;
constexpr uint64_t kTotal = uint64_t{1} << 30;

int failures_to_come = 0, allocations_to_failure = -1;

struct Mapping {
  size_t bytes;
  bool is_weight;
};
std::map<const void*, Mapping>& mappings() {
  static std::map<const void*, Mapping> all;
  return all;
}

auto mapping_of(const void* data) { return std::prev(mappings().upper_bound(data)); }

void release_device(void* data, size_t) {
  const auto at = mapping_of(data);
  munmap(const_cast<void*>(at->first), at->second.bytes);
  mappings().erase(at);
}
void protect(int rights) {
  for (auto [data, mapping] : mappings()) {
    CHECK(mprotect(const_cast<void*>(data), mapping.bytes - kPage, rights) == 0);
  }
}
void release_host(void* data, size_t) { ::operator delete (data, std::align_val_t{64}); }

}  // namespace

namespace emulated {

DeviceMemoryOpen::DeviceMemoryOpen() { protect(PROT_READ | PROT_WRITE); }
DeviceMemoryOpen::~DeviceMemoryOpen() { protect(PROT_NONE); }
bool is_weight(const void* data) { return mapping_of(data)->second.is_weight; }

}  // namespace emulated

Result<DeviceInfo> open_device() { return DeviceInfo{"emulated GPU", 8, 0, 4, kTotal}; }
DeviceMemory device_memory() { return {kTotal, kTotal}; }
Result<Stream> create_stream() { return Stream{}; }

// A page that nobody may touch follows.
Result<Buffer> allocate_device(uint64_t bytes, const char* what) {
  if (allocations_to_failure >= 0 && allocations_to_failure-- == 0) {
    return Error(ErrorCode::out_of_memory, std::string(what) + ": a test has it fail");
  }
  if (bytes > kTotal) return Error(ErrorCode::out_of_memory, std::string(what) + ": more than the emulated GPU has");
  const size_t used = (bytes + 63) / 64 * 64, pages = (used + kPage - 1) / kPage * kPage + kPage;
  void* data = mmap(nullptr, pages, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(data != MAP_FAILED);
  mappings()[data] = {pages, std::string_view(what).starts_with("the weight ")};
  return Buffer(static_cast<std::byte*>(data) + (pages - kPage - used), bytes, release_device);
}
Result<Buffer> allocate_pinned(uint64_t bytes, const char*) {
  return Buffer(::operator new (bytes, std::align_val_t{64}), bytes, release_host);
}
void copy_to_device(Stream, void* to, const void* from, size_t bytes) {
  const emulated::DeviceMemoryOpen open;
  std::memcpy(to, from, bytes);
}
void copy_to_host(Stream stream, void* to, const void* from, size_t bytes) { copy_to_device(stream, to, from, bytes); }
Result<Graph> record_graph(Stream, std::span<const Command> commands) {
  return Graph{new std::vector<Command>(commands.begin(), commands.end())};
}
void replay(Stream stream, Graph graph) {
  for (const Command& c : *static_cast<const std::vector<Command>*>(graph.handle)) c.start(c, stream);
}
void release_graph(Graph graph) { delete static_cast<const std::vector<Command>*>(graph.handle); }
Result<void> synchronize(Stream) {
  if (failures_to_come == 0) return {};
  if (failures_to_come > 0) --failures_to_come;
  return Error(ErrorCode::device, "the GPU failed: a test has it fail");
}

}  // namespace bise::gpu

namespace bise::test {

bool device_fails_on_demand() { return true; }
void fail_device(int count) { gpu::failures_to_come = count; }
void fail_device_allocation(int skip) { gpu::allocations_to_failure = skip; }

}  // namespace bise::test
