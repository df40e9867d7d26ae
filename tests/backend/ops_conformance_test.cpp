// Every op of the CPU backend, on every instruction set of this machine and on emulated AVX-512,
// against the plain loops of the reference backend; and against itself: other instruction sets,
// other batches, other numbers of threads give the same bits.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/cpu_features.h"
#include "support/emulated_amx.h"
#include "support/emulated_avx512.h"
#include "support/op_cases.h"
#include "support/op_checks.h"
#include "support/reference_backend.h"

namespace bise {
namespace {

using test::cases_for;
using test::differences;
using test::every_op;
using test::Op;
using test::OpAt;
using test::OpCase;
using test::OpRun;
using test::same_bits;

constexpr uint64_t kSeed = 20260101;
constexpr char kEmulated[] = "avx512 (emulated)";

std::unique_ptr<Backend> make_backend(const std::string& isa, Precision precision, int num_threads = 2, bool row_invariant = true) {
  BackendOptions options;
  options.num_threads = num_threads;
  options.precision = precision;
  options.row_invariant = row_invariant;  // products in BF16 have tests of their own (cpu_panels_test)
  if (isa == kEmulated) return create_cpu_backend_with(kEmulatedAvx512Kernels, options);
  options.isa = isa;
  return create_cpu_backend(options).value();
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (IsaLevel level : built_isa_levels()) {
    if (detect_cpu_features().supports(level)) names.push_back(isa_name(level));
  }
  names.push_back(kEmulated);
  return names;
}

std::vector<std::unique_ptr<Backend>> every_backend(Precision precision) {
  std::vector<std::unique_ptr<Backend>> backends;
  for (const std::string& isa : instruction_sets()) backends.push_back(make_backend(isa, precision));
  return backends;
}

class ops : public testing::TestWithParam<OpAt> {};

TEST_P(ops, keep_within_their_error_bounds_with_the_same_bits_on_every_instruction_set) {
  const auto [op, precision] = GetParam();
  auto reference = create_reference_backend();
  auto backends = every_backend(precision);
  int num_cases = 0;
  for (const OpCase& c : cases_for(precision)) {
    if (c.op != op) continue;
    ++num_cases;
    OpRun expected(*reference, c, kSeed);
    expected.run();
    const std::vector<double> bounds = expected.error_bounds(precision);
    std::vector<float> first;
    for (auto& backend : backends) {
      SCOPED_TRACE(test::case_name(c) + ", " + backend->isa() + ", seed " + std::to_string(kSeed));
      OpRun run(*backend, c, kSeed);
      run.run();
      EXPECT_EQ(differences(run.output(), expected.output(), bounds), "");
      EXPECT_TRUE(run.guards_hold());
      EXPECT_EQ(run.keys(), expected.keys());
      EXPECT_EQ(run.values(), expected.values());
      if (first.empty()) first.assign(run.output().begin(), run.output().end());
      EXPECT_TRUE(same_bits(run.output(), first)) << "not the bits of the scalar kernels";
    }
  }
  EXPECT_GT(num_cases, 0);
}

INSTANTIATE_TEST_SUITE_P(table, ops, testing::ValuesIn(every_op()),
                         [](const auto& test) { return testing::PrintToString(test.param); });

// Inputs that went through 8 bits before: what remains is the rounding of float sums.
TEST(ops_products, of_quantized_inputs_are_exact_but_for_rounding) {
  auto reference = create_reference_backend();
  auto backends = every_backend(Precision::fast);
  for (const OpCase& c : cases_for(Precision::fast)) {
    if (c.op != Op::matmul || c.parts.size() != 1) continue;
    OpRun expected(*reference, c, kSeed);
    if (!expected.has_integer_products()) continue;
    const std::vector<float> rounded = test::quantized_and_back(expected.input());
    for (size_t i = 0; i < rounded.size(); i += 32) {
      float largest = 0.0f;
      for (size_t k = i; k < i + 32; ++k) largest = std::max(largest, std::fabs(expected.input()[k]));
      for (size_t k = i; k < i + 32; ++k) {
        ASSERT_LE(std::fabs(rounded[k] - expected.input()[k]), largest / 254.0f * 1.0001f);
      }
    }
    std::copy(rounded.begin(), rounded.end(), expected.input().begin());
    expected.run();
    const std::vector<double> bounds = expected.error_bounds(Precision::fast, true);
    for (auto& backend : backends) {
      OpRun run(*backend, c, kSeed);
      run.run();
      EXPECT_EQ(differences(run.output(), expected.output(), bounds), "") << test::case_name(c) << ", " << backend->isa();
    }
  }
}

TEST(ops_batches, a_row_alone_has_the_bits_of_the_row_in_a_batch) {
  for (Precision precision : {Precision::fast, Precision::reference}) {
    for (const OpCase& table_case : cases_for(precision)) {
      if (!test::is_row_wise(table_case.op)) continue;
      if (table_case.columns > 2000 && table_case.op != Op::matmul) continue;
      OpCase c = table_case;
      c.tokens = 33;
      std::unique_ptr<Backend> backends[] = {make_backend("auto", precision, 1), make_backend("auto", precision, 2),
                                             make_backend("auto", precision, 3)};
      OpRun all(*backends[1], c, kSeed);
      all.run();
      const size_t width = all.output().size() / 33;
      int64_t first = 0;
      for (int64_t tokens : {1, 2, 3, 4, 8, 15}) {
        OpRun some(*backends[first % 3], c, kSeed, first, tokens);
        some.run();
        EXPECT_TRUE(same_bits(some.output(), all.output().subspan(static_cast<size_t>(first) * width, some.output().size())))
            << test::case_name(c) << ", tokens " << first << " to " << first + tokens;
        first += tokens;
      }
    }
  }
}

// Queries and the weights of values in BF16 or 8 bits, where the processor multiplies that; emulated everywhere.
void expect_narrow_attention(const CpuKernels& emulated, const CpuKernels* real) {
  auto reference = create_reference_backend();
  BackendOptions options;
  options.num_threads = 2;
  std::vector<std::unique_ptr<Backend>> backends;
  backends.push_back(create_cpu_backend_with(emulated, options));
  if (real) backends.push_back(create_cpu_backend_with(*real, options));
  auto scalar = make_backend("scalar", Precision::fast);
  int num_cases = 0, num_int8 = 0, num_other = 0;
  for (const OpCase& c : test::op_cases()) {
    if (c.op != Op::attention || (c.kv != KvDType::bf16 && c.kv != KvDType::fp8 && c.kv != KvDType::int8)) continue;
    ++num_cases;
    num_int8 += c.kv == KvDType::int8;
    OpRun expected(*reference, c, kSeed), plain(*scalar, c, kSeed);
    expected.run();
    plain.run();
    const std::vector<double> bounds = expected.error_bounds(Precision::fast, false, true);
    std::vector<float> first;
    for (auto& backend : backends) {
      SCOPED_TRACE(test::case_name(c) + ", " + backend->isa());
      OpRun run(*backend, c, kSeed);
      run.run();
      EXPECT_EQ(differences(run.output(), expected.output(), bounds), "");
      EXPECT_TRUE(run.guards_hold());
      num_other += !same_bits(run.output(), plain.output());
      if (first.empty()) first.assign(run.output().begin(), run.output().end());
      EXPECT_TRUE(same_bits(run.output(), first)) << "not the bits of the emulation";
    }
  }
  EXPECT_GT(num_cases, 5);
  EXPECT_GT(num_int8, 2);
  EXPECT_GT(num_other, 5);  // it is another arithmetic
}
#if defined(__x86_64__)
const CpuKernels* if_supported(IsaLevel level, const CpuKernels* kernels) {
  return detect_cpu_features().supports(level) ? kernels : nullptr;
}
const CpuKernels* const kBf16 = if_supported(IsaLevel::avx512_bf16, &kAvx512Bf16Kernels);
const CpuKernels* const kAmx = if_supported(IsaLevel::amx, &kAmxKernels);
#else
constexpr const CpuKernels *kBf16 = nullptr, *kAmx = nullptr;
#endif

TEST(ops_attention, in_few_bits_keeps_within_its_bound_and_the_processor_has_the_bits_of_the_emulation) {
  expect_narrow_attention(kEmulatedBf16Kernels, kBf16);
}
TEST(ops_attention, on_amx_keeps_within_its_bound_and_the_processor_has_the_bits_of_the_emulation) {
  expect_narrow_attention(kEmulatedAmxKernels, kAmx);
}

// Sixteen queries are multiplied at once: those of other rows, of other chunks and of none stand beside each.
TEST(ops_attention, on_amx_gives_a_row_the_same_bits_in_chunks_and_in_any_company) {
  BackendOptions options;
  options.num_threads = 2;
  auto backend = create_cpu_backend_with(kEmulatedAmxKernels, options);
  for (KvDType kv : {KvDType::bf16, KvDType::fp8, KvDType::int8}) {
    for (int32_t window : {0, 50}) {
      OpCase c{.op = Op::attention, .num_heads = 6, .num_kv_heads = 2, .head_dim = 64, .sliding_window = window, .kv = kv};
      c.sequences = {{0, 70, 70}, {1, 130, 30}};
      OpRun all(*backend, c, kSeed);
      all.run();
      const size_t width = 6 * 64;
      for (int32_t rows : {1, 5, 23}) {
        for (int32_t id : {0, 1}) {
          const test::SequenceCase& whole = c.sequences[static_cast<size_t>(id)];
          OpCase one = c;
          one.sequences = {{id, whole.num_tokens - 2, rows}};
          OpRun chunk(*backend, one, kSeed);
          chunk.run();
          const size_t row = static_cast<size_t>((id == 0 ? 0 : 70) + whole.num_rows - 2 - rows);
          EXPECT_TRUE(same_bits(chunk.output(), all.output().subspan(row * width, chunk.output().size())))
              << kv_type_name(kv) << ", window " << window << ", sequence " << id << ", " << rows << " rows";
        }
      }
    }
  }
}

class attention_in_company : public testing::TestWithParam<bool> {};

TEST_P(attention_in_company, has_the_same_bits_in_chunks_and_in_any_company) {
  const bool row_invariant = GetParam();
  for (KvDType kv : {KvDType::bf16, KvDType::f32, KvDType::fp8, KvDType::int8, KvDType::int4}) {
    for (int32_t window : {0, 20, 1100}) {
      OpCase c{.op = Op::attention, .num_heads = 6, .num_kv_heads = 2, .head_dim = 36, .sliding_window = window, .kv = kv};
      c.sequences = {{0, 100, 100}, {1, 1333, 333}, {2, 64, 64}};
      auto backend = make_backend("auto", Precision::fast, 3, row_invariant);
      OpRun all(*backend, c, kSeed);
      all.run();
      const size_t width = 6 * 36;
      for (int threads : {1, 2, 3}) {
        auto other = make_backend("auto", Precision::fast, threads, row_invariant);
        for (int32_t rows : {1, 2, 17, 33, 64}) {
          for (int32_t id : {0, 1, 2}) {
            const test::SequenceCase& whole = c.sequences[static_cast<size_t>(id)];
            OpCase one = c;
            const int32_t end = whole.num_tokens - threads;  // a chunk in the middle
            const int32_t count = std::min(rows, whole.num_rows - threads);
            one.sequences = {{id, end, count}};
            OpRun chunk(*other, one, kSeed);
            chunk.run();
            const int32_t row = (id == 0 ? 0 : id == 1 ? 100 : 433) + whole.num_rows - threads - count;
            EXPECT_TRUE(same_bits(chunk.output(), all.output().subspan(static_cast<size_t>(row) * width, chunk.output().size())))
                << kv_type_name(kv) << ", sequence " << id << ", " << count << " rows to " << end << ", " << threads << " threads";
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(arithmetic, attention_in_company, testing::Bool(),
                         [](const auto& test) { return test.param ? "row_invariant" : "fast"; });

TEST(ops_batches, any_number_of_threads_gives_the_same_bits) {
  auto one = make_backend("auto", Precision::fast, 1), two = make_backend("auto", Precision::fast, 2),
       three = make_backend("auto", Precision::fast, 3);
  for (const OpCase& c : test::op_cases()) {
    OpRun a(*one, c, kSeed), b(*two, c, kSeed), d(*three, c, kSeed);
    a.run();
    b.run();
    d.run();
    EXPECT_TRUE(same_bits(a.output(), b.output()) && same_bits(a.output(), d.output())) << test::case_name(c);
  }
}

}  // namespace
}  // namespace bise
