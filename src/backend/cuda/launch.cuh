// How a kernel gets into a queue. A kernel takes one struct, by value.
#pragma once

#include <cstring>
#include <type_traits>

#include "backend/cuda/gpu.cuh"
#include "backend/cuda/queue.h"

namespace bise::gpu {

#ifdef __CUDACC__
template <class Args>
void start_kernel(void (*kernel)(Args), const Command& c, Stream stream, const Args& args) {
  constexpr int kSharedWithoutAsking = 48 << 10;
  if (c.shared_bytes > kSharedWithoutAsking) {
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, c.shared_bytes);
  }
  const dim3 grid(static_cast<unsigned>(c.blocks_x), static_cast<unsigned>(c.blocks_y));
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(c.threads));
  config.dynamicSmemBytes = static_cast<size_t>(c.shared_bytes);
  config.stream = static_cast<cudaStream_t>(stream.handle);
  config.attrs = &early;
  config.numAttrs = stream.starts_early ? 1 : 0;
  cudaLaunchKernelEx(&config, kernel, args);
}
#endif

template <class Args>
void launch(void (*kernel)(Args), int64_t blocks_x, int64_t blocks_y, int threads, int shared_bytes, Queue& queue,
            const Args& args) {
  static_assert(std::is_trivially_copyable_v<Args> && sizeof(Args) <= Command::kMostArgs);
  Command command;
  command.start = [](const Command& c, Stream stream) {
    start_kernel(reinterpret_cast<void (*)(Args)>(c.kernel), c, stream, *reinterpret_cast<const Args*>(c.args));
  };
  command.has_same_args = [](const Command& a, const Command& b) {
    return *reinterpret_cast<const Args*>(a.args) == *reinterpret_cast<const Args*>(b.args);
  };
  command.kernel = reinterpret_cast<void (*)()>(kernel);
  command.blocks_x = blocks_x;
  command.blocks_y = blocks_y;
  command.threads = threads;
  command.shared_bytes = shared_bytes;
  std::memcpy(command.args, &args, sizeof(Args));
  queue.add(command);
}

}  // namespace bise::gpu
