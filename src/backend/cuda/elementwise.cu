// The ops between products.
#include <cmath>

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/inputs.cuh"
#include "backend/cuda/launch.cuh"

namespace bise::gpu {
namespace {

constexpr int kThreads = 256, kNormThreads = 1024;
constexpr int kColumnsOfBlock = 2 * kThreads;

// A block has a row.
BISE_KERNEL(kNormThreads) norm_rows(const NormArgs a) {
  begin_kernel();
  const float* x = a.x + block_x() * a.columns;
  float* out = a.out + block_x() * a.columns;
  float* shared = reinterpret_cast<float*>(shared_bytes());
  float sum = 0.0f;
  for (int64_t k = thread_index(); k < a.columns; k += num_threads()) sum += x[k] * x[k];
  for (int mask = kWarp / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
  if (thread_index() % kWarp == 0) shared[thread_index() / kWarp] = sum;
  sync_block();
  sum = 0.0f;
  for (int w = 0; w < num_threads() / kWarp; ++w) sum += shared[w];
  const float factor = 1.0f / sqrtf(sum / static_cast<float>(a.columns) + a.eps);
  const bool makes_inputs = a.inputs.out != nullptr;
  const int64_t end = makes_inputs ? a.inputs.padded : a.columns;
  for (int64_t first = 2 * (thread_index() / kWarp * kWarp); first < end; first += 2 * num_threads()) {  // of the warp
    const int64_t k = first + 2 * (thread_index() % kWarp);
    float value[2] = {};
    BISE_UNROLL
    for (int j = 0; j < 2; ++j) {
      if (k + j >= a.columns) continue;
      value[j] = x[k + j] * factor * a.weight[k + j];
      out[k + j] = value[j];
    }
    if (makes_inputs) put_inputs<1>(a.inputs, block_x(), k, value[0], value[1]);
  }
}

BISE_KERNEL(kThreads) rope_rows(const RopeRowsArgs a) {
  begin_kernel();
  const int64_t row = block_x();
  const int half = a.head_dim / 2;
  const float factor = a.row_scale == nullptr ? 1.0f : a.row_scale[row];
  const int at = block_y() * kThreads + thread_index(), i = at % half;
  if (at >= a.num_heads * half) return;
  float* x = a.x + row * a.columns + int64_t{a.first_head + at / half} * a.head_dim + i;
  const float c = a.cosine[row * half + i], s = a.sine[row * half + i], u = x[0], v = x[half];
  x[0] = (u * c - v * s) * factor;
  x[half] = (v * c + u * s) * factor;
}

BISE_DEVICE float activate(float x, RowsAct act) {
  switch (act) {
    case RowsAct::silu: return x / (1.0f + expf(-x));
    case RowsAct::gelu_erf: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case RowsAct::gelu_tanh: break;
  }
  // 0.5 (1 + tanh z) is 1 / (1 + exp(-2 z)).
  return x / (1.0f + expf(-1.5957691216f * (x + 0.044715f * x * x * x)));
}

BISE_KERNEL(kThreads) activate_rows(const ActivationArgs a) {
  begin_kernel();
  const int64_t k = int64_t{block_y()} * kColumnsOfBlock + 2 * thread_index();
  float value[2] = {};
  BISE_UNROLL
  for (int j = 0; j < 2; ++j) {
    if (k + j >= a.columns) continue;
    const float* x = a.x + block_x() * a.x_columns + k + j;
    value[j] = activate(x[0], a.act);
    if (a.gated) value[j] *= x[a.columns];
    a.out[block_x() * a.columns + k + j] = value[j];
  }
  if (a.inputs.out != nullptr) put_inputs<1>(a.inputs, block_x(), k, value[0], value[1]);
}

BISE_KERNEL(kThreads) add_bias_rows(const BiasArgs a) {
  begin_kernel();
  for (int64_t k = thread_index(); k < a.columns; k += num_threads()) a.x[block_x() * a.columns + k] += a.bias[k];
}

BISE_KERNEL(kThreads) move_rows(const MoveRowsArgs a) {
  begin_kernel();
  const int64_t here = block_x(), there = a.index[here];
  const float* x = a.x + (a.scatter ? here : there) * a.columns;
  float* out = a.out + (a.scatter ? there : here) * a.columns;
  for (int64_t k = thread_index(); k < a.columns; k += num_threads()) out[k] = x[k];
}

BISE_KERNEL(kThreads) unfold_rows(const UnfoldArgs a) {
  begin_kernel();
  const int64_t out_columns = a.grid_columns / a.merge;
  const int64_t row = block_x() / out_columns * a.merge, column = block_x() % out_columns * a.merge;
  const int32_t of_channel = a.merge * a.merge;
  for (int64_t k = thread_index(); k < a.channels * of_channel; k += num_threads()) {
    const int64_t channel = k / of_channel, di = k % of_channel / a.merge, dj = k % a.merge;
    a.out[block_x() * a.channels * of_channel + k] =
        a.x[((row + di) * a.grid_columns + column + dj) * a.channels + channel];
  }
}

}  // namespace

void launch_norm(Queue& queue, const NormArgs& args) {
  launch(norm_rows, args.rows, 1, kNormThreads, kNormThreads / kWarp * static_cast<int>(sizeof(float)), queue, args);
}
void launch_rope(Queue& queue, const RopeRowsArgs& args) {
  const int pairs = args.num_heads * (args.head_dim / 2);
  launch(rope_rows, args.rows, (pairs + kThreads - 1) / kThreads, kThreads, 0, queue, args);
}
void launch_activation(Queue& queue, const ActivationArgs& args) {
  const int64_t columns = args.inputs.out != nullptr ? args.inputs.padded : args.columns;
  launch(activate_rows, args.rows, (columns + kColumnsOfBlock - 1) / kColumnsOfBlock, kThreads, 0, queue, args);
}
void launch_bias(Queue& queue, const BiasArgs& args) { launch(add_bias_rows, args.rows, 1, kThreads, 0, queue, args); }
void launch_move_rows(Queue& queue, const MoveRowsArgs& args) {
  launch(move_rows, args.rows, 1, kThreads, 0, queue, args);
}
void launch_unfold(Queue& queue, const UnfoldArgs& args) {
  launch(unfold_rows, args.rows, 1, kThreads, 0, queue, args);
}

}  // namespace bise::gpu
