// Products through panels of BF16: by emulated AVX512-BF16 and AMX everywhere, and by the processor's where it has them.
#include "backend/cpu/cpu_panels.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cpu_features.h"
#include "base/float_types.h"
#include "base/random.h"
#include "support/emulated_amx.h"
#include "support/emulated_avx512.h"
#include "support/op_cases.h"
#include "support/temp_folder.h"

namespace bise {
namespace {

using test::GuardedMatrix;
using test::PartCase;
using test::RandomWeights;

constexpr uint64_t kSeed = 11;

std::vector<const CpuKernels*> panel_tables() {
  std::vector<const CpuKernels*> tables = {&kEmulatedBf16Kernels, &kEmulatedAmxKernels};
#if defined(__x86_64__)
  if (detect_cpu_features().supports(IsaLevel::avx512_bf16)) tables.push_back(&kAvx512Bf16Kernels);
  if (detect_cpu_features().supports(IsaLevel::amx)) tables.push_back(&kAmxKernels);
#endif
  return tables;
}
bool is_matrix_unit(const CpuKernels& kernels) { return kernels.panels->peak_int8 != nullptr; }

std::unique_ptr<Backend> backend_of(const CpuKernels& kernels, int num_threads = 2, bool row_invariant = false,
                                    Precision precision = Precision::fast) {
  BackendOptions options;
  options.num_threads = num_threads;
  options.row_invariant = row_invariant;
  options.precision = precision;
  return create_cpu_backend_with(kernels, options);
}

GuardedMatrix random_input(int64_t rows, int64_t columns) {
  GuardedMatrix x(rows, columns);
  for (size_t i = 0; i < x.values().size(); ++i) {
    x.values()[i] = static_cast<float>(2.0 * random_uniform(kSeed, 3, i) - 1.0);
  }
  return x;
}

std::vector<float> product(Backend& backend, std::span<const WeightView> parts, GuardedMatrix& x,
                           std::span<const float> initial = {}) {
  const Weight weight = backend.pack_weight(parts).value();
  GuardedMatrix y(x.view().rows, weight.rows);
  std::copy(initial.begin(), initial.end(), y.values().begin());
  backend.matmul(weight, x.view(), y.view(), !initial.empty());
  EXPECT_TRUE(backend.synchronize().has_value());
  EXPECT_TRUE(y.guards_hold() && x.guards_hold());
  EXPECT_FALSE(emulated_tiles_are_configured());
  return {y.values().begin(), y.values().end()};
}

std::vector<float> decoded(const WeightView& view) {
  std::vector<float> w(static_cast<size_t>(view.rows * view.columns));
  for (int64_t r = 0; r < view.rows; ++r) {
    decode_row(view, r, std::span(w).subspan(static_cast<size_t>(r * view.columns), static_cast<size_t>(view.columns)));
  }
  return w;
}

// Formats whose every weight is a BF16, but for a factor of the row.
bool is_exact_in_bf16(const PartCase& part) {
  switch (part.format) {
    case FormatId::bf16:
    case FormatId::mxfp4:
    case FormatId::mxfp8:
    case FormatId::mxfp4_gguf:
    case FormatId::nvfp4:
    case FormatId::nvfp4_gguf: return true;
    case FormatId::fp8_e4m3: return part.scales != test::Fp8Scales::block;
    default: return false;
  }
}

// Rows of x that are 1 at one column and 0 elsewhere give the weights back: no element is misplaced.
TEST(cpu_panels, every_weight_is_where_it_belongs_rounded_once) {
  constexpr int64_t kRows = 35, kColumns = 512;
  GuardedMatrix x(kColumns, kColumns);
  std::fill(x.values().begin(), x.values().end(), 0.0f);
  for (int64_t k = 0; k < kColumns; ++k) x.view().row_f32(k)[k] = 1.0f;
  for (const CpuKernels* kernels : panel_tables()) {
    auto backend = backend_of(*kernels);
    for (const PartCase& part : test::every_format(kRows)) {
      RandomWeights weights({part}, kColumns, kSeed);
      const WeightView& view = weights.views()[0];
      if (backend->product_arithmetic(view, kColumns) != Arithmetic::bf16) continue;
      const std::vector<float> w = decoded(view), y = product(*backend, weights.views(), x);
      const double minimum = weights.largest_minimum(0);
      int wrong = 0;
      for (size_t k = 0; k < kColumns; ++k) {
        for (size_t r = 0; r < kRows; ++r) {
          const double want = w[r * kColumns + k], got = y[k * kRows + r];
          // Half a unit of BF16, and a few roundings of the float32 before and of the row's factor behind.
          const double half_unit = is_exact_in_bf16(part) ? 0.0 : 0x1p-8 * std::fabs(want);
          wrong += std::fabs(got - want) > half_unit + 0x1p-22 * (std::fabs(want) + minimum) + 0x1p-126;
        }
      }
      EXPECT_EQ(wrong, 0) << kernels->name << " " << test::part_name(part);
    }
  }
}

// With u = 2^-8 half a unit of BF16 and e = 2^-24 that of float32: w and x are rounded once each, (1 + u)^2;
// a term takes part in 16 sums of a step and in one per step on AMX, in one per column without (Higham, 3.1); and a weight
// with a minimum is a difference of larger numbers before it is rounded.
std::vector<double> bounds_of(const CpuKernels& kernels, const WeightView& view, double minimum, MatrixView x) {
  constexpr double kHalfUnit = 0x1p-8, kRounding = 0x1p-24;
  const std::vector<float> w = decoded(view);
  const double sums = static_cast<double>(is_matrix_unit(kernels) ? steps_of(x.columns) + 18 : x.columns + 2);
  std::vector<double> bounds;
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t r = 0; r < view.rows; ++r) {
      double magnitude = 0.0, parts = 0.0;
      for (int64_t k = 0; k < x.columns; ++k) {
        const double absolute = std::fabs(double{w[static_cast<size_t>(r * x.columns + k)]}), input = std::fabs(double{x.row_f32(t)[k]});
        magnitude += absolute * input;
        parts += (absolute + 2.0 * minimum) * input;
      }
      bounds.push_back((2 * kHalfUnit + kHalfUnit * kHalfUnit) * magnitude + (sums + 8) * kRounding * 1.02 * parts + 1e-35);
    }
  }
  return bounds;
}

