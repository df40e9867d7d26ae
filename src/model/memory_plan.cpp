#include "model/memory_plan.h"

#include <algorithm>
#include <cstdio>

#include "base/bytes.h"
#include "model/kv_cache.h"

namespace bise {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;
constexpr uint64_t kMaxRing = 1024 * kMiB;
// Pieces in the ring: the one in use and those on their way.
constexpr uint64_t kPiecesInRing = 6;
// What a context is given when the user named none and memory is short.
constexpr int64_t kSmallContext = 4096;
// Tables of the allocator, thread stacks, pages of the program that nobody has used yet.
uint64_t margin_of(uint64_t ceiling) { return 6 * kMiB + ceiling / 64; }

// Of a GPU: what the driver takes for kernels, and a place of memory is whole pages of its own.
constexpr uint64_t kDeviceMargin = 128 * kMiB, kDevicePage = 2 * kMiB;

// What the tower allocates for the largest picture (vision.cpp), its keys and values included.
uint64_t picture_work_bytes(const ModelConfig& config) {
  if (!config.vision) return 0;
  const VisionConfig& v = *config.vision;
  const auto side = static_cast<uint64_t>(v.image_size / v.patch_size), hidden = static_cast<uint64_t>(v.hidden_size);
  const auto patch = static_cast<uint64_t>(v.patch_size);
  return side * side * (4 * (3 * patch * patch + 10 * hidden) + 2 * 4 * hidden);
}

// Tokens of the KV cache that `bytes` hold, at most the model's context.
int64_t tokens_in(uint64_t bytes, uint64_t token_bytes, const ModelConfig& config) {
  return std::min(static_cast<int64_t>(bytes / token_bytes / kKvBlockSize * kKvBlockSize), config.context_length);
}

// Tokens of the KV cache that are asked for, or where nobody asked: few, and when memory is short an eighth of it, if
// that is more.
int64_t context_of(const MemoryRequest& request, const ModelConfig& config, uint64_t ceiling, uint64_t token_bytes,
                   bool is_short) {
  if (request.context > 0) return request.context;
  const int64_t few = std::min<int64_t>(kSmallContext, config.context_length);
  if (!is_short) return few;
  return std::max(few, tokens_in(ceiling / 8, token_bytes, config));
}

struct Sizes {
  uint64_t memory = 0, piece = 0;
  uint64_t stays = 0;  // what is in memory even if all is streamed that can be: scales, what is in no file
};
Sizes sizes_of(std::span<const WeightSize> weights) {
  Sizes s;
  for (const WeightSize& w : weights) {
    s.memory += w.cost.memory_bytes;
    s.piece = std::max(s.piece, w.cost.piece_bytes);
    if (!w.is_in_file) s.stays += w.cost.memory_bytes;
    else if (w.role != WeightRole::table) s.stays += w.cost.side_bytes;
  }
  return s;
}

// A ring of about two layers of a large model; of a small one never more than a share of it.
uint64_t ring_for(uint64_t budget, uint64_t weights, uint64_t piece) {
  return std::max(std::min({budget / 16, weights / 16, kMaxRing}), kPiecesInRing * piece);
}

// Gives `memory` to weights of the role, evenly spread over them, as long as `left` reaches.
void spread(std::span<const WeightSize> weights, WeightRole role, uint64_t* left, std::vector<WeightHome>* homes) {
  auto is_open = [&](size_t i) { return weights[i].role == role && (*homes)[i] == WeightHome::streamed; };
  // Staying costs what is packed, less the scales that stay anyway.
  auto price = [&](size_t i) {
    const WeightCost& cost = weights[i].cost;
    return cost.memory_bytes > cost.side_bytes ? cost.memory_bytes - cost.side_bytes : 0;
  };
  double total = 0.0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (is_open(i)) total += static_cast<double>(price(i));
  }
  if (total == 0.0) return;
  const double share = std::min(1.0, static_cast<double>(*left) / total);
  double due = 0.0;  // of memory that weights so far should have been given, less what they were
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!is_open(i)) continue;
    const double bytes = static_cast<double>(price(i));
    due += share * bytes;
    if (price(i) > *left || due < bytes / 2) continue;
    (*homes)[i] = WeightHome::memory;
    *left -= price(i);
    due -= bytes;
  }
  for (size_t i = 0; i < weights.size(); ++i) {  // what rounding left over
    if (!is_open(i) || price(i) > *left) continue;
    (*homes)[i] = WeightHome::memory;
    *left -= price(i);
  }
}

}  // namespace

