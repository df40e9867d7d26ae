// Backend on a GPU. Activations are float32; products round their inputs to BF16 (with Precision::reference they take
// them whole, in three parts). Ops go into one stream; what they need of the host is copied when they are called.
#include "backend/cuda/cuda_backend.h"

#include <algorithm>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cpu_features.h"
#include "backend/cpu/cpu_kernels.h"
#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/gpu_attention.h"
#include "backend/cuda/gpu_probe.h"
#include "backend/cuda/gpu_weight.h"
#include "backend/cuda/linear_plan.h"
#include "backend/cuda/uploads.h"
#include "base/thread_pool.h"

namespace bise {
namespace {

using namespace gpu;

RowsAct rows_act(Activation act) {
  return act == Activation::silu ? RowsAct::silu : act == Activation::gelu_erf ? RowsAct::gelu_erf : RowsAct::gelu_tanh;
}

class CudaBackend : public Backend {
 public:
  CudaBackend(const BackendOptions& options, DeviceInfo info, Stream stream, std::unique_ptr<Backend> host)
      : options_(options),
        info_(std::move(info)),
        stream_(stream),
        uploads_(stream),
        queue_(stream),
        host_(std::move(host)),
        loader_(host_->host_threads(), stream) {}

  std::string description() const override { return "cuda " + info_.name + ", " + isa(); }
  int num_threads() const override { return host_->num_threads(); }
  ThreadPool& host_threads() override { return host_->host_threads(); }
  Backend* host() override { return host_.get(); }
  const LogitMath& logit_math() const override { return host_->logit_math(); }
  std::string isa() const override { return "sm_" + std::to_string(info_.major) + std::to_string(info_.minor); }
  Precision precision() const override { return options_.precision; }
  uint32_t activation_bytes() const override { return 4; }

  std::optional<DeviceMemory> device_memory() const override { return gpu::device_memory(); }
  WeightCost weight_cost(std::span<const WeightView> parts) const override {
    const std::vector<WeightSegment> segments = plan_gpu_segments(parts);
    WeightCost cost;
    cost.memory_bytes = gpu_weight_bytes(segments);
    cost.piece_bytes = WeightStream::smallest_piece(plan_segments(parts, true));
    for (const WeightSegment& s : segments) cost.memory_bytes += 2 * s.row_factors.size() * sizeof(float);
    for (const WeightView& part : parts) cost.stored_bytes += part.codes.size();
    return cost;
  }
  Result<void> plan_weights(WeightPlan plan) override { return loader_.plan(plan); }
  StreamStats stream_stats() const override { return host_->stream_stats(); }
  double measure_streamed_products(double seconds) override { return host_->measure_streamed_products(seconds); }
  Result<Weight> pack_weight(std::span<const WeightView> parts) override { return loader_.pack(parts); }

  Result<Buffer> allocate(uint64_t bytes, const char* what) override { return allocate_device(bytes, what); }
  Result<Buffer> upload(std::span<const float> values) override {
    Buffer buffer = TRY(allocate_device(values.size_bytes(), "a vector"));
    copy_to_device(stream_, buffer.data(), values.data(), values.size_bytes());
    TRY(synchronize());
    return buffer;
  }
  Result<std::span<float>> on_host(MatrixView x) override {
    const size_t count = static_cast<size_t>(x.rows * x.columns), bytes = count * sizeof(float);
    if (host_copy_.bytes() < bytes) host_copy_ = TRY(allocate_pinned(bytes, "a copy of numbers on the GPU"));
    TRY(queue_.flush());
    copy_to_host(stream_, host_copy_.data(), x.data, bytes);
    TRY(synchronize());
    return std::span(static_cast<float*>(host_copy_.data()), count);
  }
  Result<void> write(std::span<const float> from, MatrixView to) override {
    made_ = {};
    CHECK(static_cast<int64_t>(from.size()) == to.rows * to.columns);
    TRY(queue_.flush());
    copy_to_device(stream_, to.data, from.data(), from.size_bytes());
    return synchronize();
  }

