// Role -> tensor name in each checkpoint dialect. The canonical names, used by every room above, are
// those of today's Hugging Face files without the leading `model.`:
//   language_model.{embed_tokens,norm}.weight, language_model.layers.N.…, lm_head.weight,
//   vision_tower.…, multi_modal_projector.…
#pragma once

#include <string>

#include "base/error.h"
#include "io/checkpoint.h"
#include "model/model_config.h"

namespace bise {

class TensorNames {
 public:
  // Finds the dialect by looking for the embedding table. Error: none of the names we know is there.
  static Result<TensorNames> detect(const Checkpoint& checkpoint);

  // The names that today's writers give a model without vision.
  static TensorNames of_new_files(Layout layout);

  // The name on disk of a canonical name (whether or not the file has it).
  std::string stored(const std::string& canonical) const;
  // Rows of Wq and Wk are interleaved (2i, 2i + 1) on disk: consolidated files and GGUF.
  bool interleaved() const { return layout_ != Layout::hf; }

 private:
  Layout layout_ = Layout::hf;
  std::string text_prefix_;    // hf: "model.language_model.", "language_model.model.", "model."
  std::string head_;           // hf: "lm_head.", "language_model.lm_head."
  std::string vision_prefix_;  // hf: "model." or ""
  std::string vision_model_;   // hf: "vision_model." in MLX folders, else ""
};

// Any published HF spelling of a tensor name -> canonical.
std::string canonical_tensor_name(const std::string& name);

// The head size whose rotary pairs a canonical name's rows hold, or 0 when they hold none.
int64_t rotary_head_of(const std::string& canonical, const ModelConfig& config);

// The matrix stored under a name on disk, whatever its rank: the patch convolution [out, 3, k, k]
// becomes [out, 3 k k].
// `checked`: its scales and zero points are read and checked too.
Result<WeightView> matrix_view(const Checkpoint& checkpoint, const std::string& stored,
                               bool checked = true);

// One tensor's values as float32 in HF orientation and row order, whatever the layout on disk.
// `name`: an HF name in any published spelling, or the name on disk.
struct DecodedTensor {
  std::vector<int64_t> shape;
  std::string format;
  std::vector<float> values;
};
Result<DecodedTensor> decode_tensor(const Checkpoint& checkpoint, const ModelConfig& config,
                                    const std::string& name);

}  // namespace bise
