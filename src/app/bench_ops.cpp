// `bise bench ops`: the ops of the backend, one at a time and without a model: products of every format and
// shape, attention over caches of every type, and the row-wise ops between them.
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cmath>
#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include "app/bench.h"
#include "app/bench_math.h"
#include "app/machine.h"
#include "app/random_matrix.h"
#include "app/options.h"
#include "app/session.h"
#include "app/terminal.h"
#include "base/random.h"
#include "model/kv_cache.h"
#include "tensor/random_weight.h"

namespace bise {
namespace {

struct OpsOptions {
  std::vector<std::string> ops = {"matmul", "embed", "attention", "row-wise"}, formats, isas = {"auto"}, shapes;
  std::vector<std::string> kv_types = kv_type_names();
  std::vector<int64_t> tokens = {1, 2, 4, 8, 16, 64, 512}, contexts = {1024, 8192, 32768};
  int64_t scale = 8;
  double seconds = 0.2;
  bool list = false, json = false;
  CommonOptions common;
};

constexpr int32_t kHeads = 96, kKvHeads = 8, kHeadDim = 128;  // of the 128B model

struct Shape {
  std::string name;
  int64_t rows = 0, columns = 0;
  int64_t most_tokens = 1 << 20;  // the head never sees more rows than sequences
};

// The five products of the 128B model, their rows divided by `scale`, and two that fit no tile evenly.
std::vector<Shape> model_shapes(int64_t scale) {
  constexpr int64_t kHidden = 12288, kKv = 1024, kFfn = 28672, kVocab = 131072;
  auto cut = [&](int64_t rows) { return std::max<int64_t>(rows / scale, 16); };
  return {{"qkv", cut(kHidden + 2 * kKv), kHidden}, {"output", cut(kHidden), kHidden},
          {"gate_up", cut(2 * kFfn), kHidden},      {"down", cut(kHidden), kFfn},
          {"head", cut(kVocab), kHidden, 16},       {"odd", 1009, 4352},
          {"small", 256, 1024}};
}

Result<Shape> parse_shape(const std::string& text) {
  Shape shape{text, 0, 0};
  const size_t x = text.find('x');
  auto number = [](const std::string& digits) {
    const bool good = !digits.empty() && digits.size() <= 7 && digits.find_first_not_of("0123456789") == std::string::npos;
    return good ? static_cast<int64_t>(std::stol(digits)) : 0;
  };
  if (x != std::string::npos) shape = {text, number(text.substr(0, x)), number(text.substr(x + 1))};
  if (shape.rows < 1 || shape.columns < 1) {
    return Error(ErrorCode::invalid_argument, "--shapes: found \"" + text + "\", expected ROWSxCOLUMNS such as 28672x12288");
  }
  return shape;
}

// Random matrices of one format and shape: so many that together they do not fit the caches, because a
// real step reads each weight once.
class Weights {
 public:
  static Result<Weights> create(Backend& backend, const ModelFormat& format, int64_t rows, int64_t columns,
                                uint64_t beyond_caches) {
    Weights w;
    uint64_t copies = 1;
    for (uint64_t copy = 0; copy < copies; ++copy) {
      // The stored bytes stay: formats without a kernel of their own are read from them.
      w.stored_.push_back(TRY(RandomMatrixWeight::create(format, format.layouts[0], rows, columns, copy)));
      copies = std::clamp<uint64_t>(beyond_caches / w.stored_[0].stored_bytes(), 1, 64);
      w.weights_.push_back(TRY(backend.pack_weight(std::span(&w.stored_.back().view(), 1))));
    }
    return w;
  }
  const Weight& next() { return weights_[at_++ % weights_.size()]; }
  uint64_t bytes() const { return weights_[0].bytes; }  // of one
  uint64_t stored_bytes() const { return stored_[0].stored_bytes(); }
  const WeightView& view() const { return stored_[0].view(); }

