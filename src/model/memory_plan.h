// What stays in memory and what is streamed from the files, so that a ceiling of memory holds.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "base/error.h"
#include "model/model_config.h"

namespace bise {

// What is asked of memory.
struct MemoryRequest {
  uint64_t ceiling = 0;      // bytes this process may hold; 0: no limit
  bool is_firm = false;      // the user said so: the context is cut to it, too
  uint64_t held_bytes = 0;   // by the process already
  int64_t context = 0;       // tokens of the KV cache; 0: as many as there is room for
  KvDType kv_dtype = KvDType::bf16;
  int32_t step_tokens = 512;  // rows of one step at most
  int32_t logits_rows = 16;   // of them with logits
  int32_t num_threads = 1;
  uint64_t device_ceiling = 0;  // bytes that may be taken of the memory of a GPU; 0: there is none
};

enum class WeightRole : uint8_t { table, head, layer, vision };
struct WeightSize {
  WeightCost cost;
  WeightRole role = WeightRole::layer;
  int32_t layer = 0;  // of WeightRole::layer
  int64_t columns = 0;
  bool is_in_file = true;  // else its bytes were put together in memory, and there it stays
};

// What lives in a device's own memory: the head, the vision tower and the last layers, their KV cache, and the
// embedding if all layers do. The rest is the host's.
struct DevicePlan {
  int32_t host_layers = 0;  // the first ones
  int32_t num_layers = 0;   // of the model
  uint64_t ceiling = 0;
  uint64_t weight_bytes = 0;
  uint64_t kv_bytes = 0;    // of a full context
  uint64_t work_bytes = 0;  // activations and the like
  int64_t context = 0;      // tokens
};

struct MemoryPlan {
  std::optional<DevicePlan> device;  // the rest of the plan is then the host's part

  bool streams = false;           // else all weights live in memory
  bool bounded = false;           // a ceiling is to hold
  std::vector<WeightHome> homes;  // of the weights, in their order
  uint64_t ceiling = 0;
  uint64_t resident_bytes = 0;    // weights that stay, scales of streamed ones included
  uint64_t streamed_bytes = 0;    // read by each step of the text decoder
  uint64_t kv_bytes = 0;          // of a full context
  uint64_t ring_bytes = 0;        // of read-ahead
  uint64_t work_bytes = 0;        // activations and the like
  int64_t context = 0;            // tokens; 0: not limited by memory
};

// Bytes of everything but weights and KV that a step of `request` needs.
uint64_t step_work_bytes(const ModelConfig& config, std::span<const WeightSize> weights,
                         const MemoryRequest& request);
// As many layers on the device as its memory has room for beside the context. Error: not even the head and one layer
// fit, with the numbers.
Result<DevicePlan> plan_device(const ModelConfig& config, std::span<const WeightSize> weights,
                               const MemoryRequest& request);
// Whether a weight belongs on the device by that plan.
bool is_on_device(const DevicePlan& plan, const WeightSize& weight);
// Weights in the order of use. The head stays first, then layers evenly spread, so that the disk always
// has something to do beside them; the vision tower, which a step seldom needs, last. Error: a ceiling
// below what can be done without, with both numbers.
Result<MemoryPlan> plan_memory(const ModelConfig& config, std::span<const WeightSize> weights,
                               const MemoryRequest& request);

// Of read-ahead while everything is loaded into memory: a small ring does.
uint64_t loading_ring_bytes(std::span<const WeightSize> weights);

// "9.8 GiB"
std::string memory_text(uint64_t bytes);

}  // namespace bise
