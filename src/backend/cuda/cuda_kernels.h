// What the CUDA backend launches. Pointers are the device's. A launch joins the queue. Weights lie in the tiles of the
// CPU (tile_layout.h): their order is that of the fragments of mma.m16n8k16, lane by lane. So does the KV cache
// (kv_layout.h).
#pragma once

#include <cstdint>

#include "backend/cpu/kv_layout.h"
#include "backend/cpu/tile_layout.h"
#include "backend/cuda/queue.h"

namespace bise::gpu {

// Rows of x as products want them: BF16 in planes (1: rounded; 3: their sum is x), rows padded with zeros.
struct InputArgs {
  const float* x = nullptr;  // [rows, columns]
  int64_t rows = 0, columns = 0;
  float e4m3_scale = 0.0f;  // > 0: x / scale rounded to the numbers of E4M3 (without the scale)
  int32_t planes = 1;
  int64_t padded = 0;       // columns of a row of a plane: a multiple of 32
  uint16_t* out = nullptr;  // [planes, rows, padded]
  float* sums = nullptr;    // [planes, rows, padded / 16]: of each plane
  bool operator==(const InputArgs&) const = default;
};

// The rows of one segment of a weight.
struct TiledRows {
  const uint8_t* tiles = nullptr;
  uint64_t tile_bytes = 0;
  bool is_integer = false;
  FloatTile floats;
  IntTile ints;
  int64_t rows = 0, columns = 0;
  const float* times = nullptr;  // [rows] factors of the sums; nullptr: none
  const float* over = nullptr;   // [rows] divisors
  bool operator==(const TiledRows&) const = default;
};
struct LinearArgs {
  TiledRows w;
  float input_scale = 1.0f;     // of all inputs
  const uint16_t* x = nullptr;  // a plane of InputArgs
  const float* x_sums = nullptr;
  int64_t tokens = 0, padded = 0;
  float* y = nullptr;  // [tokens, y_columns], the segment's first output
  int64_t y_columns = 0;
  bool accumulate = false;
  bool operator==(const LinearArgs&) const = default;
};

struct EmbedArgs {
  TiledRows w;
  int64_t first_row = 0;  // ids outside [first_row, first_row + rows) are other segments'
  const int32_t* ids = nullptr;
  int64_t num_ids = 0;
  float* out = nullptr;
  bool operator==(const EmbedArgs&) const = default;
};

struct NormArgs {
  const float* x = nullptr;
  const float* weight = nullptr;
  float* out = nullptr;
  int64_t rows = 0, columns = 0;
  float eps = 0.0f;
  InputArgs inputs;  // with `out` engaged: what is written is made an input, too; one plane
  bool operator==(const NormArgs&) const = default;
};
struct RopeRowsArgs {
  float* x = nullptr;
  int64_t rows = 0, columns = 0;
  int32_t first_head = 0, num_heads = 0, head_dim = 0;
  const float* cosine = nullptr;
  const float* sine = nullptr;
  const float* row_scale = nullptr;
  bool operator==(const RopeRowsArgs&) const = default;
};
enum class RowsAct : uint8_t { silu, gelu_erf, gelu_tanh };
struct ActivationArgs {
  const float* x = nullptr;
  float* out = nullptr;
  int64_t rows = 0, columns = 0;  // of out
  int64_t x_columns = 0;
  bool gated = false;  // times x[column + columns]
  RowsAct act = RowsAct::silu;
  InputArgs inputs;  // as in NormArgs
  bool operator==(const ActivationArgs&) const = default;
};
struct BiasArgs {
  float* x = nullptr;
  const float* bias = nullptr;
  int64_t rows = 0, columns = 0;
  bool operator==(const BiasArgs&) const = default;
};
struct MoveRowsArgs {
  const float* x = nullptr;
  float* out = nullptr;
  const int32_t* index = nullptr;
  int64_t rows = 0, columns = 0;  // rows: entries of `index`
  bool scatter = false;
  bool operator==(const MoveRowsArgs&) const = default;
};
struct UnfoldArgs {
  const float* x = nullptr;
  float* out = nullptr;
  int64_t rows = 0, channels = 0;  // rows of out
  int32_t grid_columns = 0, merge = 0;
  bool operator==(const UnfoldArgs&) const = default;
};

struct StoreKvArgs {
  const float* qkv = nullptr;  // [tokens, columns]
  int64_t columns = 0, tokens = 0;
  int32_t first_key = 0, first_value = 0;  // their columns
  const int32_t* slots = nullptr;
  uint8_t* k = nullptr;
  uint8_t* v = nullptr;
  KernelKv type = KernelKv::bf16;
  int32_t num_blocks = 0, num_kv_heads = 0, head_dim = 0;
  bool operator==(const StoreKvArgs&) const = default;
};

// Queries as attention reads them: BF16 planes [planes, rows, heads, padded head], rotated for INT4.
struct QueryArgs {
  const float* qkv = nullptr;
  int64_t columns = 0, rows = 0;
  int32_t num_heads = 0, head_dim = 0, planes = 1;
  bool rotate = false;
  uint16_t* out = nullptr;
  bool operator==(const QueryArgs&) const = default;
};

// Some of the queries of one sequence and KV head, which one warp takes: query i of a sequence and KV head is row i / group,
// head i % group of its own. They meet the segments [first_segment, end_segment) of kGpuSegment tokens.
struct AttentionItem {
  int32_t first_row = 0;  // of the sequence, in the step
  int32_t num_rows = 0;   // of the sequence
  int32_t num_tokens = 0;
  int32_t first_block = 0;  // of its block table, in the tables
  int32_t kv_head = 0, first_query = 0;
  int32_t first_segment = 0, end_segment = 0;
  int32_t partial = -1;  // where its result goes; -1: to `out`
};
// Joins partial results [first, first + count) of the same queries, in order.
struct JoinItem {
  int32_t first_row = 0, num_rows = 0, kv_head = 0, first_query = 0, first = 0, count = 0;
};
constexpr int32_t kGpuSegment = 256;  // tokens of a softmax of its own, from a multiple of it on
constexpr int32_t kItemQueries = 16;  // of a warp
// Floats of a partial result: sums of values [padded][queries], then largest scores and sums of weights.
constexpr int64_t partial_floats(int32_t padded) { return int64_t{kItemQueries} * (padded + 2); }

struct AttendArgs {
  const uint16_t* q = nullptr;  // of QueryArgs
  int64_t q_rows = 0;
  int32_t num_heads = 0, num_kv_heads = 0, head_dim = 0, planes = 1;
  float scale = 0.0f;
  int32_t window = 0;
  bool causal = true;
  KernelKv type = KernelKv::bf16;
  const uint8_t* k = nullptr;
  const uint8_t* v = nullptr;
  int32_t num_blocks = 0;
  const int32_t* block_tables = nullptr;
  const AttentionItem* items = nullptr;
  int32_t num_items = 0;
  const JoinItem* joins = nullptr;
  int32_t num_joins = 0;
  float* partials = nullptr;
  float* out = nullptr;  // [rows, num_heads * head_dim]
  bool operator==(const AttendArgs&) const = default;
};

constexpr int32_t kMostHeadDim = 128;  // of attention: its sums are registers

void launch_input(Queue& queue, const InputArgs& args);
// False: no kernel has this layout; launch_linear_decoded does.
struct LinearPlan;  // linear_plan.h
bool launch_linear(Queue& queue, const LinearArgs& args, const LinearPlan& plan, float* partials, uint32_t* arrivals);
// The slow twin: one weight at a time.
void launch_linear_decoded(Queue& queue, const LinearArgs& args);
void launch_embed(Queue& queue, const EmbedArgs& args);
void launch_norm(Queue& queue, const NormArgs& args);
void launch_rope(Queue& queue, const RopeRowsArgs& args);
void launch_activation(Queue& queue, const ActivationArgs& args);
void launch_bias(Queue& queue, const BiasArgs& args);
void launch_move_rows(Queue& queue, const MoveRowsArgs& args);
void launch_unfold(Queue& queue, const UnfoldArgs& args);
void launch_store_kv(Queue& queue, const StoreKvArgs& args);
void launch_queries(Queue& queue, const QueryArgs& args);
void launch_attention(Queue& queue, const AttendArgs& args);
// 10^12 operations a second of mma in registers, from about `seconds` of it.
double measure_mma_peak(Queue& queue, int32_t num_multiprocessors, double seconds);
// Reads all of `data` `passes` times.
void launch_read(Queue& queue, const void* data, uint64_t bytes, int32_t passes, int32_t num_multiprocessors,
                 uint32_t* sink);
// Rotates the heads of `out` back.
void launch_unrotate(Queue& queue, float* out, int64_t rows, int32_t num_heads, int32_t head_dim);

}  // namespace bise::gpu