  void embed(const Weight& table, std::span<const int32_t> ids, MatrixView out) override {
    run([&]() -> Result<void> {
      const auto& weight = static_cast<const GpuWeight&>(*table.storage);
      for (size_t i = 0; i < weight.segments.size(); ++i) {
        EmbedArgs a;
        a.w = weight.tiled_rows(i);
        a.first_row = weight.segments[i].first_row;
        a.ids = TRY(uploads_.put(ids));
        a.num_ids = static_cast<int64_t>(ids.size());
        a.out = out.f32();
        launch_embed(queue_, a);
      }
      return {};
    });
  }
  void rms_norm(MatrixView x, const Buffer& weight, float eps, MatrixView out) override {
    if (x.rows == 0) return;
    run([&]() -> Result<void> {
      launch_norm(queue_, {x.f32(), static_cast<const float*>(weight.data()), out.f32(), x.rows, x.columns, eps,
                           TRY(inputs_beside(out))});
      return {};
    });
  }
  void matmul(const Weight& weight, MatrixView x, MatrixView y, bool accumulate) override {
    CHECK(x.columns == weight.columns && y.columns == weight.rows && x.rows == y.rows);
    run([&] { return multiply(static_cast<const GpuWeight&>(*weight.storage), x, y, accumulate); });
  }
  void rope(const RopeArgs& r) override {
    run([&]() -> Result<void> {
      const size_t angles = static_cast<size_t>(r.x.rows * (r.head_dim / 2));
      RopeRowsArgs a{r.x.f32(),  r.x.rows, r.x.columns, r.first_head, r.num_heads,
                     r.head_dim, nullptr,  nullptr,     nullptr};
      a.cosine = TRY(uploads_.put(std::span(r.cosine, angles)));
      a.sine = TRY(uploads_.put(std::span(r.sine, angles)));
      if (r.row_scale != nullptr)
        a.row_scale = TRY(uploads_.put(std::span(r.row_scale, static_cast<size_t>(r.x.rows))));
      launch_rope(queue_, a);
      return {};
    });
  }
  void store_kv(MatrixView qkv, int32_t num_heads, std::span<const int32_t> slots, const KvLayerView& kv) override {
    CHECK(kv.block_size == kKvTokens);
    for (int32_t slot : slots) CHECK(slot >= 0 && slot < kv.num_blocks * kv.block_size);
    run([&] { return store(qkv, num_heads * kv.head_dim, slots, kv); });
  }
  void attention(const AttentionArgs& args) override {
    CHECK(args.kv.block_size == kKvTokens);
    run([&] { return attend(args); });
  }
  void attention_full(MatrixView qkv, int32_t num_heads, int32_t head_dim, float scale,
                      std::span<const int32_t> segments, MatrixView out) override {
    run([&] { return attend_full(qkv, num_heads, head_dim, scale, segments, out); });
  }
  void gated_activation(MatrixView x, Activation act, MatrixView out) override {
    if (out.rows == 0) return;
    run([&]() -> Result<void> {
      launch_activation(
          queue_, {x.f32(), out.f32(), out.rows, out.columns, x.columns, true, rows_act(act), TRY(inputs_beside(out))});
      return {};
    });
  }
  void activation(MatrixView x, Activation act) override {
    run([&]() -> Result<void> {
      if (x.rows > 0)
        launch_activation(queue_, {x.f32(), x.f32(), x.rows, x.columns, x.columns, false, rows_act(act), {}});
      return {};
    });
  }
  void add_bias(MatrixView x, const Buffer& bias) override {
    run([&]() -> Result<void> {
      if (x.rows > 0) launch_bias(queue_, {x.f32(), static_cast<const float*>(bias.data()), x.rows, x.columns});
      return {};
    });
  }
  void gather_rows(MatrixView x, std::span<const int32_t> rows, MatrixView out) override { move(x, rows, out, false); }
  void scatter_rows(MatrixView x, std::span<const int32_t> rows, MatrixView out) override { move(x, rows, out, true); }
  void unfold_patches(MatrixView x, int32_t, int32_t grid_columns, int32_t merge, MatrixView out) override {
    run([&]() -> Result<void> {
      launch_unfold(queue_, {x.f32(), out.f32(), out.rows, x.columns, grid_columns, merge});
      return {};
    });
  }
  Result<void> synchronize() override {
    Result<void> done = queue_.flush();
    Result<void> waited = gpu::synchronize(stream_);
    if (done) done = std::move(waited);
    uploads_.reset();
    made_ = {};
    if (failed_) return *std::exchange(failed_, std::nullopt);
    return done;
  }
  std::unique_ptr<ReadProbe> probe_reads(double) override {
    return probe_gpu_reads(stream_, info_.num_multiprocessors);
  }
  MatrixPeak measure_matrix_peak(double seconds) override {
    MatrixPeak peak;
    peak.bf16_tflops = measure_mma_peak(queue_, info_.num_multiprocessors, seconds);
    return peak;
  }
  Arithmetic product_arithmetic(const WeightView&, int64_t) const override { return Arithmetic::bf16; }