std::string memory_text(uint64_t bytes) {
  char text[32];
  const double mib = static_cast<double>(bytes) / static_cast<double>(kMiB);
  if (mib >= 1024.0) std::snprintf(text, sizeof(text), "%.1f GiB", mib / 1024.0);
  else std::snprintf(text, sizeof(text), "%.0f MiB", mib);
  return text;
}

uint64_t loading_ring_bytes(std::span<const WeightSize> weights) {
  const Sizes sizes = sizes_of(weights);
  const uint64_t least = kPiecesInRing * sizes.piece;
  return std::clamp(sizes.memory / 64, least, std::max(256 * kMiB, least));
}

uint64_t step_work_bytes(const ModelConfig& c, std::span<const WeightSize> weights,
                         const MemoryRequest& request) {
  const uint64_t rows = static_cast<uint64_t>(request.step_tokens);
  const uint64_t q = static_cast<uint64_t>(c.num_heads) * static_cast<uint64_t>(c.head_dim);
  const uint64_t kv = static_cast<uint64_t>(c.num_kv_heads) * static_cast<uint64_t>(c.head_dim);
  const uint64_t hidden = static_cast<uint64_t>(c.hidden_size), wide = static_cast<uint64_t>(c.intermediate_size);
  uint64_t columns = 0;
  for (const WeightSize& w : weights) columns = std::max(columns, static_cast<uint64_t>(w.columns));
  const uint64_t activations = rows * 4 * (2 * hidden + 2 * q + 2 * kv + 3 * wide);
  const uint64_t inputs = rows * columns * 2;  // in 8 bits, with scales and sums, or in BF16
  // On the device, on the host, and twice more while a token is drawn.
  const uint64_t logits = static_cast<uint64_t>(request.logits_rows + 4) * static_cast<uint64_t>(c.vocab_size) * 8;
  // Of each thread: packed tiles of a streamed weight, and on a matrix unit a panel and sums of 16 tiles.
  const uint64_t tiles = static_cast<uint64_t>(request.num_threads) * (columns * 16 * 4 * 4 + rows * 1024 + (uint64_t{128} << 10));
  return activations + inputs + logits + tiles;
}

bool is_on_device(const DevicePlan& plan, const WeightSize& weight) {
  if (weight.role == WeightRole::table) return plan.host_layers == 0;
  return weight.role != WeightRole::layer || weight.layer >= plan.host_layers;
}

Result<DevicePlan> plan_device(const ModelConfig& config, std::span<const WeightSize> weights,
                               const MemoryRequest& request) {
  MemoryRequest on_device = request;
  on_device.num_threads = 0;
  const uint64_t layer_token =
      KvCache::bytes_per_token(config, request.kv_dtype) / static_cast<uint64_t>(config.num_layers);
  const uint64_t fixed = step_work_bytes(config, weights, on_device) + picture_work_bytes(config) + kDeviceMargin +
                         (weights.size() + 2 * static_cast<uint64_t>(config.num_layers)) * kDevicePage;
  uint64_t least = 0;
  for (int32_t host_layers = 0; host_layers < config.num_layers; ++host_layers) {
    DevicePlan plan;
    plan.host_layers = host_layers;
    plan.num_layers = config.num_layers;
    plan.ceiling = request.device_ceiling;
    plan.work_bytes = fixed;
    for (const WeightSize& w : weights) plan.weight_bytes += is_on_device(plan, w) ? w.cost.memory_bytes : 0;
    const uint64_t token_bytes = layer_token * static_cast<uint64_t>(config.num_layers - host_layers);
    plan.context = context_of(request, config, request.device_ceiling, token_bytes, host_layers > 0);
    plan.kv_bytes = round_up(static_cast<uint64_t>(plan.context), kKvBlockSize) * token_bytes;
    least = fixed + plan.weight_bytes + plan.kv_bytes;
    if (least > plan.ceiling) continue;
    if (request.context == 0 && host_layers == 0) {  // the rest is for the context
      plan.context = tokens_in(plan.ceiling - fixed - plan.weight_bytes, token_bytes, config);
      plan.kv_bytes = round_up(static_cast<uint64_t>(plan.context), kKvBlockSize) * token_bytes;
    }
    return plan;
  }
  return Error(ErrorCode::out_of_memory,
               "GPU memory: " + memory_text(request.device_ceiling) + " may be taken; at least " + memory_text(least) +
                   " are needed for the head, one layer" +
                   (config.vision ? ", the vision tower (--language-model-only)" : "") +
                   " and what a step works in: a smaller format, less --context, or --backend cpu");
}

