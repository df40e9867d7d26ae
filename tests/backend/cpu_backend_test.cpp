// What the CPU backend promises beside the arithmetic of its ops: names and refusals, the two paths of
// FP8, conversions over all codes, and values that are not ordinary numbers.
#include "backend/cpu/cpu_backend.h"

#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "backend/cpu/cpu_features.h"
#include "backend/cpu/cpu_memory.h"
#include "base/float_types.h"
#include "base/random.h"
#include "support/emulated_avx512.h"
#include "support/op_cases.h"
#include "support/reference_backend.h"
#include "support/reference_kv.h"

namespace bise {
namespace {

using test::Fp8Scales;
using test::GuardedMatrix;
using test::PartCase;
using test::RandomWeights;

constexpr uint64_t kSeed = 7;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<std::unique_ptr<Backend>> every_backend(BackendOptions options = {}) {
  std::vector<std::unique_ptr<Backend>> backends;
  options.num_threads = 2;
  for (IsaLevel level : built_isa_levels()) {
    options.isa = isa_name(level);
    if (detect_cpu_features().supports(level)) backends.push_back(create_cpu_backend(options).value());
  }
  backends.push_back(create_cpu_backend_with(kEmulatedAvx512Kernels, options));
  return backends;
}

BackendOptions with_isa(const std::string& isa) {
  BackendOptions options;
  options.isa = isa;
  return options;
}

void fill(GuardedMatrix& x, uint64_t seed) {
  test::OpCase c{.op = test::Op::matmul, .tokens = x.view().rows, .columns = x.view().columns,
                 .parts = {{FormatId::f32, 1}}};
  auto reference = create_reference_backend();
  test::OpRun run(*reference, c, seed);
  std::copy(run.input().begin(), run.input().end(), x.values().begin());
}

std::vector<float> product(Backend& backend, std::span<const WeightView> parts, GuardedMatrix& x) {
  const Weight weight = backend.pack_weight(parts).value();
  GuardedMatrix y(x.view().rows, weight.rows);
  backend.matmul(weight, x.view(), y.view());
  EXPECT_TRUE(y.guards_hold());
  return {y.values().begin(), y.values().end()};
}

TEST(cpu_backend, an_unknown_instruction_set_is_refused_with_the_names_of_the_known) {
  for (const char* name : {"sse", "AVX2", "", "avx2 ", "reference"}) {
    auto backend = create_cpu_backend(with_isa(name));
    ASSERT_FALSE(backend.has_value()) << name;
    EXPECT_EQ(backend.error().code(), ErrorCode::invalid_argument);
    EXPECT_EQ(backend.error().message(),
              std::string("--isa: found \"") + name + "\", expected auto, scalar, avx2, avx512, avx512_bf16 or amx");
  }
}

TEST(cpu_backend, an_instruction_set_is_given_or_refused_as_the_processor_has_it) {
  const CpuFeatures features = detect_cpu_features();
  for (IsaLevel level : built_isa_levels()) {
    auto backend = create_cpu_backend(with_isa(isa_name(level)));
    ASSERT_EQ(backend.has_value(), features.supports(level));
    if (backend) {
      EXPECT_EQ((*backend)->isa(), isa_name(level));
      continue;
    }
    EXPECT_EQ(backend.error().code(), ErrorCode::unsupported);
    EXPECT_EQ(backend.error().message(), std::string("--isa ") + isa_name(level) +
                                             ": this processor does not have it; the best here is " +
                                             isa_name(features.best()));
  }
  EXPECT_EQ(create_cpu_backend(with_isa("auto")).value()->isa(), isa_name(features.best()));
}

TEST(cpu_backend, the_description_names_instruction_set_and_threads) {
  BackendOptions options = with_isa("scalar");
  options.num_threads = 1;
  EXPECT_EQ(create_cpu_backend(options).value()->description(), "cpu scalar, 1 thread");
  options.num_threads = 2;
  EXPECT_EQ(create_cpu_backend(options).value()->description(), "cpu scalar, 2 threads");
  options.nodes = {{0, {0}}, {0, {0}}};
  EXPECT_EQ(create_cpu_backend(options).value()->description(), "cpu scalar, 2 threads on 2 memory nodes");
}

TEST(cpu_backend, memory_nodes_change_no_bit) {
  RandomWeights weights({{FormatId::q8_0, 1600}, {FormatId::f32, 40}}, 1024, kSeed);  // 1.7 MB: placed by parts
  for (int64_t rows : {1, 5, 40}) {
    GuardedMatrix x(rows, 1024);
    fill(x, 3);
    std::vector<std::vector<float>> seen;
    for (int nodes : {0, 2, 3}) {
      BackendOptions options;
      options.num_threads = 4;
      options.row_invariant = true;
      for (int i = 0; i < nodes; ++i) options.nodes.push_back({0, {0}});
      seen.push_back(product(*create_cpu_backend(options).value(), weights.views(), x));
    }
    EXPECT_EQ(seen[1], seen[0]);
    EXPECT_EQ(seen[2], seen[0]);
  }
}

int policy_of(const void* address) {
  int mode = -1;
  EXPECT_EQ(syscall(SYS_get_mempolicy, &mode, nullptr, 0, address, MPOL_F_ADDR), 0);
  return mode;
}

TEST(cpu_memory, the_parts_of_a_weight_come_from_the_nodes_that_read_them) {
  constexpr uint64_t kRun = 4096, kRuns = 1000;
  const std::vector<MemoryNode> here = {{0, {0}}, {0, {0}}}, missing = {{0, {0, 1, 2}}, {1000, {0}}};
  auto buffer = allocate_host(kRun * kRuns, "a test").value();
  auto* data = static_cast<uint8_t*>(buffer.data());
  EXPECT_TRUE(place_by_parts(data, kRuns, kRun, ThreadPool(4)));
  EXPECT_EQ(policy_of(data), MPOL_DEFAULT);  // one node: nothing is asked of the system
  if (!place_on_node(data, kRun, 0)) GTEST_SKIP() << "the system refuses to place memory";
  EXPECT_FALSE(place_by_parts(data, kRuns, kRun, ThreadPool(4, missing)));
  EXPECT_EQ(policy_of(data + 749 * kRun), MPOL_PREFERRED);  // three of four threads are on the node that is there
  EXPECT_EQ(policy_of(data + 750 * kRun), MPOL_DEFAULT);
  EXPECT_TRUE(place_by_parts(data, kRuns, kRun, ThreadPool(4, here)));
  EXPECT_EQ(policy_of(data + 999 * kRun), MPOL_PREFERRED);
  EXPECT_TRUE(place_in_turn(buffer, ThreadPool(2, here)));
  EXPECT_EQ(policy_of(data), MPOL_INTERLEAVE);
  auto small = allocate_host(1000, "a test").value();
  EXPECT_TRUE(place_in_turn(small, ThreadPool(2, missing)));  // of the heap: left alone
}

TEST(cpu_backend, weights_without_a_kernel_say_how_many_bytes_are_decoded) {
  PartCase half_blocks{FormatId::int_packed, 32};  // groups of 16: no whole block of a tile
  half_blocks.bits = 4;
  half_blocks.group = 16;
  for (Precision precision : {Precision::fast, Precision::reference}) {
    BackendOptions options;
    options.precision = precision;
    auto backend = create_cpu_backend(options).value();
    RandomWeights slow({half_blocks, {FormatId::q4_0, 16}}, 256, kSeed), quick({{FormatId::q4_0, 16}}, 256, kSeed);
    // Reference precision decodes everything, as asked: nothing to say.
    const uint64_t expected = precision == Precision::fast ? 32 * 256 / 2 : 0;
    EXPECT_EQ(backend->pack_weight(slow.views()).value().decoded_bytes, expected);
    EXPECT_EQ(backend->pack_weight(quick.views()).value().decoded_bytes, 0u);
  }
}

TEST(cpu_backend, embed_gives_the_bits_of_the_decoder_for_every_format) {
  for (Precision precision : {Precision::fast, Precision::reference}) {
    BackendOptions options;
    options.precision = precision;
    auto backend = create_cpu_backend(options).value();
    for (PartCase part : test::every_format(37)) {
      for (int64_t head : {0, 6}) {
        part.interleaved_head = head;
        part.rows = head == 0 ? 37 : 36;
        RandomWeights weights({part, {FormatId::q4_1, 3}, part}, 512, kSeed);
        const Weight packed = backend->pack_weight(weights.views()).value();
        ASSERT_EQ(packed.rows, 2 * part.rows + 3);
        std::vector<int32_t> ids;
        for (int64_t r = 0; r < packed.rows; ++r) ids.push_back(static_cast<int32_t>(packed.rows - 1 - r));
        GuardedMatrix out(packed.rows, 512);
        backend->embed(packed, ids, out.view());
        std::vector<float> want(512);
        int64_t first = 0;
        for (const WeightView& view : weights.views()) {
          for (int64_t r = 0; r < view.rows; ++r) {
            decode_row(view, r, want);
            // A negative zero of FP4 is a zero: integers have one.
            EXPECT_TRUE(std::equal(want.begin(), want.end(), out.view().row_f32(packed.rows - 1 - first - r)))
                << test::part_name(part) << ", row " << first + r;
          }
          first += view.rows;
        }
      }
    }
  }
}

TEST(cpu_backend, parts_of_different_widths_are_refused) {
  RandomWeights a({{FormatId::q8_0, 4}}, 64, kSeed), b({{FormatId::q8_0, 4}}, 96, kSeed);
  const WeightView parts[] = {a.views()[0], b.views()[0]};
  auto weight = every_backend()[0]->pack_weight(parts);
  ASSERT_FALSE(weight.has_value());
  EXPECT_EQ(weight.error().message(), "tensor part0: 96 columns beside 64");
}

TEST(cpu_backend, fp8_codes_that_are_not_numbers_are_refused) {
  for (Precision precision : {Precision::fast, Precision::reference}) {
    BackendOptions options;
    options.precision = precision;
    for (Fp8Scales scales : {Fp8Scales::tensor, Fp8Scales::row, Fp8Scales::block}) {
      for (int code : {0x7F, 0xFF}) {
        RandomWeights weights({{FormatId::bf16, 3}, {FormatId::fp8_e4m3, 40, scales}}, 130, kSeed);
        weights.codes(1)[33 * 130 + 129] = static_cast<std::byte>(code);
        auto weight = create_cpu_backend(options).value()->pack_weight(weights.views());
        ASSERT_FALSE(weight.has_value());
        EXPECT_EQ(weight.error().code(), ErrorCode::corrupt);
        EXPECT_EQ(weight.error().message(), "tensor part1: the FP8 code at row 33, column 129 is not a number");
      }
    }
  }
}

TEST(cpu_backend, every_code_of_the_small_floats_has_its_value) {
  for (auto& backend : every_backend()) {
    for (FormatId format : {FormatId::f16, FormatId::bf16, FormatId::fp8_e4m3}) {
      const int64_t rows = format == FormatId::fp8_e4m3 ? 256 : 65536;
      RandomWeights weights({{format, rows}}, 1, kSeed);
      WeightView view = weights.views()[0];
      const float one = 1.0f;
      view.scale.bytes = std::as_bytes(std::span(&one, 1));
      for (int64_t i = 0; i < rows; ++i) {
        const uint16_t code = static_cast<uint16_t>(format == FormatId::fp8_e4m3 && i % 128 == 127 ? 0 : i);
        std::memcpy(&weights.codes(0)[static_cast<size_t>(i) * (rows == 256 ? 1 : 2)], &code, rows == 256 ? 1 : 2);
      }
      GuardedMatrix x(1, 1);
      x.values()[0] = 1.0f;
      const std::vector<float> y = product(*backend, std::span(&view, 1), x);
      int wrong = 0;
      for (int64_t i = 0; i < rows; ++i) {
        float want = 0.0f;
        decode_row(view, i, std::span(&want, 1));
        const float got = y[static_cast<size_t>(i)];
        // Products in BF16 take what is below 2^-126 for zero.
        if (backend->product_arithmetic(view, 1) == Arithmetic::bf16 && std::fabs(want) < 0x1p-126f) want = 0.0f;
        wrong += !(got == want || (std::isnan(got) && std::isnan(want)));
      }
      EXPECT_EQ(wrong, 0) << backend->isa() << " " << weight_format(format).name;
    }
  }
}

// Values between, at and beside the codes of both 16-bit types, and the ends of their ranges.
TEST(cpu_backend, keys_and_values_are_rounded_as_the_conversions_define) {
  std::vector<float> values = {0.0f, -0.0f, kInfinity, -kInfinity, kNan, -kNan, 65504.0f, 65519.9f, 65520.0f, 1e6f,
                               -1e6f, 3.4e38f, 0x1p-24f, 0x1p-25f, 0x1.8p-25f, 0x1p-14f, 0x1.ffcp-15f, 0x1p-149f,
                               0x1p-126f, 0x1.fep127f, 0x1.ffp127f};
  for (uint32_t code = 0; code < 0x7C00; code += 61) {
    const float here = f16_to_f32(static_cast<uint16_t>(code)), next = f16_to_f32(static_cast<uint16_t>(code + 1));
    for (float v : {here, here + (next - here) / 2, std::nextafter(here + (next - here) / 2, kInfinity)}) values.push_back(v);
  }
  for (uint32_t bits = 0x7FFF; bits < 0x7F000000; bits += 0x10001 * 37) values.push_back(-std::bit_cast<float>(bits));
  auto backend = create_cpu_backend({}).value();
  for (KvDType type : {KvDType::bf16, KvDType::f16}) {
    const int32_t n = static_cast<int32_t>(values.size()), slot = 5;
    const size_t bytes = 32 * kv_token_bytes(type, n);
    std::vector<uint8_t> k(bytes), v(bytes);
    GuardedMatrix qkv(1, 3 * n);
    for (size_t i = 0; i < 3 * values.size(); ++i) qkv.values()[i] = values[i % values.size()];
    backend->store_kv(qkv.view(), 1, std::span(&slot, 1), {k.data(), v.data(), type, 1, 32, 1, n});
    const std::vector<double> keys = test::reference_load_kv(type, true, n, slot, k.data());
    const std::vector<double> stored = test::reference_load_kv(type, false, n, slot, v.data());
    int wrong = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      const float x = values[i];
      const double want = type == KvDType::bf16 ? bf16_to_f32(f32_to_bf16(x)) : f16_to_f32(f32_to_f16(x));
      wrong += !(keys[i] == want || (std::isnan(x) && std::isnan(keys[i])));
      wrong += !(stored[i] == keys[i] || std::isnan(x));
    }
    EXPECT_EQ(wrong, 0) << kv_type_name(type);
  }
}

TEST(cpu_backend, inputs_that_are_not_finite_reach_every_output_of_their_row_and_no_other) {
  for (auto& backend : every_backend()) {
    for (const PartCase& part : test::every_format(17)) {
      RandomWeights weights({part}, 512, kSeed);
      for (float bad : {kInfinity, -kInfinity, kNan}) {
        GuardedMatrix x(3, 512);
        fill(x, kSeed);
        const std::vector<float> good = product(*backend, weights.views(), x);
        x.view().row_f32(1)[300] = bad;
        const std::vector<float> y = product(*backend, weights.views(), x);
        for (size_t r = 0; r < 17; ++r) {
          EXPECT_EQ(y[r], good[r]);
          EXPECT_EQ(y[34 + r], good[34 + r]);
          EXPECT_FALSE(std::isfinite(y[17 + r])) << backend->isa() << " " << test::part_name(part) << " row " << r;
        }
      }
    }
  }
}

TEST(cpu_backend, inputs_near_zero_give_outputs_near_zero) {
  for (auto& backend : every_backend()) {
    for (float tiny : {0.0f, 0x1p-149f, 0x1p-126f, 0x1p-120f, 0x1p-118f}) {
      for (const PartCase& part : test::every_format(17)) {
        RandomWeights weights({part}, 256, kSeed);
        GuardedMatrix x(1, 256);
        for (size_t i = 0; i < 256; ++i) x.values()[i] = i % 3 == 0 ? tiny : -tiny;
        for (float y : product(*backend, weights.views(), x)) {
          EXPECT_LE(std::fabs(y), 0x1p-95f) << backend->isa() << " " << test::part_name(part) << " " << tiny;
        }
      }
    }
  }
}

class Fp8StaticActivations : public testing::Test {
 protected:
  Fp8StaticActivations() {
    options_.fp8_static_activations = true;
    fill(x_, kSeed);
  }
  // Rows of the product by plain loops: the inputs rounded by the scale of their part.
  void expect_rounded_inputs(const std::vector<PartCase>& parts) {
    RandomWeights weights(parts, 256, kSeed);
    auto plain = every_backend(), rounding = every_backend(options_);
    for (size_t i = 0; i < plain.size(); ++i) {
      const std::vector<float> y = product(*rounding[i], weights.views(), x_);
      const size_t rows = y.size() / 3;
      size_t first = 0;
      for (const WeightView& view : weights.views()) {
        GuardedMatrix rounded(3, 256);
        std::copy(x_.values().begin(), x_.values().end(), rounded.values().begin());
        if (view.activation_scale > 0.0f) {
          const std::vector<float> codes = test::e4m3_and_back(x_.values(), view.activation_scale);
          std::copy(codes.begin(), codes.end(), rounded.values().begin());
        }
        const std::vector<float> want = product(*plain[i], std::span(&view, 1), rounded);
        const size_t count = static_cast<size_t>(view.rows);
        for (size_t t = 0; t < 3; ++t) {
          EXPECT_EQ(std::memcmp(&y[t * rows + first], &want[t * count], count * 4), 0)
              << plain[i]->isa() << " part at row " << first << ", token " << t;
        }
        first += count;
      }
    }
  }
  BackendOptions options_;
  GuardedMatrix x_{3, 256};
};

// 0.01: outliers saturate at 448 * 0.01; 0x1p-6: all is rounded.
TEST_F(Fp8StaticActivations, each_linear_sees_inputs_rounded_by_its_own_scale) {
  for (Fp8Scales scales : {Fp8Scales::tensor, Fp8Scales::row, Fp8Scales::block}) {
    const PartCase a{FormatId::fp8_e4m3, 20, scales, 0, 0.01f}, b{FormatId::fp8_e4m3, 9, scales, 0, 0x1p-6f},
        none{FormatId::fp8_e4m3, 5, scales}, other{FormatId::q4_k, 6}, dense{FormatId::bf16, 3};
    expect_rounded_inputs({a});
    expect_rounded_inputs({a, b, none, other, dense, a});
  }
}

TEST_F(Fp8StaticActivations, inputs_that_are_codes_are_not_changed) {
  const std::vector<float> codes = test::e4m3_and_back(x_.values(), 0.25f);
  std::copy(codes.begin(), codes.end(), x_.values().begin());
  RandomWeights weights({{FormatId::fp8_e4m3, 20, Fp8Scales::row, 0, 0.25f}}, 256, kSeed);
  auto plain = every_backend(), rounding = every_backend(options_);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_EQ(product(*rounding[i], weights.views(), x_), product(*plain[i], weights.views(), x_));
  }
}

