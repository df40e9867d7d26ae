// A GPU's instructions on a processor, so that the CUDA backend's kernels, as they are, run in tests: every thread
// of a block is a fiber, and a warp's instructions wait for all of its lanes. Blocks run one after the other. What
// this cannot show: races that the fibers' order hides (it changes from launch to launch), and any speed.
//
// Included before the kernels (src/backend/cuda/gpu.cuh says which names it gives).
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <utility>

#include "backend/cuda/queue.h"

#define BISE_DEVICE inline
#define BISE_KERNEL(threads) void
#define BISE_KERNEL_OF(threads, blocks) void
#define BISE_UNROLL
#define BISE_UNROLL_BY_8

namespace bise::gpu {
namespace emulated {

struct Place {
  int thread = 0, threads = 0, blocks_x = 0, block_x = 0, block_y = 0;
};
const Place& place();
// The memory of the emulated device may be touched while this lives (emulated_device.cpp).
struct DeviceMemoryOpen {
  DeviceMemoryOpen();
  ~DeviceMemoryOpen();
};
bool is_weight(const void* data);
// One instruction of a whole warp: each lane has words of input and of output.
struct LaneWords {
  uint32_t in[10], out[4];
};
using WarpInstruction = void (*)(LaneWords (&lanes)[32]);
void run_in_warp(WarpInstruction instruction, LaneWords& words);
void run_blocks(int64_t blocks_x, int64_t blocks_y, int threads, int shared_bytes, const std::function<void()>& kernel);

}  // namespace emulated

inline int thread_index() { return emulated::place().thread; }
inline int num_threads() { return emulated::place().threads; }
inline int num_blocks_x() { return emulated::place().blocks_x; }
inline int block_x() { return emulated::place().block_x; }
inline int block_y() { return emulated::place().block_y; }
uint8_t* shared_bytes();
void sync_block();
float shuffle_xor(float value, int mask);
void copy_async(uint8_t* to, const void* from, int bytes, bool is_there);
inline void copy_async_16(uint8_t* to, const void* from, bool is_there) { copy_async(to, from, 16, is_there); }
inline void copy_async_8(uint8_t* to, const void* from, bool is_there) { copy_async(to, from, 8, is_there); }
void commit_copies();
void wait_for_copies(int n);
inline void let_next_start() {}
void wait_for_previous();
inline void memory_fence() {}
inline uint32_t atomic_add(uint32_t* p, uint32_t value) { return std::exchange(*p, *p + value); }
inline float load_fresh(const float* p) { return *p; }
inline void atomic_and(uint32_t* p, uint32_t bits) { *p &= bits; }
inline void atomic_or(uint32_t* p, uint32_t bits) { *p |= bits; }
uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector);
uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c);
uint32_t to_bf16x2(float low, float high);
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
inline void mma_bf16_from_zero(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  c[0] = c[1] = c[2] = c[3] = 0.0f;
  mma_bf16(c, a, b0, b1);
}
uint32_t transpose_8x8(uint32_t pair);
float f16_bits_to_float(uint16_t bits);
float bits_to_float(uint32_t bits);
uint32_t float_to_bits(float value);

template <class Args>
void start_kernel(void (*kernel)(Args), const Command& c, Stream, const Args& args) {
  emulated::run_blocks(c.blocks_x, c.blocks_y, c.threads, c.shared_bytes, [&] { kernel(args); });
}

}  // namespace bise::gpu
