// Backend: the memory of one device and about 15 ops on it. An op knows matrices and block tables,
// not layers. Ops are asynchronous in meaning: arguments must stay alive until synchronize(), which
// reports the first failure. One thread calls a backend.
//
// Contract of every op: row i of the result depends on row i of the inputs only (and, in attention,
// on its own sequence), with a summation order that does not depend on the number of rows, of
// threads or of sequences. So prefill in chunks of any size, and any company in a batch, give the
// same bits. One exception: on a processor with a matrix unit (AMX) a product of 8 or 16 rows and more
// (float formats, integer formats) runs there, in BF16, and a row has other bits in it than in a smaller
// product. BackendOptions::row_invariant keeps to the contract.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "backend/buffer.h"
#include "backend/kv_type.h"
#include "backend/logit_math.h"
#include "backend/weight.h"
#include "backend/weight_plan.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory_nodes.h"

namespace bise {

class ThreadPool;

enum class Precision {
  fast,       // int8 activations for integer formats; float sums
  reference,  // float32 activations, decoded weights and at least float32 sums; KV in float32
};
enum class Activation : uint8_t { silu, gelu_erf, gelu_tanh };

struct BackendOptions {
  int num_threads = 0;       // 0: all usable cores
  std::string isa = "auto";  // auto | scalar | avx2 | avx512 | avx512_bf16 | amx; a level the CPU lacks is an Error
  Precision precision = Precision::fast;
  // Quantise the inputs of FP8 linears by the checkpoint's static activation scales, as the GPU path
  // of the reference does. Off: FP8 is weight-only.
  bool fp8_static_activations = false;
  // No matrix unit: a row has the same bits in a product of any number of rows. Prefill takes longer on
  // processors that have one; elsewhere, and with Precision::reference, nothing changes.
  bool row_invariant = false;
  // Several: threads are bound to them, and each node keeps the part of the weights that its threads read.
  std::vector<MemoryNode> nodes = {};
};

// K and V of one layer in blocks. A slot is block * block_size + offset in block. K and V of a block have
// kv_token_bytes() for each of its tokens and KV heads; their order is the backend's own.
struct KvLayerView {
  void* k = nullptr;
  void* v = nullptr;
  KvDType dtype = KvDType::bf16;
  int32_t num_blocks = 0;
  int32_t block_size = 0;
  int32_t num_kv_heads = 0;
  int32_t head_dim = 0;
};

// The rows of one sequence in a step.
struct SequenceSpan {
  int32_t first_row = 0;       // in the step's matrices
  int32_t num_rows = 0;        // tokens of this step
  int32_t num_tokens = 0;      // tokens in the cache once this step's are stored
  const int32_t* block_table = nullptr;  // ceil(num_tokens / block_size) block numbers
};

struct RopeArgs {
  MatrixView x;             // [tokens, …]: rotated in place, heads [first_head, first_head + num_heads)
  int32_t first_head = 0;
  int32_t num_heads = 0;
  int32_t head_dim = 0;
  // [tokens, head_dim / 2] each, float32, on the host; the attention factor is inside. Pairs are
  // (i, i + head_dim / 2).
  const float* cosine = nullptr;
  const float* sine = nullptr;
  const float* row_scale = nullptr;  // [tokens] factor after the rotation (query scaling), or nullptr
};

struct AttentionArgs {
  MatrixView qkv;           // [tokens, (num_heads + 2 * num_kv_heads) * head_dim]; q is read here
  int32_t num_heads = 0;
  float scale = 0.0f;       // of the scores
  int32_t sliding_window = 0;  // 0: none; else a query sees itself and window - 1 tokens before it
  KvLayerView kv;
  std::span<const SequenceSpan> sequences;
  MatrixView out;           // [tokens, num_heads * head_dim]
};

// 10^12 operations per second; a product and its addition are two.
struct MatrixPeak {
  double float_tflops = 0.0;
  double int8_tops = 0.0;
  // Of a matrix unit; 0 where there is none, or where row_invariant leaves it alone.
  double bf16_tflops = 0.0;
  double matrix_int8_tops = 0.0;  // no product uses it: groups' scales would interrupt the sums
};
// What a product multiplies: the peak that it is held to.
enum class Arithmetic : uint8_t { float32, int8, bf16 };
constexpr const char* arithmetic_name(Arithmetic arithmetic) {
  return arithmetic == Arithmetic::bf16 ? "bf16" : arithmetic == Arithmetic::int8 ? "int8" : "float";
}
constexpr double peak_of(const MatrixPeak& peak, Arithmetic arithmetic) {
  return arithmetic == Arithmetic::bf16 ? peak.bf16_tflops : arithmetic == Arithmetic::int8 ? peak.int8_tops : peak.float_tflops;
}

// The read bandwidth of the memory that weights live in. Virtual processors that move between the parts of a chip change it by half from
// second to second, so a rate is held to readings just before and after it.
class ReadProbe {
 public:
  virtual ~ReadProbe() = default;
  // Once through a buffer: GB/s (10^9). 0 if there was no memory for it.
  virtual double read() = 0;
  virtual double best() const = 0;     // of all readings so far
  virtual uint64_t bytes() const = 0;  // of the buffer: what the caches cannot keep
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string description() const = 0;  // "cpu avx2, 2 threads"
  virtual int num_threads() const = 0;
  // The host's threads that ops run on, for work of the caller's between two ops: a second pool would
  // stand in their way.
  virtual ThreadPool& host_threads() = 0;
  // Where this backend's memory is a device's: one on the host's memory and the same threads, for what does not
  // fit the device. Both have activations of the same type.
  virtual Backend* host() { return nullptr; }
  virtual const LogitMath& logit_math() const = 0;
  virtual std::string isa() const = 0;
  virtual Precision precision() const = 0;
  virtual uint32_t activation_bytes() const = 0;  // per element of a MatrixView

