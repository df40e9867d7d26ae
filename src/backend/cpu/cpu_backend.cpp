#include "backend/cpu/cpu_backend.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_attention.h"
#include "backend/cpu/cpu_features.h"
#include "backend/cpu/cpu_inputs.h"
#include "backend/cpu/cpu_memory.h"
#include "backend/cpu/cpu_panels.h"
#include "backend/cpu/cpu_peak.h"
#include "backend/cpu/packed_weight.h"
#include "backend/cpu/weight_loader.h"
#include "base/float_types.h"
#include "base/thread_pool.h"
#include "tensor/weight_format.h"

namespace bise {
namespace {

constexpr int64_t kSerialBytes = 32 << 10;  // products that read less run on the caller alone

// The table for these options: --deterministic and reference precision take the bits that all tables have in common.
const CpuKernels& table_for(const CpuKernels& kernels, const BackendOptions& options) {
  const bool common = options.row_invariant || options.precision == Precision::reference;
  return common && kernels.common != nullptr ? *kernels.common : kernels;
}

KernelActivation kernel_activation(Activation act) {
  switch (act) {
    case Activation::silu: return KernelActivation::silu;
    case Activation::gelu_erf: return KernelActivation::gelu_erf;
    case Activation::gelu_tanh: break;
  }
  return KernelActivation::gelu_tanh;
}

class CpuBackend : public Backend {
 public:
  CpuBackend(const CpuKernels& kernels, const BackendOptions& options)
      : kernels_(table_for(kernels, options)),
        options_(options),
        pool_(options.num_threads > 0 ? options.num_threads : usable_cores(), options.nodes),
        loader_(pool_, options.precision == Precision::fast),
        panels_(kernels_.panels, pool_),
        inputs_(kernels_, pool_),
        scratch_(static_cast<size_t>(pool_.num_threads())),
        tiles_(static_cast<size_t>(pool_.num_threads())) {}

  std::string description() const override {
    return std::string("cpu ") + kernels_.name + ", " + std::to_string(num_threads()) +
           (num_threads() == 1 ? " thread" : " threads") +
           (pool_.groups().size() > 1 ? " on " + std::to_string(pool_.groups().size()) + " memory nodes" : "");
  }
  int num_threads() const override { return pool_.num_threads(); }
  ThreadPool& host_threads() override { return pool_; }
  const LogitMath& logit_math() const override { return kernels_.logits; }
  std::string isa() const override { return kernels_.name; }
  Precision precision() const override { return options_.precision; }
  uint32_t activation_bytes() const override { return 4; }

  Result<Buffer> allocate(uint64_t bytes, const char* what) override {
    Buffer buffer = TRY(allocate_host(bytes, what));
    place_in_turn(buffer, pool_);  // any thread reads any of it
    return buffer;
  }
  Result<Buffer> upload(std::span<const float> values) override {
    Buffer buffer = TRY(allocate_host(values.size_bytes(), "a vector"));
    std::memcpy(buffer.data(), values.data(), values.size_bytes());
    return buffer;
  }
  Result<std::span<float>> on_host(MatrixView x) override {
    TRY(synchronize());
    return std::span(x.row_f32(0), static_cast<size_t>(x.rows * x.columns));
  }
  Result<void> write(std::span<const float> from, MatrixView to) override {
    CHECK(static_cast<int64_t>(from.size()) == to.rows * to.columns);
    std::memcpy(to.data, from.data(), from.size_bytes());
    return {};
  }

  WeightCost weight_cost(std::span<const WeightView> parts) const override { return loader_.cost(parts); }
  Result<void> plan_weights(WeightPlan plan) override { return loader_.plan(std::move(plan)); }
  StreamStats stream_stats() const override { return loader_.stats(); }
  double measure_streamed_products(double seconds) override;
  Result<Weight> pack_weight(std::span<const WeightView> parts) override { return loader_.pack(parts); }
  void matmul(const Weight& weight, MatrixView x, MatrixView y, bool accumulate) override;