Result<MemoryPlan> plan_memory(const ModelConfig& config, std::span<const WeightSize> weights,
                               const MemoryRequest& request) {
  MemoryPlan plan;
  plan.ceiling = request.ceiling;
  plan.bounded = request.ceiling > 0 && request.is_firm;
  plan.homes.assign(weights.size(), WeightHome::memory);
  const Sizes sizes = sizes_of(weights);
  plan.resident_bytes = sizes.memory;
  plan.work_bytes = step_work_bytes(config, weights, request);
  plan.context = request.context;
  const uint64_t token_bytes = KvCache::bytes_per_token(config, request.kv_dtype);  // never 0
  auto kv_bytes = [&](int64_t tokens) {
    return round_up(static_cast<uint64_t>(tokens), kKvBlockSize) * token_bytes;
  };
  plan.ring_bytes = loading_ring_bytes(weights);
  if (request.ceiling == 0) return plan;

  const uint64_t fixed = request.held_bytes + margin_of(request.ceiling) + plan.work_bytes;
  plan.kv_bytes = kv_bytes(context_of(request, config, request.ceiling, token_bytes, false));
  const uint64_t in_memory = fixed + plan.ring_bytes + sizes.memory;
  if (in_memory + plan.kv_bytes <= request.ceiling) {
    if (request.context == 0 && plan.bounded) {  // the rest is for the context
      plan.context = tokens_in(request.ceiling - in_memory, token_bytes, config);
      plan.kv_bytes = kv_bytes(plan.context);
    }
    return plan;
  }
  const int64_t context = context_of(request, config, request.ceiling, token_bytes, true);
  plan.kv_bytes = kv_bytes(context);

  plan.streams = true;
  plan.bounded = true;
  plan.context = context;
  plan.ring_bytes = ring_for(request.ceiling, sizes.memory, sizes.piece);
  const uint64_t least = fixed + plan.kv_bytes + sizes.stays + kPiecesInRing * sizes.piece;
  if (least > request.ceiling) {
    return Error(ErrorCode::out_of_memory,
                 "memory: a ceiling of " + memory_text(request.ceiling) + " is too small; at least " +
                     memory_text(least) + " are needed: program " + memory_text(request.held_bytes) +
                     ", KV cache of " + std::to_string(context) + " tokens " + memory_text(plan.kv_bytes) +
                     " (less with --context), a step " + memory_text(plan.work_bytes) +
                     ", scales and what else cannot be streamed " + memory_text(sizes.stays) + ", reading ahead " + memory_text(kPiecesInRing * sizes.piece));
  }
  plan.ring_bytes = std::min(plan.ring_bytes, request.ceiling - fixed - plan.kv_bytes - sizes.stays);
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!weights[i].is_in_file) continue;
    plan.homes[i] = weights[i].role == WeightRole::table ? WeightHome::in_file : WeightHome::streamed;
  }
  uint64_t left = request.ceiling - fixed - plan.kv_bytes - sizes.stays - plan.ring_bytes;
  for (WeightRole role : {WeightRole::head, WeightRole::layer, WeightRole::vision}) {
    spread(weights, role, &left, &plan.homes);
  }
  plan.resident_bytes = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    const WeightCost& cost = weights[i].cost;
    if (plan.homes[i] == WeightHome::memory) plan.resident_bytes += cost.memory_bytes;
    if (plan.homes[i] != WeightHome::streamed) continue;
    plan.resident_bytes += cost.side_bytes;
    if (weights[i].role != WeightRole::vision) plan.streamed_bytes += cost.stored_bytes;
  }
  return plan;
}

}  // namespace bise