 private:
  Weights() = default;
  std::vector<RandomMatrixWeight> stored_;
  std::vector<Weight> weights_;
  size_t at_ = 0;
};

// Activations in the backend's memory, normally distributed.
class Matrix {
 public:
  Matrix() = default;  // nothing
  static Result<Matrix> create(Backend& backend, int64_t rows, int64_t columns) {
    Matrix m;
    const uint64_t count = static_cast<uint64_t>(rows * columns);
    m.buffer_ = TRY(backend.allocate(count * backend.activation_bytes(), "the inputs of an op"));
    std::vector<float> values(count);
    fill_random_weight(FormatId::f32, 1.0, 2, 0, 0, std::as_writable_bytes(std::span(values)));
    TRY(backend.write(values, m.view_ = {m.buffer_.data(), rows, columns}));
    return m;
  }
  MatrixView view() const { return view_; }

 private:
  Buffer buffer_;
  MatrixView view_;
};

class OpsBench {
 public:
  static Result<OpsBench> create(const OpsOptions& options, const std::string& isa, RowWriter& writer) {
    CommonOptions common = options.common;
    common.isa = isa;
    OpsBench bench(options, writer);
    bench.backend_ = TRY(open_backend(common));
    constexpr double kSeconds = 0.2;
    bench.probe_ = bench.backend_->probe_reads(kSeconds);
    return bench;
  }

  Result<void> run() {
    for (const std::string& op : options_.ops) {
      if (op == "matmul") TRY(matmuls());
      if (op == "embed") TRY(embeds());
      if (op == "attention") TRY(attentions());
      if (op == "row-wise") TRY(row_wise());
    }
    return {};
  }

 private:
  OpsBench(const OpsOptions& options, RowWriter& writer) : options_(options), writer_(writer) {}

  // The peaks of arithmetic just before a group of rows; the best so far counts.
  void measure_peaks() {
    constexpr double kSeconds = 0.1;
    const MatrixPeak peak = backend_->measure_matrix_peak(kSeconds);
    peak_.float_tflops = std::max(peak_.float_tflops, peak.float_tflops);
    peak_.int8_tops = std::max(peak_.int8_tops, peak.int8_tops);
    peak_.bf16_tflops = std::max(peak_.bf16_tflops, peak.bf16_tflops);
    peak_.matrix_int8_tops = std::max(peak_.matrix_int8_tops, peak.matrix_int8_tops);
  }

  // An op and its row: bytes that it must read and write, operations (0: not told) and their kind.
  struct Op {
    Json row;
    double bytes, flops;
    Arithmetic arithmetic;
    std::function<void()> call;
    // What was seen: seconds of each call, the median of each turn, and the rates beside the bandwidth around it.
    std::vector<double> times = {}, turns = {};
    LimitedRates reads = {};
  };

  // One turn of an op: calls for 10 ms and once at least, and the bandwidth behind them.
  Result<void> take_turn(Op& op) {
    constexpr double kTurn = 0.01;
    std::vector<double> times;
    for (double total = 0; total < kTurn;) {
      if (interrupted()) return Error(ErrorCode::cancelled, "interrupted");
      const double start = now_seconds();
      op.call();
      TRY(backend_->synchronize());
      times.push_back(now_seconds() - start);
      total += times.back();
    }
    op.times.insert(op.times.end(), times.begin(), times.end());
    op.turns.push_back(spread_of(std::move(times)).median);
    const double before = read_;
    read_ = probe_->read();
    op.reads.add(op.bytes / op.turns.back() / 1e9, before, read_);
    return {};
  }

  // Times ops that are to be compared, in turns, and writes their rows.
  Result<void> time(std::vector<Op> ops) {
    constexpr size_t kMinTurns = 5;
    if (ops.empty()) return {};
    for (Op& op : ops) op.call();  // the first sets up scratch memory
    TRY(backend_->synchronize());
    read_ = probe_->read();
    const double limit = options_.seconds * static_cast<double>(ops.size()), begin = now_seconds();
    for (size_t turn = 0; turn < kMinTurns || now_seconds() - begin < limit; ++turn) {
      for (Op& op : ops) TRY(take_turn(op));
    }
    for (const Op& op : ops) TRY(write(op, ops[0]));
    return {};
  }