  void embed(const Weight& table, std::span<const int32_t> ids, MatrixView out) override {
    std::vector<std::optional<Error>> failed(ids.size());
    each_row(static_cast<int64_t>(ids.size()), out.columns, [&](int64_t i) {
      const std::span<float> to{out.row_f32(i), static_cast<size_t>(out.columns)};
      const int32_t id = ids[static_cast<size_t>(i)];
      if (!table.is_streamed) return unpack_row(static_cast<const PackedWeight&>(*table.storage), id, to);
      auto done = loader_.read_row(static_cast<const StreamedWeight&>(*table.storage), id, to);
      if (!done) failed[static_cast<size_t>(i)] = std::move(done).error();
    });
    for (std::optional<Error>& error : failed) {
      if (error) fail(*error);
    }
  }
  void rms_norm(MatrixView x, const Buffer& weight, float eps, MatrixView out) override {
    const float* w = static_cast<const float*>(weight.data());
    each_row(x.rows, x.columns,
             [&](int64_t i) { kernels_.rms_norm(x.row_f32(i), w, x.columns, eps, out.row_f32(i)); });
  }
  void rope(const RopeArgs& a) override {
    const int32_t half = a.head_dim / 2;
    each_row(a.x.rows, int64_t{a.num_heads} * a.head_dim, [&](int64_t t) {
      const float factor = a.row_scale == nullptr ? 1.0f : a.row_scale[t];
      for (int32_t h = a.first_head; h < a.first_head + a.num_heads; ++h) {
        kernels_.rope(a.x.row_f32(t) + int64_t{h} * a.head_dim, a.cosine + t * half,
                      a.sine + t * half, half, factor);
      }
    });
  }
  void store_kv(MatrixView qkv, int32_t num_heads, std::span<const int32_t> slots,
                const KvLayerView& kv) override {
    cpu_store_kv(pool_, qkv, num_heads, slots, kv);
  }
  void attention(const AttentionArgs& args) override {
    cpu_attention(kernels_, pool_, attention_scratch_, args);
  }
  void attention_full(MatrixView qkv, int32_t num_heads, int32_t head_dim, float scale,
                      std::span<const int32_t> segments, MatrixView out) override {
    cpu_attention_full(kernels_, pool_, attention_scratch_, qkv, num_heads, head_dim, scale, segments, out);
  }
  void gated_activation(MatrixView x, Activation act, MatrixView out) override {
    each_row(out.rows, out.columns, [&](int64_t i) {
      const float* gate = x.row_f32(i);
      kernels_.gated_activation(kernel_activation(act), gate, gate + out.columns, out.columns,
                                out.row_f32(i));
    });
  }
  void activation(MatrixView x, Activation act) override {
    each_row(x.rows, x.columns, [&](int64_t i) {
      kernels_.gated_activation(kernel_activation(act), x.row_f32(i), nullptr, x.columns, x.row_f32(i));
    });
  }
  void add_bias(MatrixView x, const Buffer& bias) override {
    const float* b = static_cast<const float*>(bias.data());
    each_row(x.rows, x.columns, [&](int64_t i) {
      for (int64_t c = 0; c < x.columns; ++c) x.row_f32(i)[c] += b[c];
    });
  }
  void gather_rows(MatrixView x, std::span<const int32_t> rows, MatrixView out) override {
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(out.row_f32(static_cast<int64_t>(i)), x.row_f32(rows[i]), row_size(x));
    }
  }
  void scatter_rows(MatrixView x, std::span<const int32_t> rows, MatrixView out) override {
    for (size_t i = 0; i < rows.size(); ++i) {
      std::memcpy(out.row_f32(rows[i]), x.row_f32(static_cast<int64_t>(i)), row_size(x));
    }
  }
  void unfold_patches(MatrixView x, int32_t, int32_t grid_columns, int32_t merge,
                      MatrixView out) override {
    const int64_t out_columns = grid_columns / merge;
    each_row(out.rows, out.columns, [&](int64_t t) {
      const int64_t row = t / out_columns * merge, column = t % out_columns * merge;
      for (int32_t di = 0; di < merge; ++di) {
        for (int32_t dj = 0; dj < merge; ++dj) {
          const float* from = x.row_f32((row + di) * grid_columns + column + dj);
          float* to = out.row_f32(t) + di * merge + dj;
          for (int64_t c = 0; c < x.columns; ++c) to[c * merge * merge] = from[c];
        }
      }
    });
  }
  Result<void> synchronize() override {
    if (failed_) return *std::exchange(failed_, std::nullopt);
    return {};
  }
  std::unique_ptr<ReadProbe> probe_reads(double seconds) override { return probe_host_reads(num_threads(), seconds); }
  MatrixPeak measure_matrix_peak(double seconds) override {
    return measure_cpu_peak(kernels_, pool_, seconds);
  }
  Arithmetic product_arithmetic(const WeightView& weight, int64_t rows) const override {
    if (options_.precision == Precision::reference) return Arithmetic::float32;
    const auto tiles = tile_format_of(weight);
    if (!tiles) return Arithmetic::float32;
    return panels_.takes(*tiles, rows) ? Arithmetic::bf16 : tiles->integer ? Arithmetic::int8 : Arithmetic::float32;
  }

