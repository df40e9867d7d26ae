// The instructions that kernels use, each behind one name: the machine's own where nvcc compiles, and those of
// tests/support/emulated_gpu.h where kernels run on a processor to be tested (it is included first then).
// A kernel takes one struct, begins with begin_kernel() or what that does, and finds its threads' shared memory with shared_bytes().
#pragma once

#include <cstdint>

#ifdef __CUDACC__

#define BISE_DEVICE __device__ __forceinline__
#define BISE_KERNEL(threads) __global__ void __launch_bounds__(threads)
// With registers for so many blocks at once on a multiprocessor.
#define BISE_KERNEL_OF(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#define BISE_UNROLL _Pragma("unroll")
#define BISE_UNROLL_BY_8 _Pragma("unroll 8")

namespace bise::gpu {

BISE_DEVICE int thread_index() { return static_cast<int>(threadIdx.x); }
BISE_DEVICE int num_threads() { return static_cast<int>(blockDim.x); }
BISE_DEVICE int num_blocks_x() { return static_cast<int>(gridDim.x); }
BISE_DEVICE int block_x() { return static_cast<int>(blockIdx.x); }
BISE_DEVICE int block_y() { return static_cast<int>(blockIdx.y); }
BISE_DEVICE uint8_t* shared_bytes() {
  extern __shared__ __align__(16) uint8_t bytes[];
  return bytes;
}
BISE_DEVICE void sync_block() { __syncthreads(); }
BISE_DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xFFFFFFFFu, value, mask); }
// Copies of 16 or 8 bytes to shared memory that go on by themselves; zeros where nothing is there. Those since the
// last commit_copies() are one group; wait_for_copies(n): all but the last n groups (0 to 2) are done.
BISE_DEVICE void copy_async_16(uint8_t* to, const void* from, bool is_there) {
  asm volatile(
      "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
      "l"(from), "r"(is_there ? 16 : 0));
}
BISE_DEVICE void copy_async_8(uint8_t* to, const void* from, bool is_there) {
  asm volatile(
      "cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
      "l"(from), "r"(is_there ? 8 : 0));
}
BISE_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;"); }
BISE_DEVICE void wait_for_copies(int n) {
  if (n == 0) asm volatile("cp.async.wait_group 0;" ::: "memory");
  else if (n == 1) asm volatile("cp.async.wait_group 1;" ::: "memory");
  else asm volatile("cp.async.wait_group 2;" ::: "memory");
}
// On GPUs since 9.0 a kernel may begin while the one before it still runs. let_next_start(): the next one may, once all
// blocks here have said so or ended. wait_for_previous(): all kernels before this one are done; until then nothing may
// be read but weights.
BISE_DEVICE void let_next_start() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}
BISE_DEVICE void wait_for_previous() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// What this thread wrote before is seen by others before what it writes next.
BISE_DEVICE void memory_fence() { __threadfence(); }
BISE_DEVICE uint32_t atomic_add(uint32_t* p, uint32_t value) { return atomicAdd(p, value); }
// What another block wrote.
BISE_DEVICE float load_fresh(const float* p) { return __ldcg(p); }
BISE_DEVICE void atomic_and(uint32_t* p, uint32_t bits) { atomicAnd(p, bits); }
BISE_DEVICE void atomic_or(uint32_t* p, uint32_t bits) { atomicOr(p, bits); }

// Bytes of a (0 to 3) and b (4 to 7), chosen by the nibbles of `selector`.
BISE_DEVICE uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) { return __byte_perm(a, b, selector); }
// Pairs of BF16: a b + c, rounded once.
BISE_DEVICE uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}
BISE_DEVICE uint32_t to_bf16x2(float low, float high) {
  uint32_t d;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(high), "f"(low));
  return d;
}
// c += a b: a 16 x 16 (rows by lane / 4), b 16 x 8, c 16 x 8, as PTX draws mma.m16n8k16.
BISE_DEVICE void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
// c = a b
BISE_DEVICE void mma_bf16_from_zero(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=f"(c[0]), "=f"(c[1]), "=f"(c[2]), "=f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}
// The transpose of the 8 x 8 matrix of 16-bit elements whose row lane / 4 has elements 2 (lane % 4) and the next here.
BISE_DEVICE uint32_t transpose_8x8(uint32_t pair) {
  uint32_t d;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(d) : "r"(pair));
  return d;
}
BISE_DEVICE float f16_bits_to_float(uint16_t bits) {
  float d;
  asm("cvt.f32.f16 %0, %1;" : "=f"(d) : "h"(bits));
  return d;
}
BISE_DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
BISE_DEVICE uint32_t float_to_bits(float value) { return __float_as_uint(value); }

}  // namespace bise::gpu

#endif

namespace bise::gpu {

constexpr int kWarp = 32;

// What kernels that read no weights begin with.
BISE_DEVICE void begin_kernel() {
  let_next_start();
  wait_for_previous();
}

BISE_DEVICE float bf16_low(uint32_t pair) { return bits_to_float(pair << 16); }
BISE_DEVICE float bf16_high(uint32_t pair) { return bits_to_float(pair & 0xFFFF0000u); }
BISE_DEVICE uint16_t load_half(const void* p) { return *static_cast<const uint16_t*>(p); }
BISE_DEVICE uint32_t load_word(const void* p) { return *static_cast<const uint32_t*>(p); }
BISE_DEVICE void load_words(const void* p, uint32_t& first, uint32_t& second) {
  struct alignas(8) Words {
    uint32_t first, second;
  };
  const Words words = *static_cast<const Words*>(p);
  first = words.first;
  second = words.second;
}

// x in `planes` numbers of BF16 whose sum it is: three hold any float32, one is x rounded.
template <int planes>
BISE_DEVICE void split_pair(float low, float high, uint32_t (&out)[planes]) {
  if constexpr (planes == 1) {
    out[0] = to_bf16x2(low, high);
  } else {
    BISE_UNROLL
    for (int p = 0; p < planes; ++p) {
      // Cut off, not rounded: no plane is larger than the number.
      const uint32_t l = float_to_bits(low) & 0xFFFF0000u, h = float_to_bits(high) & 0xFFFF0000u;
      out[p] = l >> 16 | h;
      low -= bits_to_float(l);
      high -= bits_to_float(h);
    }
  }
}

// The codes of E4M3 in the two 16-bit halves of `pair` as BF16; the largest code is no number and must not come.
BISE_DEVICE uint32_t e4m3_to_bf16x2(uint32_t pair) {
  const uint32_t moved = (pair & 0x007F007Fu) << 4 | (pair & 0x00800080u) << 8;
  return fma_bf16x2(moved, 0x7B807B80u, 0x80008000u);  // times 2^120
}

}  // namespace bise::gpu