  Result<void> write(const Op& op, const Op& first) {
    Json row = op.row;
    const Spread spread = spread_of(op.times);
    row["isa"] = backend_->isa();
    row["threads"] = backend_->num_threads();
    row["us_median"] = spread.median * 1e6;
    row["us_min"] = spread.min * 1e6;
    row["us_max"] = spread.max * 1e6;
    row["time_ratio"] = ratios_of(op.turns, first.turns).median;
    row["gb_s"] = op.reads.rates().median;
    row["read_gb_s"] = op.reads.limits().median;
    add_shares(row, "read", op.reads.shares());
    if (op.flops > 0) {
      const double peak = peak_of(peak_, op.arithmetic);
      row["tflops"] = share_of(op.flops, spread.median) / 1e12;
      row["matrix_peak_tflops"] = peak;
      row["matrix_arithmetic"] = arithmetic_name(op.arithmetic);
      row["matrix_share"] = share_of(row["tflops"].get<double>(), peak);
    }
    return writer_.write(row);
  }

  std::vector<const ModelFormat*> formats() const {
    std::vector<const ModelFormat*> found;
    for (const ModelFormat& format : model_formats()) {
      const auto& names = options_.formats;
      if (names.empty() || std::find(names.begin(), names.end(), format.name) != names.end()) found.push_back(&format);
    }
    return found;
  }
  Result<std::vector<Shape>> shapes() const {
    if (options_.shapes.empty()) return model_shapes(options_.scale);
    std::vector<Shape> shapes;
    for (const std::string& text : options_.shapes) shapes.push_back(TRY(parse_shape(text)));
    return shapes;
  }
  static double floats(int64_t rows, int64_t columns) { return static_cast<double>(rows * columns) * sizeof(float); }

  Result<void> matmuls() {
    const std::vector<Shape> all = TRY(shapes());
    for (const ModelFormat* format : formats()) {
      for (const Shape& shape : all) {
        if (shape.columns % format->group != 0) continue;
        measure_peaks();
        Weights weights = TRY(Weights::create(*backend_, *format, shape.rows, shape.columns, probe_->bytes()));
        std::deque<Matrix> matrices;
        std::vector<Op> ops;
        for (int64_t tokens : options_.tokens) {
          if (tokens > shape.most_tokens) continue;
          const MatrixView x = matrices.emplace_back(TRY(Matrix::create(*backend_, tokens, shape.columns))).view();
          const MatrixView y = matrices.emplace_back(TRY(Matrix::create(*backend_, tokens, shape.rows))).view();
          const Json row = {{"op", "matmul"}, {"format", format->name}, {"layout", layout_name(format->layouts[0])}, {"shape", shape.name},
                            {"rows", shape.rows}, {"columns", shape.columns}, {"tokens", tokens}};
          const double bytes = static_cast<double>(weights.bytes()) + floats(tokens, shape.rows + shape.columns);
          const double flops = 2.0 * static_cast<double>(tokens) * static_cast<double>(shape.rows) * static_cast<double>(shape.columns);
          ops.push_back({row, bytes, flops, backend_->product_arithmetic(weights.view(), tokens),
                         [this, &weights, x, y] { backend_->matmul(weights.next(), x, y); }});
        }
        TRY(time(std::move(ops)));
      }
    }
    return {};
  }

  Result<void> embeds() {
    constexpr int64_t kRows = 4096, kColumns = 12288;
    for (const ModelFormat* format : formats()) {
      Weights weights = TRY(Weights::create(*backend_, *format, kRows, kColumns, probe_->bytes()));
      std::deque<Matrix> matrices;
      std::vector<Op> ops;
      for (int64_t tokens : options_.tokens) {
        const MatrixView out = matrices.emplace_back(TRY(Matrix::create(*backend_, tokens, kColumns))).view();
        std::vector<int32_t> ids;
        for (int64_t i = 0; i < tokens; ++i) ids.push_back(static_cast<int32_t>(i * 37 % kRows));
        const Json row = {{"op", "embed"}, {"format", format->name}, {"layout", layout_name(format->layouts[0])},
                          {"rows", kRows}, {"columns", kColumns}, {"tokens", tokens}};
        const double bytes = static_cast<double>(weights.bytes()) / kRows * static_cast<double>(tokens) + floats(tokens, kColumns);
        ops.push_back({row, bytes, 0, Arithmetic::float32,
                       [this, &weights, ids, out] { backend_->embed(weights.next(), ids, out); }});
      }
      TRY(time(std::move(ops)));
    }
    return {};
  }