TEST(cpu_panels, products_of_odd_sizes_keep_within_the_bound_of_bf16) {
  constexpr int64_t kTokens[] = {16, 17, 31, 5, 48, 50, 12, 70}, kRows[] = {1, 15, 16, 17, 33, 50};
  size_t turn = 0;
  for (const CpuKernels* kernels : panel_tables()) {
    auto backend = backend_of(*kernels, 3);
    for (PartCase part : test::every_format(0)) {
      const WeightFormat& format = weight_format(part.format);
      const std::vector<int64_t> widths = format.block_bytes == 0       ? std::vector<int64_t>{128, 384, 896}
                                          : format.block_elements == 1  ? std::vector<int64_t>{1, 2, 31, 33, 129, 545}
                                          : format.block_elements == 32 ? std::vector<int64_t>{32, 96, 544}
                                                                        : std::vector<int64_t>{256, 768};
      for (int64_t columns : widths) {
        for (int i = 0; i < 2; ++i) {
          if (++turn % 3 != 0 && BISE_TEST_SHARE > 1) continue;
          part.rows = kRows[turn % 6];
          RandomWeights weights({part}, columns, kSeed);
          const WeightView& view = weights.views()[0];
          GuardedMatrix x = random_input(kTokens[turn % 8], columns);
          if (backend->product_arithmetic(view, x.view().rows) != Arithmetic::bf16) continue;
          const std::vector<double> bounds = bounds_of(*kernels, view, weights.largest_minimum(0), x.view());
          const std::vector<float> w = decoded(view);
          std::vector<float> initial(i == 0 ? 0 : bounds.size());
          for (size_t at = 0; at < initial.size(); ++at) initial[at] = static_cast<float>(at % 7) - 3.0f;
          const std::vector<float> y = product(*backend, weights.views(), x, initial);
          int wrong = 0;
          for (size_t at = 0; at < y.size(); ++at) {
            const size_t t = at / static_cast<size_t>(part.rows), r = at % static_cast<size_t>(part.rows);
            double want = initial.empty() ? 0.0 : double{initial[at]};
            const double rest = initial.empty() ? 0.0 : 0x1p-23 * (std::fabs(want) + std::fabs(double{y[at]}));
            for (int64_t k = 0; k < columns; ++k) {
              want += double{w[r * static_cast<size_t>(columns) + static_cast<size_t>(k)]} * x.view().row_f32(static_cast<int64_t>(t))[k];
            }
            wrong += std::fabs(y[at] - want) > bounds[at] + rest;
          }
          EXPECT_EQ(wrong, 0) << kernels->name << " " << test::part_name(part) << ", " << x.view().rows << " x "
                              << columns << " x " << part.rows;
        }
      }
    }
  }
}

