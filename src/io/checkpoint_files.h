// The files of one model, opened: which layout a path holds, its maps, its tensor table and its
// descriptions. Internal to Checkpoint.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/file.h"
#include "base/log.h"
#include "io/checkpoint.h"
#include "io/gguf.h"
#include "io/quant_scheme.h"

namespace bise {

struct CheckpointFiles {
  std::string folder;  // where the model's files lie
  Layout layout = Layout::hf;
  std::vector<FileMap> maps;    // of safetensors files
  std::vector<std::vector<std::byte>> reordered;  // bytes of tensors that are not as HF has them
  std::vector<GgufFile> ggufs;  // the first holds the model's metadata
  std::optional<GgufFile> projector;
  std::map<std::string, TensorView> tensors;
  std::string config_json, params_json;
  QuantScheme scheme;
  std::vector<std::string> paths;  // of all files above, in the order of opening
  uint64_t total_bytes = 0;        // of all tensors
};

// Reads headers only: no byte of a weight is touched, but for the patch convolution of MLX folders,
// which is brought into HF's order of channels.
Result<CheckpointFiles> open_checkpoint_files(const std::string& path,
                                              const CheckpointOptions& options, const Log& log);

}  // namespace bise
