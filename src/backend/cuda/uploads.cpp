#include "backend/cuda/uploads.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace bise::gpu {
namespace {

constexpr size_t kChunkBytes = 1 << 20;
constexpr size_t kAlignment = 256;  // an array that grows a little moves nothing behind it

}  // namespace

Result<const void*> Uploads::put_bytes(const void* from, size_t bytes) {
  if (bytes == 0) return nullptr;
  const size_t hash = std::hash<std::string_view>()({static_cast<const char*>(from), bytes});
  for (auto [at, end] = copies_.equal_range(hash); at != end; ++at) {
    const Copy& copy = at->second;
    if (copy.bytes == bytes && std::memcmp(copy.host, from, bytes) == 0) return copy.device;
  }
  Chunk* chunk = nullptr;
  for (Chunk& c : chunks_) {
    if (chunk == nullptr && c.host.bytes() - c.used >= bytes) chunk = &c;
  }
  if (chunk == nullptr) {
    const size_t size = std::max(kChunkBytes, (bytes + kAlignment - 1) / kAlignment * kAlignment);
    Buffer host = TRY(allocate_pinned(size, "a step's tables")), device = TRY(allocate_device(size, "a step's tables"));
    chunk = &chunks_.emplace_back(Chunk{std::move(host), std::move(device), 0});
  }
  auto* host = static_cast<std::byte*>(chunk->host.data()) + chunk->used;
  auto* device = static_cast<std::byte*>(chunk->device.data()) + chunk->used;
  chunk->used = std::min((chunk->used + bytes + kAlignment - 1) / kAlignment * kAlignment, chunk->host.bytes());
  std::memcpy(host, from, bytes);
  copy_to_device(stream_, device, host, bytes);
  copies_.emplace(hash, Copy{host, bytes, device});
  return device;
}

void Uploads::reset() {
  for (Chunk& chunk : chunks_) chunk.used = 0;
  copies_.clear();
}

}  // namespace bise::gpu
