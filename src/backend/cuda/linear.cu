// Inputs of products, the plain product, and rows of a table.
#include "backend/cpu/tile_decode.h"
#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/inputs.cuh"
#include "backend/cuda/launch.cuh"
#include "backend/cuda/linear_kernels.h"

namespace bise::gpu {
namespace {

constexpr int kThreads = 256, kColumnsOfBlock = 2 * kThreads;

// A thread has two columns.
template <int planes>
BISE_KERNEL(kThreads)
make_input(const InputArgs a) {
  begin_kernel();
  const int64_t row = block_x(), k = int64_t{block_y()} * kColumnsOfBlock + 2 * thread_index();
  float x[2];
  BISE_UNROLL
  for (int j = 0; j < 2; ++j) {
    x[j] = k + j < a.columns ? a.x[row * a.columns + k + j] : 0.0f;
    if (a.e4m3_scale > 0.0f) x[j] = e4m3_to_f32(f32_to_e4m3(x[j] / a.e4m3_scale));
  }
  put_inputs<planes>(a, row, k, x[0], x[1]);
}

BISE_KERNEL(kThreads) linear_decoded(const LinearArgs a) {
  begin_kernel();
  const int64_t row = block_x(), token = block_y();
  const uint8_t* tile = a.w.tiles + static_cast<uint64_t>(row / kTileRows) * a.w.tile_bytes;
  const int lane = static_cast<int>(row % kTileRows);
  const float times = a.w.times == nullptr ? 1.0f : a.w.times[row], over = a.w.times == nullptr ? 1.0f : a.w.over[row];
  float sum = 0.0f;
  for (int64_t k = thread_index(); k < a.w.columns; k += num_threads()) {
    const float w = a.w.is_integer
                        ? IntBlock(a.w.ints, tile, lane, k / kBlock, times, over).weight(static_cast<int>(k % kBlock))
                        : float_tile_weight(a.w.floats, tile, lane, k, times);
    sum += w * bits_to_float(uint32_t{a.x[token * a.padded + k]} << 16);
  }
  float* shared = reinterpret_cast<float*>(shared_bytes());
  shared[thread_index()] = sum;
  sync_block();
  if (thread_index() != 0) return;
  float all = 0.0f;
  for (int i = 0; i < num_threads(); ++i) all += shared[i];
  all *= a.input_scale;
  float* y = a.y + token * a.y_columns + row;
  *y = a.accumulate ? *y + all : all;
}

BISE_KERNEL(kThreads) embed_rows(const EmbedArgs a) {
  begin_kernel();
  const int64_t row = a.ids[block_x()] - a.first_row;
  if (row < 0 || row >= a.w.rows) return;
  const uint8_t* tile = a.w.tiles + static_cast<uint64_t>(row / kTileRows) * a.w.tile_bytes;
  const int lane = static_cast<int>(row % kTileRows);
  const float times = a.w.times == nullptr ? 1.0f : a.w.times[row], over = a.w.times == nullptr ? 1.0f : a.w.over[row];
  for (int64_t k = thread_index(); k < a.w.columns; k += num_threads()) {
    a.out[block_x() * a.w.columns + k] =
        a.w.is_integer ? IntBlock(a.w.ints, tile, lane, k / kBlock, times, over).weight(static_cast<int>(k % kBlock))
                       : float_tile_weight(a.w.floats, tile, lane, k, times);
  }
}

}  // namespace

void launch_input(Queue& queue, const InputArgs& args) {
  launch(args.planes == 1 ? make_input<1> : make_input<3>, args.rows,
         (args.padded + kColumnsOfBlock - 1) / kColumnsOfBlock, kThreads, 0, queue, args);
}
bool launch_linear(Queue& queue, const LinearArgs& args, const LinearPlan& plan, float* partials, uint32_t* arrivals) {
  LinearKernelArgs k;
  k.a = args;
  k.partials = partials;
  k.arrivals = arrivals;
  return args.w.is_integer ? launch_linear_int(queue, k, plan) : launch_linear_float(queue, k, plan);
}
void launch_linear_decoded(Queue& queue, const LinearArgs& args) {
  launch(linear_decoded, args.w.rows, args.tokens, kThreads, kThreads * static_cast<int>(sizeof(float)), queue, args);
}
void launch_embed(Queue& queue, const EmbedArgs& args) {
  launch(embed_rows, args.num_ids, 1, kThreads, 0, queue, args);
}

}  // namespace bise::gpu
