// What MODEL on the command line means: a folder, a .gguf file, a name in the local store, or a
// repository id in the Hugging Face cache, or the demo model in the program. Looks at names, never into model files.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace bise {

// The folders that are searched; from the environment in main, from a test in tests.
struct ModelPlaces {
  std::string store;     // one folder or .gguf per model
  std::string hf_cache;  // folders models--org--name
  std::string unpacked;  // where the model in the program is written to be opened
};
// BISE_HOME (else XDG_DATA_HOME/bise, else ~/.local/share/bise) /models and /embedded;
// HF_HUB_CACHE (else HF_HOME/hub, else XDG_CACHE_HOME/huggingface/hub, else
// ~/.cache/huggingface/hub).
ModelPlaces model_places_from_environment();

// The path of a folder or of a .gguf file. A model named demo in the store stands before the one in the program, which is unpacked
// when it is asked for. Not found: one line with every place that was tried.
Result<std::string> resolve_model(const std::string& name, const ModelPlaces& places);

// The store. A name is letters, digits, `.`, `_`, `-`, and does not begin with a dot.
bool is_store_name(const std::string& name);
struct StoredModel {
  std::string name;
  std::string path;
  uint64_t bytes = 0;
  uint32_t num_files = 0;
};
Result<std::vector<StoredModel>> list_store(const ModelPlaces& places);
// Removes the model's own folder or file; what a link points to stays.
Result<void> remove_from_store(const std::string& name, const ModelPlaces& places);

}  // namespace bise
