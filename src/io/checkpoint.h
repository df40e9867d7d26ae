// Checkpoint: owns the mapped files of one model, finds a tensor by name, and says what its bytes
// mean. It knows files, not roles: which name is which weight is model/tensor_names.
//
//   hf       config.json + model.safetensors or model-0000x-of-… with an index
//   mistral  params.json + consolidated*.safetensors
//   gguf     one .gguf or all shards of a split one; optionally a vision projector file beside it
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "tensor/tensor_view.h"
#include "tensor/weight_view.h"

namespace bise {

class GgufFile;  // io/gguf.h

enum class Layout { hf, mistral, gguf };
const char* layout_name(Layout layout);

struct CheckpointOptions {
  // Unset: found by the files; where both layouts are complete hf is taken and the log says so.
  std::optional<Layout> layout;
  std::string mmproj;  // GGUF vision projector; empty: look for mmproj*.gguf beside the model
  bool language_model_only = false;
};

class Checkpoint {
 public:
  // `path`: a folder or a .gguf file. Every offset in every file is checked against the file's size
  // before this returns; duplicate names, overlaps, missing shards are Errors.
  static Result<Checkpoint> open(const std::string& path, const CheckpointOptions& options,
                                 const Log& log);
  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  const std::string& path() const;
  Layout layout() const;
  // All tensors, in name order; the projector's are included under their own names.
  const std::map<std::string, TensorView>& tensors() const;
  const TensorView* find(const std::string& name) const;
  // Whether there is a matrix of that name, also where the file packs it under another one.
  bool has_weight(const std::string& name) const;

  // The weight matrix called `name` ("….weight", also where the file packs it under another name),
  // with the parts that its quantisation needs. Error: not found, wrong rank, sizes that disagree,
  // unknown format, scales or zero points that cannot be.
  Result<WeightView> weight(const std::string& name) const;
  // The same by shapes only: scales, zero points and the group index are not read.
  Result<WeightView> weight_layout(const std::string& name) const;
  // A small float tensor (norm weights, biases) as float32 values.
  Result<std::vector<float>> values(const std::string& name) const;

  // Texts of the model folder, empty when the file is not there: config.json, params.json,
  // generation_config.json, preprocessor_config.json, processor_config.json, tekken.json path ….
  const std::string& config_json() const;                // hf
  const std::string& params_json() const;                // mistral
  std::string file_path(const std::string& name) const;  // path inside the model folder, or ""
  // GGUF metadata of the model file and of the projector; nullptr for other layouts.
  const GgufFile* gguf() const;
  const GgufFile* mmproj() const;

  // The maps that tensors lie in.
  std::vector<const FileMap*> maps() const;
  // The file pages of a weight and its parts may be given back after packing.
  void drop(const WeightView& weight) const;
  uint64_t total_bytes() const;  // of all tensors
  const std::vector<std::string>& files() const;

 private:
  struct State;
  explicit Checkpoint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace bise
