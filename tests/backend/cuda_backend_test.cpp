// Every op of the CUDA backend against the plain loops of the reference backend: on the emulated GPU, or on the
// machine's own where the program is built for it.
#include "backend/cuda/cuda_backend.h"

#include <gtest/gtest.h>

#include <functional>

#include "backend/cuda/cuda_kernels.h"
#include "backend/cuda/gpu_attention.h"
#include "backend/cuda/gpu_weight.h"
#include "backend/cuda/linear_plan.h"
#include "base/float_types.h"
#include "support/device_failures.h"
#include "support/op_cases.h"
#include "support/op_checks.h"
#include "support/reference_backend.h"

namespace bise {
namespace {

using test::differences;
using test::Op;
using test::OpCase;
using test::OpRun;
using test::same_bits;

constexpr uint64_t kSeed = 20261123;

std::unique_ptr<Backend> make_gpu(Precision precision) {
  auto backend = make_cuda_backend({.num_threads = 2, .precision = precision});
  return backend ? std::move(*backend) : nullptr;
}
#define BISE_NEED(gpu) \
  if (gpu == nullptr) GTEST_SKIP() << make_cuda_backend({}).error().message()

class cuda_ops : public testing::TestWithParam<test::OpAt> {};

TEST_P(cuda_ops, keep_within_their_error_bounds) {
  const auto [op, precision] = GetParam();
  const bool is_fast = precision == Precision::fast;
  auto reference = create_reference_backend();
  auto gpu = make_gpu(precision);
  BISE_NEED(gpu);
  int num_cases = 0;
  for (const OpCase& c : test::cases_for(precision)) {
    if (c.op != op) continue;
    ++num_cases;
    SCOPED_TRACE(test::case_name(c) + ", seed " + std::to_string(kSeed));
    OpRun expected(*reference, c, kSeed), run(*gpu, c, kSeed);
    if (op == Op::matmul && is_fast) {  // which rounds its inputs to BF16: then nothing else is rounded but sums
      for (OpRun* r : {&expected, &run}) {
        for (float& x : r->input()) x = round_to_bf16(x);
      }
    }
    expected.run();
    run.run();
    EXPECT_EQ(differences(run.output(), expected.output(), expected.error_bounds(precision, true, is_fast)), "");
    EXPECT_TRUE(run.guards_hold());
    EXPECT_EQ(run.keys(), expected.keys());
    EXPECT_EQ(run.values(), expected.values());
  }
  EXPECT_GT(num_cases, 0);
}

INSTANTIATE_TEST_SUITE_P(table, cuda_ops, testing::ValuesIn(test::every_op()),
                         [](const auto& test) { return testing::PrintToString(test.param); });

TEST(cuda_batches, a_row_alone_has_the_bits_of_the_row_in_a_batch) {
  auto gpu = make_gpu(Precision::fast);
  BISE_NEED(gpu);
  for (const OpCase& table_case : test::cases_for(Precision::fast)) {
    if (!test::is_row_wise(table_case.op) || table_case.columns > 2000) continue;
    OpCase c = table_case;
    c.tokens = 33;
    OpRun all(*gpu, c, kSeed);
    all.run();
    const size_t width = all.output().size() / 33;
    int64_t first = 0;
    for (int64_t tokens : {1, 2, 9, 17}) {
      OpRun some(*gpu, c, kSeed, first, tokens);
      some.run();
      EXPECT_TRUE(
          same_bits(some.output(), all.output().subspan(static_cast<size_t>(first) * width, some.output().size())))
          << test::case_name(c) << ", tokens " << first << " to " << first + tokens;
      first += tokens;
    }
  }
}

// Alone few items are there and segments go to warps of their own; in company one warp joins its own.
TEST(cuda_attention, has_the_same_bits_in_chunks_and_in_any_company) {
  auto gpu = make_gpu(Precision::fast);
  BISE_NEED(gpu);
  for (KvDType kv : {KvDType::bf16, KvDType::f32, KvDType::fp8, KvDType::int8, KvDType::int4}) {
    for (int32_t window : {0, 300}) {
      OpCase c{
          .op = Op::attention, .num_heads = 6, .num_kv_heads = 2, .head_dim = 36, .sliding_window = window, .kv = kv};
      c.sequences = {{0, 100, 100}, {1, 733, 33}, {2, 64, 64}};
      OpRun all(*gpu, c, kSeed);
      all.run();
      const size_t width = 6 * 36;
      for (int32_t rows : {1, 2, 17}) {
        for (int32_t id : {0, 1, 2}) {
          const test::SequenceCase& whole = c.sequences[static_cast<size_t>(id)];
          OpCase one = c;
          one.sequences = {{id, whole.num_tokens - 3, rows}};
          OpRun chunk(*gpu, one, kSeed);
          chunk.run();
          const int32_t row = (id == 0 ? 0 : id == 1 ? 100 : 133) + whole.num_rows - 3 - rows;
          EXPECT_TRUE(
              same_bits(chunk.output(), all.output().subspan(static_cast<size_t>(row) * width, chunk.output().size())))
              << kv_type_name(kv) << ", window " << window << ", sequence " << id << ", " << rows << " rows";
        }
      }
    }
  }
}

TEST(cuda_attention, takes_segments_apart_where_there_are_few_items) {
  const gpu::AttentionSequence sequences[] = {{0, 1, 700, 0}, {1, 2, 30, 22}};
  const gpu::AttentionPlan whole = gpu::plan_attention(sequences, 2, 12, 0, true, 1);
  EXPECT_EQ(whole.items.size(), 6u);  // 12 and 24 queries, 16 to a warp, of two KV heads
  EXPECT_TRUE(whole.joins.empty());
  const gpu::AttentionPlan apart = gpu::plan_attention(sequences, 2, 12, 0, true, 100);
  EXPECT_EQ(apart.items.size(), 2u * 3 + 4);
  ASSERT_EQ(apart.joins.size(), 2u);
  EXPECT_EQ(apart.joins[0].count, 3);
  EXPECT_EQ(apart.num_partials, 6);
  // A window that begins in the last segment leaves one.
  const gpu::AttentionPlan window = gpu::plan_attention(std::span(sequences, 1), 2, 12, 100, true, 100);
  ASSERT_EQ(window.items.size(), 2u);
  EXPECT_EQ(window.items[0].first_segment, 2);
}

TEST(cuda_queue, replays_what_comes_again) {
  if (const auto gpu = make_cuda_backend({}); !gpu) GTEST_SKIP() << gpu.error().message();
  constexpr int64_t kColumns = 40;
  gpu::Queue queue(gpu::create_stream().value());
  const Buffer x = gpu::allocate_device(kColumns * sizeof(float), "numbers").value(),
               bias = gpu::allocate_device(kColumns * sizeof(float), "numbers").value();
  const std::vector<float> ones(kColumns, 1.0f);
  gpu::copy_to_device(queue.stream(), bias.data(), ones.data(), ones.size() * sizeof(float));
  auto step = [&](int64_t columns, int launches) {
    for (int i = 0; i < launches; ++i) {
      gpu::launch_bias(queue, {static_cast<float*>(x.data()), static_cast<const float*>(bias.data()), 1, columns});
    }
    ASSERT_TRUE(queue.flush().has_value());
    ASSERT_TRUE(gpu::synchronize(queue.stream()).has_value());
  };
  auto numbers = [&] {
    std::vector<float> values(kColumns);
    gpu::copy_to_host(queue.stream(), values.data(), x.data(), values.size() * sizeof(float));
    EXPECT_TRUE(gpu::synchronize(queue.stream()).has_value());
    return values;
  };
  for (int i = 0; i < 3; ++i) step(kColumns, 9);
  EXPECT_EQ(queue.num_replays(), 2);  // the first is not known yet
  EXPECT_EQ(numbers(), std::vector<float>(kColumns, 27.0f));
  step(kColumns - 1, 9);  // other arguments
  step(kColumns, 9);
  EXPECT_EQ(queue.num_replays(), 3);
  std::vector<float> want(kColumns, 45.0f);
  want.back() = 36.0f;
  EXPECT_EQ(numbers(), want);
  for (int i = 0; i < 3; ++i) step(kColumns, 2);  // too few to be worth it
  EXPECT_EQ(queue.num_replays(), 3);
  for (int64_t columns = 1; columns < kColumns; ++columns) {  // more graphs than are kept
    for (int i = 0; i < 2; ++i) step(columns, 8);
  }
  EXPECT_EQ(queue.num_replays(), 3 + kColumns - 1);
  step(kColumns, 9);  // is forgotten by now
  EXPECT_EQ(queue.num_replays(), 3 + kColumns - 1);
}

// However a product is shared out over blocks and tokens: rows that fill no tile, ranges that begin inside a group of
// scales and end inside a stage.
TEST(cuda_products, have_the_same_bits_however_they_are_shared_out) {
  auto gpu = make_gpu(Precision::fast);
  BISE_NEED(gpu);
  constexpr int64_t kRows = 275, kColumns = 1408, kTokens = 19;
  gpu::Queue queue(gpu::create_stream().value());
  std::vector<float> numbers;
  for (int64_t i = 0; i < kTokens * kColumns; ++i) numbers.push_back(static_cast<float>(i * 37 % 101) / 50.0f - 1.0f);
  const Buffer x = gpu->upload(numbers).value(), y = gpu->upload(std::vector<float>(kTokens * kRows)).value();
  const Buffer rounded = gpu->allocate(kTokens * kColumns * 2, "inputs").value(),
               sums = gpu->allocate(kTokens * kColumns / 16 * 4, "sums").value();
  const MatrixView product{y.data(), kTokens, kRows};
  const test::PartCase parts[] = {
      {.format = FormatId::q4_0, .rows = kRows},
      {.format = FormatId::q4_k, .rows = kRows},
      {.format = FormatId::nvfp4, .rows = kRows},
      {.format = FormatId::bf16, .rows = kRows},
      {.format = FormatId::int_packed, .rows = kRows, .bits = 4, .group = 128, .has_zero = true},
      {.format = FormatId::int_packed, .rows = kRows, .bits = 8, .group = 64},
  };
  for (const test::PartCase& part : parts) {
    const int64_t columns = part.format == FormatId::q4_k ? 1280 : kColumns;
    gpu::launch_input(queue, {static_cast<const float*>(x.data()), kTokens, columns, 0.0f, 1, columns,
                              static_cast<uint16_t*>(rounded.data()), static_cast<float*>(sums.data())});
    const test::RandomWeights weights({part}, columns, kSeed);
    const Weight weight = gpu->pack_weight(weights.views()).value();
    gpu::LinearArgs a;
    a.w = static_cast<const gpu::GpuWeight&>(*weight.storage).tiled_rows(0);
    a.padded = columns;
    a.x = static_cast<const uint16_t*>(rounded.data());
    a.x_sums = static_cast<const float*>(sums.data());
    a.tokens = kTokens;
    a.y = static_cast<float*>(y.data());
    a.y_columns = kRows;
    std::vector<float> expected;
    for (int32_t n_tiles : {8, 4, 2, 1}) {
      for (int32_t splits : {1, 2, 4, 8}) {
        gpu::LinearPlan plan = gpu::plan_linear(kRows, kTokens, 1);
        plan.n_tiles = n_tiles;
        plan.token_blocks = (kTokens + 8 * n_tiles - 1) / (8 * n_tiles);
        plan.splits = splits;
        const Buffer partials = gpu->allocate(plan.partial_bytes() + 4, "parts").value(),
                     arrivals = gpu->allocate(plan.arrival_bytes() + 4, "parts").value();
        for (int again = 0; again < 2; ++again) {  // the counters are left as they were found
          ASSERT_TRUE(gpu->write(std::vector<float>(kTokens * kRows, 7.0f), product).has_value());
          ASSERT_TRUE(gpu::launch_linear(queue, a, plan, static_cast<float*>(partials.data()),
                                         static_cast<uint32_t*>(arrivals.data())));
          ASSERT_TRUE(queue.flush().has_value() && gpu::synchronize(queue.stream()).has_value());
          const std::span<const float> got = gpu->on_host(product).value();
          if (expected.empty()) expected.assign(got.begin(), got.end());
          EXPECT_TRUE(same_bits(got, expected))
              << describe_format(weights.views()[0]) << ' ' << n_tiles << " tiles, " << splits << " splits";
        }
      }
    }
  }
}

TEST(cuda_products, of_what_the_op_before_wrote_are_those_of_its_numbers) {
  auto gpu = make_gpu(Precision::fast);
  BISE_NEED(gpu);
  constexpr int64_t kRows = 20, kColumns = 70, kTokens = 3;
  const test::RandomWeights weights({{FormatId::bf16, kRows}}, kColumns, kSeed);
  const Weight weight = gpu->pack_weight(weights.views()).value();
  std::vector<float> numbers;
  for (int64_t i = 0; i < kTokens * 2 * kColumns; ++i)
    numbers.push_back(static_cast<float>(i * 29 % 67) / 20.0f - 1.5f);
  const std::span<const float> first = std::span<const float>(numbers).first(kColumns);
  const Buffer x = gpu->upload(numbers).value(), scale = gpu->upload(first).value(), n = gpu->upload(numbers).value(),
               y = gpu->upload(numbers).value();
  const MatrixView narrow{x.data(), kTokens, kColumns}, wide{x.data(), kTokens, 2 * kColumns},
      written{n.data(), kTokens, kColumns}, product{y.data(), kTokens, kRows};
  auto copy = [&](MatrixView m) {
    const std::span<const float> got = gpu->on_host(m).value();
    return std::vector<float>(got.begin(), got.end());
  };
  const std::pair<const char*, std::function<void()>> ops[] = {
      {"norm", [&] { gpu->rms_norm(narrow, scale, 1e-5f, written); }},
      {"gated", [&] { gpu->gated_activation(wide, Activation::silu, written); }},
      {"norm and bias", [&] {
         gpu->rms_norm(narrow, scale, 1e-5f, written);
         gpu->add_bias(written, scale);
       }}};
  for (const auto& [name, op] : ops) {
    op();
    gpu->matmul(weight, written, product);
    const std::vector<float> at_once = copy(product), values = copy(written);
    ASSERT_TRUE(gpu->write(values, written).has_value());
    gpu->matmul(weight, written, product);
    EXPECT_TRUE(same_bits(copy(product), at_once)) << name;
  }
}

TEST(cuda_products, of_a_format_without_tiles_are_of_its_decoded_weights) {
  auto gpu = make_gpu(Precision::fast);
  BISE_NEED(gpu);
  test::PartCase part;
  part.format = FormatId::int_packed;
  part.rows = 20;
  part.bits = 4;
  part.group = 16;
  part.has_zero = true;
  const test::RandomWeights weights({part}, 128, kSeed);
  const Weight weight = gpu->pack_weight(weights.views()).value();
  EXPECT_EQ(weight.decoded_bytes, weights.views()[0].codes.size());
  EXPECT_EQ(weight.bytes, 2u * 16 * 128 * 4);
}

TEST(cuda_backend, says_what_it_does_not_do) {
  auto gpu = make_gpu(Precision::fast);
  BISE_NEED(gpu);
  auto memory = gpu->allocate(64 << 10, "a test").value();
  const MatrixView qkv{memory.data(), 3, 3 * 160};
  const int32_t table[] = {0};
  const SequenceSpan sequence{0, 3, 3, table};
  AttentionArgs args{qkv,
                     1,
                     1.0f,
                     0,
                     {memory.data(), memory.data(), KvDType::bf16, 1, 32, 1, 160},
                     {&sequence, 1},
                     {memory.data(), 3, 160}};
  gpu->attention(args);
  const auto done = gpu->synchronize();
  ASSERT_FALSE(done.has_value());
  EXPECT_NE(done.error().message().find("160"), std::string::npos);
  EXPECT_TRUE(gpu->synchronize().has_value());  // it lives
}

TEST(cuda_backend, tells_of_a_device_that_fails_and_works_on_when_it_does_again) {
  auto gpu = make_gpu(Precision::fast);
  BISE_NEED(gpu);
  if (!test::device_fails_on_demand()) GTEST_SKIP() << "a real GPU fails when it likes";
  const test::RandomWeights weights({{FormatId::q4_0, 48}}, 64, kSeed);
  const Weight weight = gpu->pack_weight(weights.views()).value();
  auto memory = gpu->allocate(64 << 10, "a test").value();
  const MatrixView x{memory.data(), 3, 64}, y{static_cast<std::byte*>(memory.data()) + (16 << 10), 3, 48};
  std::vector<float> numbers;
  for (int i = 0; i < 3 * 64; ++i) numbers.push_back(static_cast<float>(i % 13) - 6.0f);
  auto product = [&]() -> Result<std::vector<float>> {
    TRY(gpu->write(numbers, x));
    gpu->matmul(weight, x, y);
    const std::span<float> out = TRY(gpu->on_host(y));
    return std::vector<float>(out.begin(), out.end());
  };
  const std::vector<float> expected = product().value();
  test::fail_device(-1);
  for (int i = 0; i < 2; ++i) {
    const auto failed = product();
    ASSERT_FALSE(failed.has_value());
    EXPECT_EQ(failed.error().code(), ErrorCode::device);
    EXPECT_NE(failed.error().message().find("the GPU failed"), std::string::npos);
  }
  test::fail_device(0);
  EXPECT_EQ(product().value(), expected);

  auto fresh = make_gpu(Precision::fast);  // its first product takes memory
  test::fail_device_allocation(0);
  fresh->matmul(weight, x, y);
  fresh->rms_norm(y, memory, 1e-5f, y);
  const auto failed = fresh->synchronize();
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code(), ErrorCode::out_of_memory);
  fresh->matmul(weight, x, y);
  EXPECT_TRUE(fresh->synchronize().has_value());
}

TEST(cuda_backend, measures_what_its_memory_and_its_arithmetic_give) {
  auto gpu = make_gpu(Precision::fast);
  BISE_NEED(gpu);
  const std::unique_ptr<ReadProbe> probe = gpu->probe_reads(0.01);
  EXPECT_GT(probe->bytes(), 0u);
  const double rate = probe->read();
  EXPECT_GT(rate, 0.0);
  EXPECT_EQ(probe->best(), rate);
  EXPECT_GT(gpu->measure_matrix_peak(0.0).bf16_tflops, 0.0);
}

TEST(cuda_backend, more_memory_than_the_gpu_has_is_an_error) {
  auto gpu = make_gpu(Precision::fast);
  BISE_NEED(gpu);
  const auto memory = gpu->allocate(uint64_t{1} << 50, "everything");
  ASSERT_FALSE(memory.has_value());
  EXPECT_EQ(memory.error().code(), ErrorCode::out_of_memory);
}

}  // namespace
}  // namespace bise