TEST_F(Fp8StaticActivations, the_option_off_leaves_the_inputs_alone) {
  RandomWeights with({{FormatId::fp8_e4m3, 20, Fp8Scales::row, 0, 0.01f}}, 256, kSeed),
      without({{FormatId::fp8_e4m3, 20, Fp8Scales::row}}, 256, kSeed);
  for (auto& backend : every_backend()) {
    EXPECT_EQ(product(*backend, with.views(), x_), product(*backend, without.views(), x_));
  }
}

TEST(cpu_backend, the_read_bandwidth_is_a_number_of_this_world) {
  const std::unique_ptr<ReadProbe> host = probe_host_reads(1, 0.01);
  ReadProbe& probe = *host;
  EXPECT_GE(probe.bytes(), uint64_t{256} << 20);
  const double gb = probe.read();
  EXPECT_GT(gb, 0.01);
  EXPECT_LE(gb, probe.best());
  EXPECT_LT(probe.best(), 1e5);
}

std::vector<const CpuKernels*> every_kernel_table() {
  std::vector<const CpuKernels*> tables = {&kScalarKernels, &kEmulatedAvx512Kernels};
#if defined(__x86_64__)
  if (detect_cpu_features().supports(IsaLevel::avx2)) tables.push_back(&kAvx2Kernels);
  if (detect_cpu_features().supports(IsaLevel::avx512)) tables.push_back(&kAvx512Kernels);
  if (detect_cpu_features().supports(IsaLevel::avx512_bf16)) tables.push_back(&kAvx512Bf16Kernels);
  if (detect_cpu_features().supports(IsaLevel::amx)) tables.push_back(&kAmxKernels);
#endif
  return tables;
}