 private:
  // Runs the body of an op; what fails is reported by synchronize().
  template <class Body>
  void run(Body body) {
    ready_ = std::exchange(made_, {});
    if (failed_) return;  // what follows would be computed from nothing
    Result<void> done = body();
    if (!done) failed_ = std::move(done).error();
  }
  int32_t planes() const { return options_.precision == Precision::fast ? 1 : 3; }
  // More than asked: who comes for a little more, step by step, finds the same place.
  Result<void> grow(Buffer* buffer, uint64_t bytes, const char* what) {
    if (buffer->bytes() >= bytes) return {};
    if (buffer->data() != nullptr) {
      TRY(queue_.flush());
      TRY(gpu::synchronize(stream_));
      *buffer = Buffer();  // give the old one back first
      bytes += bytes / 2;
    }
    *buffer = TRY(allocate_device(bytes, what));
    return {};
  }
  void move(MatrixView x, std::span<const int32_t> rows, MatrixView out, bool scatter) {
    run([&]() -> Result<void> {
      const auto count = static_cast<int64_t>(rows.size());
      if (count > 0) launch_move_rows(queue_, {x.f32(), out.f32(), TRY(uploads_.put(rows)), count, x.columns, scatter});
      return {};
    });
  }

  // Room for the inputs that a product makes of x.
  Result<InputArgs> inputs_of(MatrixView x);
  // For an op that writes x: it makes inputs of it on the way, as most products follow at once.
  Result<InputArgs> inputs_beside(MatrixView x) {
    if (planes() != 1) return InputArgs{};
    made_ = x;
    return inputs_of(x);
  }
  Result<void> multiply(const GpuWeight& weight, MatrixView x, MatrixView y, bool accumulate);
  Result<void> store(MatrixView qkv, int32_t first_key, std::span<const int32_t> slots, const KvLayerView& kv);
  Result<void> attend(const AttentionArgs& args);
  Result<void> attend_full(MatrixView qkv, int32_t num_heads, int32_t head_dim, float scale,
                           std::span<const int32_t> segments, MatrixView out);
  // `args` has all but queries, items and partial results.
  Result<void> attend_sequences(AttendArgs args, MatrixView qkv, std::span<const AttentionSequence> sequences);