 private:
  // To those above it is this device that failed, whatever was beneath it.
  void fail(const Error& error) {
    if (!failed_) failed_ = Error(ErrorCode::device, error.message());
  }

  static size_t row_size(MatrixView x) { return static_cast<size_t>(x.columns) * sizeof(float); }

  // Runs body(row) for every row: on the caller when there is little to do.
  template <class Body>
  void each_row(int64_t rows, int64_t columns, Body body) {
    if (rows * columns < kSerialElements) {
      for (int64_t i = 0; i < rows; ++i) body(i);
      return;
    }
    const int64_t grain = std::max<int64_t>(1, rows / (int64_t{num_threads()} * 8));
    pool_.parallel_for(rows, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) body(i);
    });
  }

  // FP8 inputs as the GPU path sees them: rounded to e4m3 codes of the static scale.
  MatrixView statically_quantized(MatrixView x, float scale);
  Result<void> tiled_product(const WeightSegment& segment, MatrixView x, MatrixView y, bool accumulate);
  // Tiles [first, first + count), one behind the other at `data`, times all rows of x.
  void tile_products(const WeightSegment& segment, int64_t first, int64_t count, const uint8_t* data, MatrixView x,
                     MatrixView y, bool accumulate) const;
  // Rows [first, first + rows) of a segment without tiles.
  void decoded_product(const WeightSegment& segment, int64_t first, int64_t rows, MatrixView x,
                       MatrixView y, bool accumulate);
  // What x was made into for the segments of a product so far.
  struct MadeInputs {
    bool is_quantized = false;      // inputs_ has it in 8 bits
    const void* floats = nullptr;   // inputs_ has this, x or a rounding of it
    const void* panel = nullptr;    // panels_ has this
  };
  // x as a segment wants it; copies in 8 bits and in BF16 are made once per product.
  Result<MatrixView> input_of(const WeightSegment& segment, MatrixView x, MadeInputs* made);
  Result<void> packed_product(const PackedWeight& weight, MatrixView x, MatrixView y, bool accumulate);
  // `weight`: its number in the stream.
  Result<void> streamed_product(size_t weight, MatrixView x, MatrixView y, bool accumulate);
  // Rows [first, first + rows) of a segment whose tiles are packed here, a few at a time per thread.
  Result<void> streamed_tiles(const WeightSegment& segment, int64_t first, int64_t rows, MatrixView x,
                              MatrixView y, bool accumulate);

  const CpuKernels& kernels_;
  BackendOptions options_;
  ThreadPool pool_;
  WeightLoader loader_;
  CpuPanels panels_;
  CpuInputs inputs_;
  std::vector<std::vector<float>> scratch_;  // one per thread
  std::vector<Buffer> tiles_;                // of a streamed weight, packed: a few per thread
  std::optional<Error> failed_;              // the first failure since synchronize()
  AttentionScratch attention_scratch_;
  std::vector<float> static_inputs_;
};