TEST(cpu_backend, reading_lines_sees_every_byte_and_none_behind) {
  constexpr size_t kBytes = 1024;
  for (const CpuKernels* kernels : every_kernel_table()) {
    SCOPED_TRACE(kernels->name);
    for (int64_t ahead : {0, 512}) {
      std::vector<uint8_t> data(kBytes + 128, 1);
      std::fill(data.begin() + kBytes, data.end(), uint8_t{2});
      EXPECT_EQ(kernels->read_lines(data.data(), kBytes, ahead), 1);
      for (size_t i = 0; i < kBytes; i += 31) {
        data[i] = 4;
        EXPECT_EQ(kernels->read_lines(data.data(), kBytes, ahead), 5) << i;
        data[i] = 1;
      }
    }
  }
}

TEST(cpu_backend, the_peak_of_floats_does_the_operations_that_it_counts) {
  constexpr int64_t kSteps = 10;
  for (const CpuKernels* kernels : every_kernel_table()) {
    SCOPED_TRACE(kernels->name);
    float sink[16];
    for (int i = 0; i < 16; ++i) sink[i] = 0.5f + static_cast<float>(i);
    const double operations = kernels->peak(PeakUnit::float_fma, kSteps, sink);
    // 16 lanes that began at 0.5 + i and took 10 times 0.5 * 1.5.
    int sums = 0;
    while (sums < 16 && sink[sums] == 16 * (0.5f + static_cast<float>(sums) + 10 * 0.75f)) ++sums;
    EXPECT_GT(sums, 0);
    EXPECT_EQ(operations, static_cast<double>(kSteps * sums * 16 * 2));
    for (int i = sums; i < 16; ++i) EXPECT_EQ(sink[i], 0.5f + static_cast<float>(i));
  }
}