// Integers that BF16 has, with sums that float32 has: nothing is rounded. Blocks of more than 16 tiles, more
// than one piece of columns, rows that are split among threads, and more rows than sums wait for.
TEST(cpu_panels, small_integers_are_multiplied_exactly_however_a_product_is_cut) {
  struct Size {
    int64_t tokens, columns, rows;
    int threads;
  };
  for (Size size : {Size{4, 544, 40, 2}, Size{6, 96, 17, 3}, Size{16, 33, 16, 1}, Size{70, 544, 33, 2}, Size{37, 512, 600, 2}, Size{100, 288, 16, 5},
                    Size{1100, 65, 17, 2}, Size{2100, 32, 40, 3}}) {
    std::vector<uint16_t> codes(static_cast<size_t>(size.rows * size.columns));
    for (size_t i = 0; i < codes.size(); ++i) codes[i] = f32_to_bf16(static_cast<float>(random_bits(kSeed, 1, i) % 129) - 64.0f);
    const WeightView view = make_weight_view(FormatId::bf16, size.rows, size.columns, std::as_bytes(std::span(codes)), "w").value();
    GuardedMatrix x(size.tokens, size.columns);
    for (size_t i = 0; i < x.values().size(); ++i) x.values()[i] = static_cast<float>(random_bits(kSeed, 2, i) % 33) - 16.0f;
    for (const CpuKernels* kernels : panel_tables()) {
      auto backend = backend_of(*kernels, size.threads);
      const std::vector<float> y = product(*backend, std::span(&view, 1), x);
      int wrong = 0;
      for (int64_t t = 0; t < size.tokens; ++t) {
        for (int64_t r = 0; r < size.rows; ++r) {
          float want = 0.0f;
          for (int64_t k = 0; k < size.columns; ++k) want += bf16_to_f32(codes[static_cast<size_t>(r * size.columns + k)]) * x.view().row_f32(t)[k];
          wrong += y[static_cast<size_t>(t * size.rows + r)] != want;
        }
      }
      EXPECT_EQ(wrong, 0) << kernels->name << " " << size.tokens << " x " << size.columns << " x " << size.rows;
    }
  }
}

std::vector<PartCase> some_formats() {
  PartCase affine{FormatId::mlx_affine, 33};
  affine.bits = 4;
  affine.group = 64;
  affine.scale_type = DType::bf16;
  return {{FormatId::bf16, 33}, {FormatId::f16, 20}, {FormatId::fp8_e4m3, 33, test::Fp8Scales::block},
          {FormatId::fp8_e4m3, 50, test::Fp8Scales::row}, {FormatId::q4_0, 18},
          {FormatId::q6_k, 5}, affine};
}