  // Where weights, the KV cache and activations live, when that is not the host's memory.
  virtual std::optional<DeviceMemory> device_memory() const { return std::nullopt; }
  // What pack_weight() of these parts would take.
  virtual WeightCost weight_cost(std::span<const WeightView> parts) const = 0;
  // Says which weights pack_weight() will be asked for, in which order, and where they are to live.
  // Without a plan every weight lives in memory and comes from its views. Error: a file that cannot be
  // opened, a ring too small for a piece of a weight.
  virtual Result<void> plan_weights(WeightPlan plan) = 0;
  virtual StreamStats stream_stats() const { return {}; }
  // Bytes per second of streamed weights that products with one row take while they need not wait for the
  // disk, from about `seconds` of the real thing. 0: nothing streams, or the disk fails.
  virtual double measure_streamed_products(double seconds) {
    (void)seconds;
    return 0.0;
  }

  // Zeroed memory, aligned to 64 bytes.
  virtual Result<Buffer> allocate(uint64_t bytes, const char* what) = 0;
  // Brings the rows of all parts, stacked, into kernel layout. A row order other than half-split is
  // undone here. Parts must agree in columns; their formats may differ (GGUF files mix them within one
  // product): each part keeps its own.
  virtual Result<Weight> pack_weight(std::span<const WeightView> parts) = 0;
  virtual Result<Buffer> upload(std::span<const float> values) = 0;  // float32 vector
  // The numbers of x where the host may read them, and change them for itself, until an op writes x;
  // synchronize() comes first inside. On the CPU that is x itself; elsewhere a copy, until the next one.
  virtual Result<std::span<float>> on_host(MatrixView x) = 0;
  virtual Result<void> write(std::span<const float> from, MatrixView to) = 0;

  // out[i] = row ids[i] of `table`.
  virtual void embed(const Weight& table, std::span<const int32_t> ids, MatrixView out) = 0;
  // out = x * rsqrt(mean(x^2) + eps) * weight. out may be x.
  virtual void rms_norm(MatrixView x, const Buffer& weight, float eps, MatrixView out) = 0;
  // y = x W^T, or y += x W^T. x [tokens, columns], y [tokens, rows].
  virtual void matmul(const Weight& weight, MatrixView x, MatrixView y, bool accumulate = false) = 0;
  virtual void rope(const RopeArgs& args) = 0;
  // Stores the K and V parts of qkv [tokens, (num_heads + 2 kv_heads) * head_dim] at slots[i], in the
  // cache's type.
  virtual void store_kv(MatrixView qkv, int32_t num_heads, std::span<const int32_t> slots,
                        const KvLayerView& kv) = 0;
  // Causal attention over the block tables.
  virtual void attention(const AttentionArgs& args) = 0;
  // Bidirectional attention within each run of rows: segments[i] rows belong together. qkv
  // [tokens, 3 * num_heads * head_dim].
  virtual void attention_full(MatrixView qkv, int32_t num_heads, int32_t head_dim, float scale,
                              std::span<const int32_t> segments, MatrixView out) = 0;
  // out[i] = act(x[i]) * x[i + out.columns]; x [tokens, 2 * columns].
  virtual void gated_activation(MatrixView x, Activation act, MatrixView out) = 0;
  virtual void activation(MatrixView x, Activation act) = 0;  // in place
  virtual void add_bias(MatrixView x, const Buffer& bias) = 0;
  // out[i] = x[rows[i]].
  virtual void gather_rows(MatrixView x, std::span<const int32_t> rows, MatrixView out) = 0;
  // out[rows[i]] = x[i].
  virtual void scatter_rows(MatrixView x, std::span<const int32_t> rows, MatrixView out) = 0;
  // Patch merger's unfold: x [h * w, channels] to [h/2 * w/2 …]: merge x merge neighbours become one
  // row, feature index channel * merge^2 + di * merge + dj.
  virtual void unfold_patches(MatrixView x, int32_t grid_rows, int32_t grid_columns, int32_t merge,
                              MatrixView out) = 0;

  virtual Result<void> synchronize() = 0;

  // Takes its buffer, and about `seconds` to find out how to read it best.
  virtual std::unique_ptr<ReadProbe> probe_reads(double seconds) = 0;
  // The peak of this device's arithmetic as its kernels could use it, all threads, from about
  // `seconds` of multiplying in registers.
  virtual MatrixPeak measure_matrix_peak(double seconds) = 0;
  // What a product of so many rows with such a weight multiplies.
  virtual Arithmetic product_arithmetic(const WeightView& weight, int64_t rows) const = 0;
};

// The read bandwidth of the host's memory (cpu/cpu_peak): all threads read a buffer larger than their caches. In about `seconds` it
// finds how far ahead memory is best asked for.
std::unique_ptr<ReadProbe> probe_host_reads(int num_threads, double seconds);

// The best of the readings of `seconds`.
double measure_read_bandwidth(int num_threads, double seconds);

// name: auto (a GPU where the program is built for one and there is one; `log` says why not) | cpu | cuda. Error for one
// that was not built, with how to build it.
Result<std::unique_ptr<Backend>> create_backend(const std::string& name, const BackendOptions& options,
                                                const Log& log = Log());

}  // namespace bise