  // Random keys and values of so many groups of sequences that together they do not fit the caches, and what attends to one
  // group after the other.
  struct Cache {
    Buffer k, v;
    Matrix qkv, out;
    std::vector<int32_t> table;
    std::vector<std::vector<SequenceSpan>> groups;
    AttentionArgs args;
    size_t at = 0;

    const AttentionArgs& next() {
      args.sequences = groups[at++ % groups.size()];
      return args;
    }
  };

  // The heads of the 128B model, causal: decode (one query of each of some sequences) and the last rows of a
  // prompt, fewer when there is much before them. The types of the cache take turns.
  Result<void> attentions() {
    measure_peaks();
    for (int64_t context : options_.contexts) {
      for (int64_t sequences : {1, 4}) TRY(attention(context, 1, sequences));
      TRY(attention(context, std::min<int64_t>(context > 4096 ? 64 : 512, context), 1));
    }
    return {};
  }
  Result<void> attention(int64_t context, int64_t queries, int64_t sequences) {
    std::deque<Cache> caches;
    std::vector<Op> ops;
    for (const std::string& type : options_.kv_types) {
      const KvDType dtype = *kv_type_of(type);
      TRY(fill(caches.emplace_back(), dtype, context, queries, sequences));
      const int64_t rows = queries * sequences;
      const Json row = {
          {"op", "attention"}, {"kv", type}, {"context", context}, {"sequences", sequences}, {"tokens", queries}};
      const double seen = static_cast<double>(context) - static_cast<double>(queries - 1) / 2;
      const double keys = static_cast<double>(rows) * seen;
      const double bytes = 2.0 * static_cast<double>(sequences * context) *
                           static_cast<double>(kv_token_bytes(dtype, kHeadDim) * kKvHeads);
      ops.push_back({row, bytes + floats(rows, 2 * kHeads * kHeadDim), 4.0 * kHeads * kHeadDim * keys,
                     Arithmetic::float32, [this, &cache = caches.back()] { backend_->attention(cache.next()); }});
    }
    return time(std::move(ops));
  }
  Result<void> fill(Cache& cache, KvDType dtype, int64_t context, int64_t queries, int64_t sequences) {
    const int64_t blocks = static_cast<int64_t>(ceil_div(static_cast<uint64_t>(context), kKvBlockSize));
    const uint64_t block_bytes = kv_token_bytes(dtype, kHeadDim) * kKvHeads * kKvBlockSize;
    const uint64_t of_group = 2 * static_cast<uint64_t>(blocks * sequences) * block_bytes;
    const int64_t groups = static_cast<int64_t>(std::clamp<uint64_t>(ceil_div(probe_->bytes(), of_group), 1, 64));
    const int32_t all_blocks = static_cast<int32_t>(blocks * sequences * groups);
    const uint64_t bytes = static_cast<uint64_t>(all_blocks) * block_bytes;
    cache.k = TRY(backend_->allocate(bytes, "the keys of an op"));
    cache.v = TRY(backend_->allocate(bytes, "the values of an op"));
    const int64_t rows = queries * sequences;
    cache.qkv =
        TRY(Matrix::create(*backend_, std::max<int64_t>(rows, kKvBlockSize), (kHeads + 2 * kKvHeads) * kHeadDim));
    cache.out = TRY(Matrix::create(*backend_, rows, kHeads * kHeadDim));
    // A prompt takes its blocks a chunk at a time: runs of them lie anywhere, as they do after a while.
    constexpr int32_t kRun = 512 / kKvBlockSize;
    std::vector<int32_t> runs;
    for (int32_t first = 0; first < all_blocks; first += kRun) runs.push_back(first);
    for (size_t i = runs.size(); i-- > 1;) std::swap(runs[i], runs[random_bits(4, 0, i) % (i + 1)]);
    std::vector<int32_t>& table = cache.table;
    for (int32_t first : runs) {
      for (int32_t b = first; b < std::min(first + kRun, all_blocks); ++b) table.push_back(b);
    }
    for (int64_t i = 0; i < sequences * groups; ++i) {
      if (i % sequences == 0) cache.groups.emplace_back();
      cache.groups.back().push_back({static_cast<int32_t>(i % sequences * queries), static_cast<int32_t>(queries),
                                     static_cast<int32_t>(context), table.data() + i * blocks});
    }
    AttentionArgs& args = cache.args;
    args.qkv = cache.qkv.view();
    args.num_heads = kHeads;
    args.scale = 1.0f / std::sqrt(static_cast<float>(kHeadDim));
    args.kv = {cache.k.data(), cache.v.data(), dtype, all_blocks, kKvBlockSize, kKvHeads, kHeadDim};
    args.out = cache.out.view();
    std::vector<int32_t> slots(kKvBlockSize);
    MatrixView block = cache.qkv.view();
    block.rows = kKvBlockSize;
    for (int32_t b = 0; b < all_blocks; ++b) {  // every block has the same random tokens
      for (int32_t t = 0; t < kKvBlockSize; ++t) slots[static_cast<size_t>(t)] = b * kKvBlockSize + t;
      backend_->store_kv(block, kHeads, slots, args.kv);
    }
    return {};
  }