TEST(cpu_backend, peaks_grow_with_the_steps_and_are_numbers_of_this_world) {
  for (const CpuKernels* kernels : every_kernel_table()) {
    for (PeakUnit unit : {PeakUnit::float_fma, PeakUnit::int8_dot}) {
      float sink[16];
      auto operations = [&](int64_t steps) {
        for (int i = 0; i < 16; ++i) sink[i] = 0.5f + static_cast<float>(i);
        return kernels->peak(unit, steps, sink);
      };
      EXPECT_GT(operations(1), 0);
      EXPECT_EQ(operations(40), 40 * operations(1));
    }
  }
  for (auto& backend : every_backend()) {
    const MatrixPeak peak = backend->measure_matrix_peak(0.01);
    EXPECT_GT(peak.float_tflops, 1e-6);
    EXPECT_LT(peak.float_tflops, 1e5);
    EXPECT_GT(peak.int8_tops, 1e-6);
    EXPECT_LT(peak.int8_tops, 1e5);
  }
}

TEST(cpu_backend, integer_formats_multiply_integers_but_not_at_reference_precision) {
  BackendOptions reference;
  reference.precision = Precision::reference;
  const RandomWeights integers({{FormatId::q4_k, 16}, {FormatId::q8_0, 16}}, 256, kSeed);
  const RandomWeights floats({{FormatId::bf16, 16}, {FormatId::fp8_e4m3, 16}}, 256, kSeed);
  for (auto& backend : every_backend()) {
    for (const WeightView& view : integers.views()) EXPECT_EQ(backend->product_arithmetic(view, 1), Arithmetic::int8);
    const Arithmetic of_floats = backend->isa() == "avx512_bf16" ? Arithmetic::bf16 : Arithmetic::float32;
    for (const WeightView& view : floats.views()) EXPECT_EQ(backend->product_arithmetic(view, 1), of_floats);
  }
  for (auto& backend : every_backend(reference)) {
    for (const WeightView& view : integers.views()) EXPECT_EQ(backend->product_arithmetic(view, 512), Arithmetic::float32);
  }
}

