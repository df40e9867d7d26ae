// Small arrays of the host that kernels read in one step: indices, tables, angles.
#pragma once

#include <span>
#include <unordered_map>
#include <vector>

#include "backend/cuda/device.h"

namespace bise::gpu {

class Uploads {
 public:
  explicit Uploads(Stream stream) : stream_(stream) {}

  // Where the device has a copy of `values` until reset(). Error: out of memory.
  template <class T>
  Result<const T*> put(std::span<const T> values) {
    return static_cast<const T*>(TRY(put_bytes(values.data(), values.size_bytes())));
  }
  // The device has done what it was asked: the copies are not needed any more.
  void reset();

 private:
  // Memory on both sides; what a step has put stands there in order.
  struct Chunk {
    Buffer host, device;
    size_t used = 0;
  };
  struct Copy {
    const std::byte* host;
    size_t bytes;
    const void* device;
  };
  Result<const void*> put_bytes(const void* from, size_t bytes);

  Stream stream_;
  std::vector<Chunk> chunks_;
  // Every layer of a step reads the same arrays: they are copied once. Where a copy stands depends on what was put
  // before it alone, so that the next step finds the same places and can be replayed (queue.h).
  std::unordered_multimap<size_t, Copy> copies_;  // by the hash of the bytes
};

}  // namespace bise::gpu