  Result<void> row_wise() {
    constexpr int64_t kHidden = 12288, kFfn = 28672;
    const Buffer ones = TRY(backend_->upload(std::vector<float>(kHidden, 1.0f)));
    std::deque<Matrix> matrices;
    std::vector<Op> norms, gates;
    for (int64_t tokens : options_.tokens) {
      auto matrix = [&](int64_t columns) -> Result<MatrixView> {
        return matrices.emplace_back(TRY(Matrix::create(*backend_, tokens, columns))).view();
      };
      const MatrixView x = TRY(matrix(kHidden)), out = TRY(matrix(kHidden)), wide = TRY(matrix(2 * kFfn)),
                       gated = TRY(matrix(kFfn));
      norms.push_back({{{"op", "rms_norm"}, {"columns", kHidden}, {"tokens", tokens}},
                       2 * floats(tokens, kHidden),
                       0,
                       Arithmetic::float32,
                       [this, x, &ones, out] { backend_->rms_norm(x, ones, 1e-5f, out); }});
      gates.push_back({{{"op", "gated_activation"}, {"columns", kFfn}, {"tokens", tokens}},
                       3 * floats(tokens, kFfn),
                       0,
                       Arithmetic::float32,
                       [this, wide, gated] { backend_->gated_activation(wide, Activation::silu, gated); }});
    }
    TRY(time(std::move(norms)));
    return time(std::move(gates));
  }