TEST(cpu_panels, few_rows_keep_the_bits_of_the_other_tables_and_many_go_to_the_matrix_unit) {
  auto plain = backend_of(kEmulatedAvx512Kernels);
  for (const CpuKernels* kernels : panel_tables()) {
    auto backend = backend_of(*kernels);
    for (const PartCase& part : some_formats()) {
      RandomWeights weights({part}, 512, kSeed);
      const TileFormat tiles = *tile_format_of(weights.views()[0]);
      const bool integer = tiles.integer, rounded = !integer && tiles.floats.codes == FloatCodes::f16;
      const int64_t threshold = integer                                           ? kernels->panels->int_rows
                                : rounded && !kernels->panels->rounds_weights ? kNoPanels
                                                                                  : kernels->panels->float_rows;
      const int64_t near = std::clamp<int64_t>(threshold, 2, 16);
      for (int64_t rows : {int64_t{1}, near - 1, near, int64_t{40}}) {
        GuardedMatrix x = random_input(rows, 512);
        const bool many = rows >= threshold;
        const Arithmetic few = integer ? Arithmetic::int8 : Arithmetic::float32;
        EXPECT_EQ(backend->product_arithmetic(weights.views()[0], rows), many ? Arithmetic::bf16 : few);
        EXPECT_EQ(plain->product_arithmetic(weights.views()[0], rows), few);
        EXPECT_EQ(product(*backend, weights.views(), x) == product(*plain, weights.views(), x), !many)
            << kernels->name << " " << test::part_name(part) << ", " << rows << " rows";
      }
    }
  }
}

TEST(cpu_panels, any_company_and_any_number_of_threads_give_a_row_the_same_bits) {
  for (const CpuKernels* kernels : panel_tables()) {
    auto backend = backend_of(*kernels, 2);
    for (const PartCase& part : some_formats()) {
      RandomWeights weights({part, {FormatId::q4_k, 40}, part}, 768, kSeed);
      constexpr int64_t kAll = 115;
      GuardedMatrix all = random_input(kAll, 768);
      const std::vector<float> y = product(*backend, weights.views(), all);
      const size_t width = y.size() / kAll;
      for (int threads : {1, 3, 7}) {
        auto other = backend_of(*kernels, threads);
        int64_t first = 0;
        const bool is_few = !is_matrix_unit(*kernels);
        for (int64_t rows : is_few ? std::vector<int64_t>{1, 2, 3, 4, 5, 6, 7, 8, 79} : std::vector<int64_t>{16, 17, 57}) {
          GuardedMatrix x(rows, 768);
          std::memcpy(x.values().data(), all.view().row_f32(first), x.values().size_bytes());
          const std::vector<float> some = product(*other, weights.views(), x);
          EXPECT_EQ(std::memcmp(some.data(), &y[static_cast<size_t>(first) * width], some.size() * sizeof(float)), 0)
              << kernels->name << " " << test::part_name(part) << ", " << rows << " rows from " << first;
          first += rows;
        }
      }
    }
  }
}

TEST(cpu_panels, a_row_invariant_backend_and_reference_precision_leave_the_matrix_unit_alone) {
  for (const CpuKernels* kernels : panel_tables()) {
    for (Precision precision : {Precision::fast, Precision::reference}) {
      auto plain = backend_of(kEmulatedAvx512Kernels, 2, false, precision);
      auto backend = backend_of(*kernels, 2, precision == Precision::fast, precision);
      for (const PartCase& part : some_formats()) {
        RandomWeights weights({part}, 512, kSeed);
        GuardedMatrix all = random_input(70, 512);
        const std::vector<float> y = product(*backend, weights.views(), all);
        EXPECT_EQ(y, product(*plain, weights.views(), all)) << test::part_name(part);
        EXPECT_NE(backend->product_arithmetic(weights.views()[0], 70), Arithmetic::bf16);
        for (int64_t rows : {1, 7, 8, 15, 16, 33}) {
          GuardedMatrix x(rows, 512);
          std::memcpy(x.values().data(), all.values().data(), x.values().size_bytes());
          const std::vector<float> some = product(*backend, weights.views(), x);
          EXPECT_EQ(std::memcmp(some.data(), y.data(), some.size() * sizeof(float)), 0) << test::part_name(part) << ", " << rows;
        }
      }
    }
    EXPECT_EQ(backend_of(*kernels, 1, true)->measure_matrix_peak(0.01).bf16_tflops, 0.0);
  }
}