MatrixView CpuBackend::statically_quantized(MatrixView x, float scale) {
  static_inputs_.resize(static_cast<size_t>(x.rows * x.columns));
  MatrixView out{static_inputs_.data(), x.rows, x.columns};
  each_row(x.rows, x.columns, [&](int64_t i) {
    for (int64_t c = 0; c < x.columns; ++c) {
      out.row_f32(i)[c] = e4m3_to_f32(f32_to_e4m3(x.row_f32(i)[c] / scale)) * scale;
    }
  });
  return out;
}

void CpuBackend::matmul(const Weight& weight, MatrixView x, MatrixView y, bool accumulate) {
  CHECK(x.columns == weight.columns && y.columns == weight.rows && x.rows == y.rows);
  if (failed_) return;  // what follows would be computed from nothing
  if (weight.is_streamed) {
    const auto& streamed = static_cast<const StreamedWeight&>(*weight.storage);
    CHECK(streamed.index.has_value());
    auto done = streamed_product(*streamed.index, x, y, accumulate);
    if (!done) fail(done.error());
    return;
  }
  auto done = packed_product(static_cast<const PackedWeight&>(*weight.storage), x, y, accumulate);
  if (!done) fail(done.error());
}

Result<void> CpuBackend::packed_product(const PackedWeight& weight, MatrixView x, MatrixView y, bool accumulate) {
  MadeInputs made;
  for (const WeightSegment& s : weight.segments) {
    const MatrixView in = TRY(input_of(s, x, &made));
    if (s.tiles) TRY(tiled_product(s, in, y, accumulate));
    else decoded_product(s, 0, s.rows, in, y, accumulate);
  }
  return {};
}

Result<MatrixView> CpuBackend::input_of(const WeightSegment& s, MatrixView x, MadeInputs* made) {
  const bool is_static = options_.fp8_static_activations && s.activation_scale > 0.0f;
  if (is_static) {
    x = statically_quantized(x, s.activation_scale);
    made->floats = made->panel = nullptr;  // other numbers at the same place
  }
  if (!s.tiles) return x;
  if (panels_.takes(*s.tiles, x.rows)) {
    if (made->panel != x.data) TRY(panels_.set_input(x));
    made->panel = x.data;
  } else if (!s.tiles->integer) {
    if (made->floats != x.data) inputs_.arrange(x);
    made->floats = x.data;
  } else if (!made->is_quantized) {
    inputs_.quantize(x);
    made->is_quantized = true;
  }
  return x;
}

double CpuBackend::measure_streamed_products(double seconds) {
  if (!loader_.streams()) return 0.0;
  using Clock = std::chrono::steady_clock;
  auto since = [](Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); };
  // The median weight counts: the first touches scratch memory, and a neighbour may take the machine for a moment.
  constexpr size_t kLeastWeights = 3;
  constexpr double kPatience = 5;
  WeightStream& stream = loader_.stream();
  std::vector<double> rates;
  const Clock::time_point start = Clock::now();
  for (size_t w = 0; w < stream.num_weights(); ++w) {
    const double past = since(start);
    if (past >= kPatience * seconds || (past >= seconds && rates.size() >= kLeastWeights)) break;
    double bytes = 0.0;
    int64_t rows = 0;
    for (const WeightSegment& s : stream.segments(w)) {
      rows += s.rows;
      for (const WeightView& view : s.views) bytes += static_cast<double>(view.codes.size());
    }
    const int64_t columns = stream.segments(w)[0].views[0].columns;
    std::vector<float> x(static_cast<size_t>(columns), 1.0f), y(static_cast<size_t>(rows));
    const double waited = stream.stats().waited_seconds;
    const Clock::time_point begin = Clock::now();
    if (!streamed_product(w, {x.data(), 1, columns}, {y.data(), 1, rows}, false)) return 0.0;
    const double busy = since(begin) - (stream.stats().waited_seconds - waited);
    if (busy > 0) rates.push_back(bytes / busy);
  }
  if (rates.empty()) return 0.0;
  const auto middle = rates.begin() + static_cast<ptrdiff_t>(rates.size() / 2);
  std::nth_element(rates.begin(), middle, rates.end());
  return *middle;
}

