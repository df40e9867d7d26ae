// Writes a checkpoint of the Mistral 3 family with random weights, of any size and in any format that
// model_formats knows, so that the cost of the real layers can be measured without the real files.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "app/model_formats.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace bise {

// Defaults: the published shape of Mistral Medium 3.5, but for the number of layers (88).
struct ModelShape {
  int64_t layers = 2, hidden = 12288, ffn = 28672, heads = 96, kv_heads = 8, head_dim = 128, vocab = 131072;
};

struct RandomModelOptions {
  ModelShape shape;
  std::string format = "BF16";
  Layout layout = Layout::hf;
  uint64_t seed = 0;
};

// Everything that will be written; decided, and checked, before a byte is.
struct RandomModel {
  RandomModelOptions options;
  const ModelFormat* format = nullptr;
  std::vector<RandomTensor> tensors;
  uint64_t bytes = 0;  // of all tensors
};
// Error: a format that the layout cannot hold, or a shape that the format or the architecture cannot have.
Result<RandomModel> plan_random_model(const RandomModelOptions& options);

// hf, mistral: a folder, made when it is not there; gguf: a file. Tensor by tensor, in bounded memory;
// nothing appears under its name before all is whole. The bytes depend on the options alone, not on the
// threads. `progress` gets bytes done and in all; returning false stops with `cancelled`.
Result<void> write_random_model(const RandomModel& model, const std::string& path, ThreadPool& pool,
                                const std::function<bool(uint64_t, uint64_t)>& progress);

}  // namespace bise
