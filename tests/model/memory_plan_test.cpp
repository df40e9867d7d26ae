#include "model/memory_plan.h"

#include <gtest/gtest.h>

#include "model/kv_cache.h"

namespace bise {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kGiB = uint64_t{1} << 30;

ModelConfig medium() {
  ModelConfig c;
  c.hidden_size = 12288;
  c.num_layers = 88;
  c.num_heads = 96;
  c.num_kv_heads = 8;
  c.head_dim = 128;
  c.intermediate_size = 28672;
  c.vocab_size = 131072;
  c.context_length = 262144;
  return c;
}

// Mistral Medium 3.5 in 4.5 bits: table and head in BF16, 88 layers, 48 blocks of a tower.
std::vector<WeightSize> medium_weights() {
  std::vector<WeightSize> all;
  auto add = [&](WeightRole role, uint64_t bytes, int64_t columns, int32_t layer = 0) {
    WeightSize w;
    w.layer = layer;
    w.cost = {bytes, bytes, 0, 2 * kMiB};
    w.role = role;
    w.columns = columns;
    all.push_back(w);
  };
  add(WeightRole::table, 3072 * kMiB, 12288);
  for (int i = 0; i < 88; ++i) {
    add(WeightRole::layer, 100 * kMiB, 12288, i);
    add(WeightRole::layer, 84 * kMiB, 12288, i);
    add(WeightRole::layer, 396 * kMiB, 12288, i);
    add(WeightRole::layer, 198 * kMiB, 28672, i);
  }
  add(WeightRole::head, 3072 * kMiB, 12288);
  for (int i = 0; i < 48; ++i) add(WeightRole::vision, 100 * kMiB, 8192);
  return all;
}

MemoryRequest ceiling(uint64_t bytes) {
  MemoryRequest request;
  request.ceiling = bytes;
  request.is_firm = true;
  request.held_bytes = 40 * kMiB;
  return request;
}

uint64_t all_bytes(const MemoryPlan& plan, const MemoryRequest& request) {
  return plan.resident_bytes + plan.kv_bytes + plan.ring_bytes + plan.work_bytes + request.held_bytes;
}

// Mistral Medium 3.5 in 4.5 bits on a GPU of so much memory.
Result<DevicePlan> on_gpu(uint64_t bytes, int64_t context = 0) {
  MemoryRequest request;
  request.device_ceiling = bytes;
  request.context = context;
  return plan_device(medium(), medium_weights(), request);
}

TEST(DevicePlan, what_fits_is_on_the_device_and_the_rest_is_for_the_context) {
  const DevicePlan plan = on_gpu(139 * kGiB).value();
  EXPECT_EQ(plan.host_layers, 0);
  EXPECT_LE(plan.weight_bytes + plan.kv_bytes + plan.work_bytes, 139 * kGiB);
  EXPECT_GT(plan.weight_bytes + plan.kv_bytes + plan.work_bytes, 138 * kGiB);
  EXPECT_EQ(plan.context % kKvBlockSize, 0);
  EXPECT_EQ(on_gpu(500 * kGiB).value().context, 262144);
  EXPECT_EQ(on_gpu(139 * kGiB, 5000).value().context, 5000);
}

TEST(DevicePlan, layers_that_do_not_fit_are_the_hosts_and_no_more_than_that) {
  for (uint64_t gib : {12, 16, 24, 32, 48}) {
    const DevicePlan plan = on_gpu(gib * kGiB, 4096).value();
    EXPECT_GT(plan.host_layers, 0) << gib;
    const uint64_t used = plan.weight_bytes + plan.kv_bytes + plan.work_bytes, layer = 778 * kMiB + 16 * kMiB;
    EXPECT_LE(used, gib * kGiB);
    EXPECT_GT(used + layer, gib * kGiB) << gib;
    EXPECT_EQ(plan.kv_bytes, static_cast<uint64_t>(88 - plan.host_layers) * 16 * kMiB);
  }
}

TEST(DevicePlan, the_embedding_is_where_the_first_layer_is) {
  WeightSize table, first, last, head;
  table.role = WeightRole::table;
  head.role = WeightRole::head;
  last.layer = 87;
  DevicePlan plan;
  plan.host_layers = 1;
  EXPECT_FALSE(is_on_device(plan, table));
  EXPECT_FALSE(is_on_device(plan, first));
  EXPECT_TRUE(is_on_device(plan, last));
  EXPECT_TRUE(is_on_device(plan, head));
  plan.host_layers = 0;
  EXPECT_TRUE(is_on_device(plan, table));
}

TEST(DevicePlan, a_gpu_that_is_of_no_use_is_an_error_with_numbers) {
  const auto plan = on_gpu(3 * kGiB);
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().code(), ErrorCode::out_of_memory);
  EXPECT_NE(plan.error().message().find("3.0 GiB may be taken"), std::string::npos) << plan.error().message();
  EXPECT_NE(plan.error().message().find("--backend cpu"), std::string::npos) << plan.error().message();
}

TEST(MemoryPlan, without_a_ceiling_everything_stays) {
  MemoryPlan plan = plan_memory(medium(), medium_weights(), {}).value();
  EXPECT_FALSE(plan.streams);
  EXPECT_FALSE(plan.bounded);
  EXPECT_EQ(plan.context, 0);
  for (WeightHome home : plan.homes) EXPECT_EQ(home, WeightHome::memory);
  EXPECT_LE(plan.ring_bytes, plan.resident_bytes / 33);  // within 3 % of the weights
}