Result<void> CpuBackend::streamed_product(size_t weight, MatrixView x, MatrixView y, bool accumulate) {
  MadeInputs made;
  std::optional<size_t> current;
  MatrixView in = x;
  return loader_.stream().each_piece(
      weight, [&](size_t index, const WeightSegment& s, int64_t first, int64_t rows) -> Result<void> {
        if (current != index) in = TRY(input_of(s, x, &made));
        current = index;
        if (s.tiles) return streamed_tiles(s, first, rows, in, y, accumulate);
        for (int64_t row = first; row < first + rows; ++row) TRY(check_stored_row(s, row));
        decoded_product(s, first, rows, in, y, accumulate);
        return {};
      });
}

Result<void> CpuBackend::streamed_tiles(const WeightSegment& s, int64_t first, int64_t rows, MatrixView x,
                                        MatrixView y, bool accumulate) {
  const bool in_panels = panels_.takes(*s.tiles, x.rows);
  const uint64_t bytes = s.tile_bytes * static_cast<uint64_t>(in_panels ? CpuPanels::kFewTiles : kMostIntTiles);
  for (Buffer& tile : tiles_) {
    if (tile.bytes() < bytes) tile = TRY(allocate_host(bytes, "packed tiles"));
  }
  std::vector<std::optional<Error>> failed(tiles_.size());
  auto packed = [&](int64_t tile, int64_t count, int worker) -> const uint8_t* {
    auto* data = static_cast<uint8_t*>(tiles_[static_cast<size_t>(worker)].data());
    std::memset(data, 0, s.tile_bytes * static_cast<uint64_t>(count));
    for (int64_t i = 0; i < count; ++i) {
      auto done = pack_tile(s, x.columns, tile + i, data + static_cast<uint64_t>(i) * s.tile_bytes);
      if (!done) {
        failed[static_cast<size_t>(worker)] = std::move(done).error();
        return nullptr;
      }
    }
    return data;
  };
  const int64_t first_tile = first / kTileRows, count = (rows + kTileRows - 1) / kTileRows;
  if (in_panels) {
    TRY(panels_.multiply(s, first_tile, count, CpuPanels::Split::tiles, packed, y, accumulate));
  } else {
    pool_.parallel_for(count, kMostIntTiles, [&](int64_t begin, int64_t end, int worker) {
      const uint8_t* data = packed(first_tile + begin, end - begin, worker);
      if (data != nullptr) tile_products(s, first_tile + begin, end - begin, data, x, y, accumulate);
    });
  }
  for (std::optional<Error>& error : failed) {
    if (error) return std::move(*error);
  }
  return {};
}

Result<void> CpuBackend::tiled_product(const WeightSegment& s, MatrixView x, MatrixView y, bool accumulate) {
  const int64_t tiles = s.num_tiles();
  auto data_of = [&](int64_t tile) { return s.data + static_cast<uint64_t>(tile) * s.tile_bytes; };
  if (panels_.takes(*s.tiles, x.rows)) {
    return panels_.multiply(s, 0, tiles, CpuPanels::Split::tiles_and_rows,
                            [&](int64_t first, int64_t, int) { return data_of(first); }, y, accumulate);
  }
  auto piece = [&](int64_t begin, int64_t end) {
    tile_products(s, begin, end - begin, data_of(begin), x, y, accumulate);
  };
  if (static_cast<int64_t>(s.tile_bytes) * tiles * x.rows < kSerialBytes) {
    piece(0, tiles);
    return {};
  }
  // Small pieces, so that no thread waits long for another's last; larger ones where a row's worth of work is soon done.
  const int64_t pieces = int64_t{num_threads()} * (x.rows == 1 ? 6 : 16);
  const int64_t grain = (tiles / pieces / kMostIntTiles + 1) * kMostIntTiles;
  pool_.parallel_for(tiles, grain, [&](int64_t begin, int64_t end, int) { piece(begin, end); });
  return {};
}