  BackendOptions options_;
  DeviceInfo info_;
  Stream stream_;
  Uploads uploads_;
  Queue queue_;
  std::unique_ptr<Backend> host_;
  GpuWeightLoader loader_;
  Buffer inputs_, input_sums_, product_parts_, product_arrivals_;  // of a product
  Buffer queries_, partials_;         // of attention
  Buffer image_keys_, image_values_;  // of attention_full
  Buffer host_copy_;
  // What the inputs of products were made of by the last op, and by the one before the one that runs.
  MatrixView made_, ready_;
  std::optional<Error> failed_;  // the first failure since synchronize()
};

Result<InputArgs> CudaBackend::inputs_of(MatrixView x) {
  InputArgs in;
  in.x = x.f32();
  in.rows = x.rows;
  in.columns = x.columns;
  in.planes = planes();
  in.padded = (x.columns + kBlock - 1) / kBlock * kBlock;
  TRY(grow(&inputs_, static_cast<uint64_t>(in.planes * in.rows * in.padded) * 2, "the inputs of a product"));
  TRY(grow(&input_sums_, static_cast<uint64_t>(in.planes * in.rows * in.padded / 16) * 4, "the inputs of a product"));
  in.out = static_cast<uint16_t*>(inputs_.data());
  in.sums = static_cast<float*>(input_sums_.data());
  return in;
}

Result<void> CudaBackend::multiply(const GpuWeight& weight, MatrixView x, MatrixView y, bool accumulate) {
  if (x.rows == 0) return {};
  InputArgs in = TRY(inputs_of(x));
  std::optional<float> made;  // the inputs that are there: with this scale
  if (ready_.data == x.data && ready_.rows == x.rows && ready_.columns == x.columns) made = 0.0f;
  for (size_t i = 0; i < weight.segments.size(); ++i) {
    const WeightSegment& s = weight.segments[i];
    in.e4m3_scale = options_.fp8_static_activations ? s.activation_scale : 0.0f;
    if (made != in.e4m3_scale) launch_input(queue_, in);
    made = in.e4m3_scale;
    LinearArgs a;
    a.w = weight.tiled_rows(i);
    a.input_scale = in.e4m3_scale > 0.0f ? in.e4m3_scale : 1.0f;
    a.tokens = x.rows;
    a.padded = in.padded;
    a.y = y.f32() + s.first_row;
    a.y_columns = y.columns;
    const LinearPlan plan = plan_linear(a.w.rows, a.tokens, info_.num_multiprocessors);
    TRY(grow(&product_parts_, plan.partial_bytes(), "the parts of a product"));
    TRY(grow(&product_arrivals_, plan.arrival_bytes(), "the parts of a product"));
    for (int32_t plane = 0; plane < in.planes; ++plane) {
      a.x = in.out + plane * in.rows * in.padded;
      a.x_sums = in.sums + plane * in.rows * (in.padded / 16);
      a.accumulate = accumulate || plane > 0;
      if (!launch_linear(queue_, a, plan, static_cast<float*>(product_parts_.data()),
                         static_cast<uint32_t*>(product_arrivals_.data()))) {
        launch_linear_decoded(queue_, a);
      }
    }
  }
  return {};
}

Result<void> CudaBackend::store(MatrixView qkv, int32_t first_key, std::span<const int32_t> slots,
                                const KvLayerView& kv) {
  if (slots.empty()) return {};
  StoreKvArgs a;
  a.qkv = qkv.f32();
  a.columns = qkv.columns;
  a.tokens = static_cast<int64_t>(slots.size());
  a.first_key = first_key;
  a.first_value = first_key + kv.num_kv_heads * kv.head_dim;
  a.slots = TRY(uploads_.put(slots));
  a.k = static_cast<uint8_t*>(kv.k);
  a.v = static_cast<uint8_t*>(kv.v);
  a.type = static_cast<KernelKv>(kv.dtype);
  a.num_blocks = kv.num_blocks;
  a.num_kv_heads = kv.num_kv_heads;
  a.head_dim = kv.head_dim;
  launch_store_kv(queue_, a);
  return {};
}

Result<void> CudaBackend::attend_sequences(AttendArgs a, MatrixView qkv, std::span<const AttentionSequence> sequences) {
  if (a.head_dim > kMostHeadDim) {
    return Error(ErrorCode::unsupported, "attention on a GPU: heads of " + std::to_string(a.head_dim) +
                                             " elements, at most " + std::to_string(kMostHeadDim) +
                                             " are there; --backend cpu takes them");
  }
  if (qkv.rows == 0) return {};
  const bool rotated = a.type == KernelKv::int4;
  const int32_t padded = kv_padded(a.head_dim);
  a.planes = planes();
  TRY(grow(&queries_, static_cast<uint64_t>(a.planes * qkv.rows * a.num_heads * padded) * 2,
           "the queries of attention"));
  a.q = static_cast<const uint16_t*>(queries_.data());
  a.q_rows = qkv.rows;
  launch_queries(queue_, {qkv.f32(), qkv.columns, qkv.rows, a.num_heads, a.head_dim, a.planes, rotated,
                          static_cast<uint16_t*>(queries_.data())});
  constexpr int64_t kWarpsPerMultiprocessor = 8;
  const AttentionPlan plan = plan_attention(sequences, a.num_kv_heads, a.num_heads / a.num_kv_heads, a.window, a.causal,
                                            kWarpsPerMultiprocessor * info_.num_multiprocessors);
  a.items = TRY(uploads_.put(std::span(plan.items)));
  a.num_items = static_cast<int32_t>(plan.items.size());
  a.joins = TRY(uploads_.put(std::span(plan.joins)));
  a.num_joins = static_cast<int32_t>(plan.joins.size());
  TRY(grow(&partials_, static_cast<uint64_t>(plan.num_partials * partial_floats(padded)) * 4,
           "partial results of attention"));
  a.partials = static_cast<float*>(partials_.data());
  launch_attention(queue_, a);
  if (rotated) launch_unrotate(queue_, a.out, qkv.rows, a.num_heads, a.head_dim);
  return {};
}

Result<void> CudaBackend::attend(const AttentionArgs& args) {
  std::vector<int32_t> tables;
  std::vector<AttentionSequence> sequences;
  for (const SequenceSpan& s : args.sequences) {
    sequences.push_back({s.first_row, s.num_rows, s.num_tokens, static_cast<int32_t>(tables.size())});
    tables.insert(tables.end(), s.block_table, s.block_table + (s.num_tokens + kKvTokens - 1) / kKvTokens);
  }
  AttendArgs a;
  a.num_heads = args.num_heads;
  a.num_kv_heads = args.kv.num_kv_heads;
  a.head_dim = args.kv.head_dim;
  a.scale = args.scale;
  a.window = args.sliding_window;
  a.type = static_cast<KernelKv>(args.kv.dtype);
  a.k = static_cast<const uint8_t*>(args.kv.k);
  a.v = static_cast<const uint8_t*>(args.kv.v);
  a.num_blocks = args.kv.num_blocks;
  a.block_tables = TRY(uploads_.put(std::span<const int32_t>(tables)));
  a.out = args.out.f32();
  return attend_sequences(a, args.qkv, sequences);
}

Result<void> CudaBackend::attend_full(MatrixView qkv, int32_t num_heads, int32_t head_dim, float scale,
                                      std::span<const int32_t> segments, MatrixView out) {
  // The keys and values of a picture go into a cache of its own, block by block.
  std::vector<int32_t> tables, slots;
  std::vector<AttentionSequence> sequences;
  int32_t row = 0;
  for (int32_t size : segments) {
    const auto first_block = static_cast<int32_t>(tables.size());
    sequences.push_back({row, size, size, first_block});
    for (int32_t i = 0; i < size; ++i) slots.push_back(first_block * kKvTokens + i);
    for (int32_t b = 0; b * kKvTokens < size; ++b) tables.push_back(first_block + b);
    row += size;
  }
  KvLayerView kv;
  kv.dtype = options_.precision == Precision::fast ? KvDType::bf16 : KvDType::f32;
  kv.num_blocks = static_cast<int32_t>(tables.size());
  kv.block_size = kKvTokens;
  kv.num_kv_heads = num_heads;
  kv.head_dim = head_dim;
  const uint64_t bytes = static_cast<uint64_t>(kv.num_blocks) * static_cast<uint64_t>(num_heads) *
                         static_cast<uint64_t>(kv_head_bytes(static_cast<KernelKv>(kv.dtype), head_dim));
  TRY(grow(&image_keys_, bytes, "the keys of a picture"));
  TRY(grow(&image_values_, bytes, "the values of a picture"));
  kv.k = image_keys_.data();
  kv.v = image_values_.data();
  TRY(store(qkv, num_heads * head_dim, slots, kv));
  AttendArgs a;
  a.num_heads = a.num_kv_heads = num_heads;
  a.head_dim = head_dim;
  a.scale = scale;
  a.causal = false;
  a.type = static_cast<KernelKv>(kv.dtype);
  a.k = static_cast<const uint8_t*>(kv.k);
  a.v = static_cast<const uint8_t*>(kv.v);
  a.num_blocks = kv.num_blocks;
  a.block_tables = TRY(uploads_.put(std::span<const int32_t>(tables)));
  a.out = out.f32();
  return attend_sequences(a, qkv, sequences);
}

}  // namespace

Result<std::unique_ptr<Backend>> make_cuda_backend(const BackendOptions& options) {
  DeviceInfo info = TRY(open_device());
  std::unique_ptr<Backend> host = TRY(create_cpu_backend(options));
  const Stream stream = TRY(create_stream());
  return std::unique_ptr<Backend>(std::make_unique<CudaBackend>(options, std::move(info), stream, std::move(host)));
}

}  // namespace bise