TEST(MemoryPlan, a_ceiling_holds_and_memory_is_used) {
  const std::vector<WeightSize> weights = medium_weights();
  uint64_t before = ~uint64_t{0};
  for (uint64_t gib : {6u, 8u, 12u, 16u, 24u, 40u, 64u}) {
    const MemoryRequest request = ceiling(gib * kGiB);
    MemoryPlan plan = plan_memory(medium(), weights, request).value();
    EXPECT_TRUE(plan.streams);
    EXPECT_LE(all_bytes(plan, request), request.ceiling) << gib;
    EXPECT_GE(all_bytes(plan, request), request.ceiling - request.ceiling / 20) << gib;  // all but the margin
    EXPECT_LT(plan.streamed_bytes, before);
    EXPECT_GE(plan.context, 4096);
    EXPECT_EQ(plan.homes[0], WeightHome::in_file);
    EXPECT_EQ(plan.homes.back(), WeightHome::streamed);  // the tower is the last to stay
    before = plan.streamed_bytes;
    uint64_t streamed = 0, resident = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
      if (plan.homes[i] == WeightHome::memory) resident += weights[i].cost.memory_bytes;
      if (plan.homes[i] == WeightHome::streamed && weights[i].role != WeightRole::vision) {
        streamed += weights[i].cost.stored_bytes;
      }
    }
    EXPECT_EQ(plan.streamed_bytes, streamed);
    EXPECT_EQ(plan.resident_bytes, resident);
  }
}

TEST(MemoryPlan, what_is_in_no_file_stays) {
  std::vector<WeightSize> weights = medium_weights();
  weights[0].is_in_file = weights[7].is_in_file = weights.back().is_in_file = false;
  const MemoryRequest request = ceiling(12 * kGiB);
  MemoryPlan plan = plan_memory(medium(), weights, request).value();
  EXPECT_TRUE(plan.streams);
  EXPECT_EQ(plan.homes[0], WeightHome::memory);
  EXPECT_EQ(plan.homes[7], WeightHome::memory);
  EXPECT_EQ(plan.homes.back(), WeightHome::memory);
  EXPECT_LE(all_bytes(plan, request), request.ceiling);
  EXPECT_FALSE(plan_memory(medium(), weights, ceiling(4 * kGiB)).has_value());  // the table alone is 3 GiB
  EXPECT_TRUE(plan_memory(medium(), medium_weights(), ceiling(4 * kGiB)).has_value());
}

TEST(MemoryPlan, the_head_stays_first_and_layers_evenly) {
  const std::vector<WeightSize> weights = medium_weights();
  MemoryPlan plan = plan_memory(medium(), weights, ceiling(40 * kGiB)).value();
  EXPECT_EQ(plan.homes[1 + 88 * 4], WeightHome::memory);
  // In every run of eight layers about the same stays.
  uint64_t least = ~uint64_t{0}, most = 0;
  for (size_t first = 1; first < 1 + 88 * 4; first += 32) {
    uint64_t stays = 0;
    for (size_t i = first; i < first + 32; ++i) {
      if (plan.homes[i] == WeightHome::memory) stays += weights[i].cost.memory_bytes;
    }
    least = std::min(least, stays);
    most = std::max(most, stays);
  }
  EXPECT_GT(least, kGiB);
  EXPECT_LE(most - least, 800 * kMiB);
}

TEST(MemoryPlan, a_ceiling_above_the_weights_leaves_the_rest_to_the_context) {
  const MemoryRequest firm = ceiling(90 * kGiB);
  MemoryPlan plan = plan_memory(medium(), medium_weights(), firm).value();
  EXPECT_FALSE(plan.streams);
  EXPECT_TRUE(plan.bounded);
  EXPECT_GT(plan.context, 4096);
  EXPECT_LT(plan.context, 262144);
  EXPECT_LE(all_bytes(plan, firm), firm.ceiling);
  // What the machine has left is no promise: the KV cache grows as it is used.
  MemoryRequest soft = firm;
  soft.is_firm = false;
  plan = plan_memory(medium(), medium_weights(), soft).value();
  EXPECT_FALSE(plan.bounded);
  EXPECT_EQ(plan.context, 0);
  // A context that was asked for is kept, and weights make room for it.
  MemoryRequest asked = firm;
  asked.context = 131072;
  plan = plan_memory(medium(), medium_weights(), asked).value();
  EXPECT_TRUE(plan.streams);
  EXPECT_EQ(plan.context, 131072);
  EXPECT_EQ(plan.kv_bytes, 131072 * KvCache::bytes_per_token(medium(), KvDType::bf16));
  EXPECT_LE(all_bytes(plan, asked), asked.ceiling);
}

TEST(MemoryPlan, a_ceiling_that_is_too_small_is_refused_with_what_is_needed) {
  auto plan = plan_memory(medium(), medium_weights(), ceiling(kGiB));
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().code(), ErrorCode::out_of_memory);
  EXPECT_NE(plan.error().message().find("a ceiling of 1.0 GiB is too small; at least 1.8 GiB are needed"), std::string::npos)
      << plan.error().message();
  EXPECT_NE(plan.error().message().find("--context"), std::string::npos);
}

TEST(MemoryPlan, scales_of_streamed_weights_are_counted) {
  std::vector<WeightSize> weights = medium_weights();
  for (WeightSize& w : weights) w.cost.side_bytes = w.cost.memory_bytes / 9;
  const MemoryRequest request = ceiling(20 * kGiB);
  MemoryPlan plan = plan_memory(medium(), weights, request).value();
  uint64_t resident = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (plan.homes[i] == WeightHome::memory) resident += weights[i].cost.memory_bytes;
    if (plan.homes[i] == WeightHome::streamed) resident += weights[i].cost.side_bytes;
  }
  EXPECT_EQ(plan.resident_bytes, resident);
  EXPECT_LE(all_bytes(plan, request), request.ceiling);
}

}  // namespace
}  // namespace bise