TEST(cpu_panels, inputs_that_are_not_finite_reach_every_output_of_their_row_and_no_other) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const CpuKernels* kernels : panel_tables()) {
    auto backend = backend_of(*kernels);
    for (const PartCase& part : some_formats()) {
      RandomWeights weights({part}, 512, kSeed);
      const size_t width = static_cast<size_t>(part.rows);
      GuardedMatrix x = random_input(20, 512);
      const std::vector<float> good = product(*backend, weights.views(), x);
      for (float bad : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()}) {
        GuardedMatrix spoilt = random_input(20, 512);
        spoilt.view().row_f32(17)[300] = bad;
        const std::vector<float> y = product(*backend, weights.views(), spoilt);
        for (size_t i = 0; i < y.size(); ++i) {
          if (i / width == 17) EXPECT_FALSE(std::isfinite(y[i])) << kernels->name << " " << test::part_name(part) << " " << i;
          else EXPECT_EQ(y[i], good[i]);
        }
      }
    }
  }
}

// The inputs of each FP8 matrix go to codes of its own scale before they go to BF16, which has all codes
// of a scale that is a power of two: more rounding does not follow.
TEST(cpu_panels, each_fp8_linear_sees_inputs_rounded_by_its_own_static_scale) {
  BackendOptions options;
  options.num_threads = 2;
  options.fp8_static_activations = true;
  const PartCase a{FormatId::fp8_e4m3, 20, test::Fp8Scales::tensor, 0, 0x1p-4f}, b{FormatId::fp8_e4m3, 9, test::Fp8Scales::row, 0, 0x1p-9f},
      none{FormatId::bf16, 5};
  RandomWeights weights({a, none, b, a}, 256, kSeed);
  GuardedMatrix x = random_input(24, 256);
  for (const CpuKernels* kernels : panel_tables()) {
    auto rounding = create_cpu_backend_with(*kernels, options);
    auto plain = backend_of(*kernels);
    const std::vector<float> y = product(*rounding, weights.views(), x);
    size_t first = 0;
    for (const WeightView& view : weights.views()) {
      GuardedMatrix rounded = random_input(24, 256);
      if (view.activation_scale > 0.0f) {
        const std::vector<float> codes = test::e4m3_and_back(x.values(), view.activation_scale);
        std::copy(codes.begin(), codes.end(), rounded.values().begin());
      }
      const std::vector<float> want = product(*plain, std::span(&view, 1), rounded);
      const size_t count = static_cast<size_t>(view.rows), width = y.size() / 24;
      for (size_t t = 0; t < 24; ++t) {
        EXPECT_EQ(std::memcmp(&y[t * width + first], &want[t * count], count * sizeof(float)), 0) << "part at row " << first;
      }
      first += count;
    }
  }
}

// Streamed pieces give the bits of the weight in memory.
TEST(cpu_panels, a_streamed_weight_gives_the_bits_of_the_weight_in_memory) {
  constexpr int64_t kRows = 700, kColumns = 256;
  TempFolder folder;
  const std::string path = folder.at("codes");
  for (const CpuKernels* kernels : panel_tables()) {
    for (FormatId format : {FormatId::q4_k, FormatId::bf16}) {
      RandomWeights weights({{format, kRows}}, kColumns, kSeed);
      const Bytes codes = weights.views()[0].codes;
      std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(codes.data()), static_cast<std::streamsize>(codes.size()));
      GuardedMatrix x = random_input(37, kColumns);
      auto in_memory = backend_of(*kernels), streaming = backend_of(*kernels);
      const std::vector<float> want = product(*in_memory, weights.views(), x);
      WeightPlan plan;
      plan.files = {{path, codes}};
      plan.weights = {{weights.views(), WeightHome::streamed, 0}};
      plan.direct = plan.bounded = true;
      plan.ring_bytes = uint64_t{1} << 20;
      ASSERT_TRUE(streaming->plan_weights(std::move(plan)).has_value());
      const Weight weight = streaming->pack_weight(weights.views()).value();
      EXPECT_TRUE(weight.is_streamed);
      for (int round = 0; round < 2; ++round) {
        GuardedMatrix y(37, kRows);
        streaming->matmul(weight, x.view(), y.view());
        ASSERT_TRUE(streaming->synchronize().has_value());
        EXPECT_EQ(std::memcmp(y.values().data(), want.data(), y.values().size_bytes()), 0) << weight_format(format).name;
      }
    }
  }
}