void CpuBackend::tile_products(const WeightSegment& s, int64_t first, int64_t count, const uint8_t* data, MatrixView x,
                               MatrixView y, bool accumulate) const {
  alignas(64) float out[kMostIntTiles * kMaxTokens * kTileRows];  // sums wait here: none across two lines
  const auto tile_bytes = static_cast<int64_t>(s.tile_bytes);
  // Tokens outside, tiles inside: the tokens' inputs stay in the nearest cache and the tiles of one
  // piece in the next.
  for (int64_t token = 0; token < x.rows; token += kMaxTokens) {
    const int tokens = static_cast<int>(std::min<int64_t>(kMaxTokens, x.rows - token));
    for (int64_t i = 0; i < count;) {
      const uint8_t* tile = data + i * tile_bytes;
      int taken = 1;
      if (s.tiles->integer) {
        taken = static_cast<int>(std::min<int64_t>(kMostIntTiles, count - i));
        kernels_.linear_int({s.tiles->ints, x.columns, tile, taken > 1 ? tile_bytes : 0, taken},
                            inputs_.quantized(token), tokens, out);
      } else {
        kernels_.linear_float(s.tiles->floats, tile, x.columns, inputs_.floats(token), out);
      }
      for (int j = 0; j < taken; ++j)
        store_sums(s, first + i + j, out + j * tokens * kTileRows, token, tokens, y, accumulate);
      i += taken;
    }
  }
}

void CpuBackend::decoded_product(const WeightSegment& s, int64_t first, int64_t rows, MatrixView x,
                                 MatrixView y, bool accumulate) {
  int64_t base = 0;  // of the view, in the segment
  for (const WeightView& view : s.views) {
    const int64_t from = std::max(first - base, int64_t{0}), to = std::min(first + rows - base, view.rows);
    const int64_t out_row = s.first_row + base;
    base += view.rows;
    pool_.parallel_for(to - from, 8, [&](int64_t begin, int64_t end, int worker) {
      std::vector<float>& row = scratch_[static_cast<size_t>(worker)];
      row.resize(static_cast<size_t>(view.columns));
      for (int64_t r = from + begin; r < from + end; ++r) {
        decode_row(view, r, row);
        for (int64_t t = 0; t < x.rows; ++t) {
          float& out = y.row_f32(t)[out_row + r];
          const float sum = kernels_.dot(row.data(), x.row_f32(t), x.columns);
          out = accumulate ? out + sum : sum;
        }
      }
    });
  }
}

}  // namespace

const LogitMath& scalar_logit_math() { return kScalarKernels.logits; }

const CpuKernels& cpu_kernels(IsaLevel level) {
#if defined(__x86_64__)
  if (level == IsaLevel::amx) return kAmxKernels;
  if (level == IsaLevel::avx512_bf16) return kAvx512Bf16Kernels;
  if (level == IsaLevel::avx512) return kAvx512Kernels;
  if (level == IsaLevel::avx2) return kAvx2Kernels;
#endif
  return kScalarKernels;
}

std::unique_ptr<Backend> create_cpu_backend_with(const CpuKernels& kernels, const BackendOptions& options) {
  return std::make_unique<CpuBackend>(kernels, options);
}

Result<std::unique_ptr<Backend>> create_cpu_backend(const BackendOptions& options) {
  const CpuFeatures features = detect_cpu_features();
  IsaLevel level = features.best();
  if (options.isa != "auto") {
    bool known = false;
    for (IsaLevel candidate : built_isa_levels()) {
      if (options.isa == isa_name(candidate)) {
        level = candidate;
        known = true;
      }
    }
    if (!known) {
      return Error(ErrorCode::invalid_argument, "--isa: found \"" + options.isa +
                                                    "\", expected auto, scalar, avx2, avx512, avx512_bf16 or amx");
    }
  }
  if (!features.supports(level)) {
    return Error(ErrorCode::unsupported, std::string("--isa ") + isa_name(level) +
                                             ": this processor does not have it; the best here is " +
                                             isa_name(features.best()));
  }
  return create_cpu_backend_with(cpu_kernels(level), options);
}

}  // namespace bise