// --- logits -------------------------------------------------------------------------------------------

std::vector<float> random_logits(int64_t n, uint64_t seed) {
  std::vector<float> x(static_cast<size_t>(n));
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = 60.0f * static_cast<float>(random_uniform(seed, 3, i) - 0.5);
    if (random_bits(seed, 4, i) % 7 == 0) x[i] = -kInfinity;
    if (random_bits(seed, 5, i) % 11 == 0) x[i] = -200.0f;  // far below e^-87 of the largest
  }
  return x;
}

size_t logit_groups(size_t n) { return (n + static_cast<size_t>(kLogitGroup) - 1) / static_cast<size_t>(kLogitGroup); }

TEST(logit_math, peaks_and_sums_are_those_of_the_slow_twin) {
  const auto reference = create_reference_backend();
  for (const auto& backend : every_backend()) {
    SCOPED_TRACE(backend->description());
    for (int64_t n : {1, 15, 16, 17, 255, 256, 257, 511, 1000, 49152}) {
      const std::vector<float> x = random_logits(n, static_cast<uint64_t>(n));
      const size_t groups = logit_groups(x.size());
      std::vector<float> peaks(groups), want_peaks(groups), sums(groups), want_sums(groups);
      EXPECT_TRUE(backend->logit_math().peaks(x.data(), n, peaks.data()));
      EXPECT_TRUE(reference->logit_math().peaks(x.data(), n, want_peaks.data()));
      EXPECT_EQ(peaks, want_peaks) << n;
      const float top = *std::max_element(peaks.begin(), peaks.end());
      if (top == -kInfinity) continue;
      for (float factor : {0.5f, 1.0f, 1.4f, 1e30f}) {
        backend->logit_math().exp_sums(x.data(), n, top, factor, sums.data());
        reference->logit_math().exp_sums(x.data(), n, top, factor, want_sums.data());
        for (size_t g = 0; g < groups; ++g) {
          // What is below e^-87 is left out.
          ASSERT_NEAR(sums[g], want_sums[g], 2e-6f * want_sums[g] + 1e-35f) << n << " " << factor << " group " << g;
        }
      }
    }
  }
}

TEST(logit_math, what_is_not_a_number_is_found_wherever_it_is) {
  for (const auto& backend : every_backend()) {
    SCOPED_TRACE(backend->description());
    std::vector<float> x(300, -kInfinity), peaks(logit_groups(x.size()));
    EXPECT_TRUE(backend->logit_math().peaks(x.data(), 300, peaks.data()));
    EXPECT_EQ(peaks, std::vector<float>(peaks.size(), -kInfinity));
    for (size_t i = 0; i < x.size(); ++i) {
      for (float fault : {kNan, kInfinity}) {
        x[i] = fault;
        EXPECT_FALSE(backend->logit_math().peaks(x.data(), 300, peaks.data())) << i << " " << fault;
      }
      x[i] = -1.0f;
    }
  }
}

TEST(logit_math, what_is_not_allowed_has_no_mass) {
  for (const auto& backend : every_backend()) {
    std::vector<float> x(512, -kInfinity), sums(2);
    x[400] = 3.0f;
    backend->logit_math().exp_sums(x.data(), 512, 3.0f, 1.0f, sums.data());
    EXPECT_EQ(sums, (std::vector<float>{0.0f, 1.0f})) << backend->description();
  }
}

}  // namespace
}  // namespace bise