  const OpsOptions& options_;
  RowWriter& writer_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<ReadProbe> probe_;
  double read_ = 0;  // the latest reading, GB/s
  MatrixPeak peak_;
};

// What each format takes in memory, and how its products are computed, on this backend.
Result<void> list_formats(const OpsOptions& options, const std::string& isa, RowWriter& writer) {
  constexpr int64_t kRows = 64, kColumns = 1024;
  CommonOptions common = options.common;
  common.isa = isa;
  std::unique_ptr<Backend> backend = TRY(open_backend(common));
  for (const ModelFormat& format : model_formats()) {
    const Weights weights = TRY(Weights::create(*backend, format, kRows, kColumns, /*beyond_caches=*/0));
    TRY(writer.write({{"format", format.name}, {"layout", layout_name(format.layouts[0])}, {"isa", backend->isa()},
                      {"stored_bits", 8.0 * static_cast<double>(weights.stored_bytes()) / (kRows * kColumns)},
                      {"kernel_bits", 8.0 * static_cast<double>(weights.bytes()) / (kRows * kColumns)},
                      {"matrix_arithmetic", arithmetic_name(backend->product_arithmetic(weights.view(), 1))},
                      {"prefill_arithmetic", arithmetic_name(backend->product_arithmetic(weights.view(), 512))}}));
  }
  return {};
}

Result<int> bench_ops(OpsOptions options) {
  RowWriter rows({{"op", "op", 0, -16},
                  {"isa", "isa", 0, -7},
                  {"format", "format", 0, -9},
                  {"layout", "layout", 0, -6},
                  {"kv", "kv", 0, -4},
                  {"shape", "shape", 0, -8},
                  {"context", "context", 0, 7},
                  {"sequences", "seqs", 0, 4},
                  {"tokens", "tokens", 0, 6},
                  {"us_median", "us", 1, 10},
                  {"us_min", "min", 1, 10},
                  {"us_max", "max", 1, 10},
                  {"time_ratio", "t/first", 3, 7},
                  {"gb_s", "GB/s", 2, 8},
                  {"read_share", "share", 3, 6},
                  {"tflops", "TFLOP/s", 4, 8},
                  {"matrix_share", "share", 3, 6}},
                 options.json);
  RowWriter formats({{"format", "format", 0, -9}, {"layout", "layout", 0, -6}, {"isa", "isa", 0, -7}, {"stored_bits", "stored bits", 2, 11},
                     {"kernel_bits", "in memory", 2, 9}, {"matrix_arithmetic", "products", 0, -8},
                     {"prefill_arithmetic", "512 rows", 0, -8}}, options.json);
  for (const std::string& isa : options.isas) {
    if (options.list) {
      TRY(list_formats(options, isa, formats));
      continue;
    }
    OpsBench bench = TRY(OpsBench::create(options, isa, rows));
    TRY(bench.run());
  }
  return kExitDone;
}

}  // namespace

void add_bench_ops(CLI::App& bench, Action& action) {
  auto options = std::make_shared<OpsOptions>();
  CLI::App* command = bench.add_subcommand("ops", "the ops of the backend one at a time, without a model");
  const std::vector<std::string> names = model_format_names();
  auto words = [&](const char* name, std::vector<std::string>& values, const char* text, std::vector<std::string> known) {
    CLI::Option* option = command->add_option(name, values, text)->delimiter(',')->capture_default_str();
    if (!known.empty()) option->check(CLI::IsMember(known));
  };
  auto numbers = [&](const char* name, std::vector<int64_t>& values, const char* text) {
    command->add_option(name, values, text)->delimiter(',')->check(CLI::Range(int64_t{1}, int64_t{1} << 20))->capture_default_str();
  };
  words("--ops", options->ops, "which: matmul, embed, attention, row-wise", {"matmul", "embed", "attention", "row-wise"});
  words("--formats", options->formats, "weight formats (default: all)", names);
  words("--shapes", options->shapes, "ROWSxCOLUMNS of products (default: those of the 128B model)", {});
  command->add_option("--scale", options->scale, "the rows of the default shapes are divided by it")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  numbers("--tokens", options->tokens, "rows of the activations");
  numbers("--contexts", options->contexts, "tokens in the cache, of attention");
  words("--kv-types", options->kv_types, "types of the cache", kv_type_names());
  command->add_option("--seconds", options->seconds, "of timing for one row")
      ->check(CLI::Range(0.0, 600.0))
      ->capture_default_str();
  words("--isa", options->isas, "CPU instruction sets, one after the other", {"auto", "scalar", "avx2", "avx512", "avx512_bf16", "amx"});
  command->add_flag("--list", options->list, "tell how each format is kept and multiplied; times nothing");
  command->add_flag("--json", options->json, "print JSON objects, one per line");
  add_compute_options(*command, options->common);
  command->footer(
      "Rows of the same weights (or contexts) take turns of 10 ms. t/first: time over that of the first of them in the same\n"
      "turn. gb_s: bytes that the op must read and write, over its time; read_share: over the read bandwidth just before and\n"
      "after the turn. Medians. tflops and matrix_share: the same with operations, and the peak of the arithmetic that the op\n"
      "uses (matrix_arithmetic). Weights of one shape are many, so that they come from memory, not from caches.");
  command->callback([options, &action] { action = [options] { return bench_ops(*options); }; });
}

}  // namespace bise
