// One NVIDIA GPU as the backend needs it: memory, copies, a stream. device_cuda.cu speaks to the driver;
// tests/support/emulated_device.cpp is a processor that stands in for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "backend/buffer.h"
#include "base/error.h"

namespace bise::gpu {

struct Stream {
  void* handle = nullptr;
  bool starts_early = false;  // a kernel may begin before the one before it ends (gpu.cuh)
};

struct Graph {
  void* handle = nullptr;
};
struct Command;  // queue.h

struct DeviceInfo {
  std::string name;              // "NVIDIA H200"
  int32_t major = 0, minor = 0;  // compute capability
  int32_t num_multiprocessors = 0;
  uint64_t total_bytes = 0;
};

// Takes device 0. Error (unsupported): no driver, no device, a driver or a device that is too old.
Result<DeviceInfo> open_device();
Result<Stream> create_stream();
DeviceMemory device_memory();
// Device memory, zeroed. Error (out_of_memory): with what is free.
Result<Buffer> allocate_device(uint64_t bytes, const char* what);
// Host memory that copies go through at full rate.
Result<Buffer> allocate_pinned(uint64_t bytes, const char* what);
// In the stream's order; `from` must stay as it is until synchronize().
void copy_to_device(Stream stream, void* to, const void* from, size_t bytes);
void copy_to_host(Stream stream, void* to, const void* from, size_t bytes);
// What the commands would start, in their order, as one.
Result<Graph> record_graph(Stream stream, std::span<const Command> commands);
void replay(Stream stream, Graph graph);
void release_graph(Graph graph);
// Waits. Error (device): the first failure since the last call.
Result<void> synchronize(Stream stream);

}  // namespace bise::gpu