// The limit is measured on the instructions that products use, and counted right.
TEST(cpu_panels, the_peaks_of_the_matrix_unit_do_the_operations_that_they_count) {
  for (const CpuKernels* kernels : panel_tables()) {
    float sink[16];
    auto fill = [&] { for (int i = 0; i < 16; ++i) sink[i] = 0.5f + static_cast<float>(i); };
    fill();
    constexpr int64_t kSteps = 6;
    double sum = 0.0;
    for (int i = 0; i < 16; ++i) sum += 2 * (0.5 + i);
    const MatrixPeak peak = backend_of(*kernels)->measure_matrix_peak(0.02);
    for (double rate : {peak.float_tflops, peak.int8_tops, peak.bf16_tflops}) {
      EXPECT_GT(rate, 1e-6);
      EXPECT_LT(rate, 1e5);
    }
    if (!is_matrix_unit(*kernels)) {
      // Sixteen sums that begin at one of the numbers in each lane; a step adds the products of pairs of all with one.
      EXPECT_EQ(kernels->panels->peak_bf16(kSteps, sink), kSteps * 16.0 * 32 * 2);
      for (int i = 0; i < 16; ++i) EXPECT_NEAR(sink[i], 16 * (0.5 + i) + kSteps * sum * 0.5 * 0x1p-20, 1e-4) << i;
      EXPECT_EQ(peak.matrix_int8_tops, 0.0);
      continue;
    }
    EXPECT_EQ(kernels->panels->peak_bf16(kSteps, sink), kSteps * 4.0 * 16 * 16 * 32 * 2);
    // Row 0 of x is the 16 numbers in pairs; so is every pair of columns of the weights.
    for (int i = 0; i < 16; ++i) EXPECT_NEAR(sink[i], kSteps * sum * (0.5 + i) * 0x1p-20, 1e-6) << i;
    fill();
    EXPECT_EQ(kernels->panels->peak_int8(kSteps, sink), kSteps * 4.0 * 16 * 16 * 64 * 2);
    double squares = 0.0;  // byte k of row 0 is k % 16, that of column n 4 n + k % 4
    for (int k = 0; k < 64; ++k) squares += (k % 16) * (k % 4);
    EXPECT_EQ(sink[0], kSteps * squares);
    EXPECT_GT(peak.matrix_int8_tops, 1e-6);
    EXPECT_LT(peak.matrix_int8_tops, 1e5);
  }
}

// What the emulation says of the instructions is what this processor does.
TEST(cpu_panels, the_processor_has_the_bits_of_the_emulation) {
  const auto tables = panel_tables();
  if (tables.size() < 3) GTEST_SKIP() << "this processor has neither AVX512-BF16 nor AMX";
  for (size_t i = 2; i < tables.size(); ++i) {
    auto emulated = backend_of(*tables[i - 2]), real = backend_of(*tables[i]);
    for (const PartCase& part : test::every_format(50)) {
      RandomWeights weights({part}, 768, kSeed);
      GuardedMatrix x = random_input(70, 768);
      EXPECT_EQ(product(*real, weights.views(), x), product(*emulated, weights.views(), x)) << tables[i]->name << " " << test::part_name(part);
    }
  }
}

}  // namespace
}  // namespace bise
