#include "io/checkpoint_files.h"

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/json.h"
#include "io/printable.h"
#include "io/safetensors.h"
#include "io/shard_name.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxConfigBytes = 4 << 20;
constexpr uint64_t kMaxIndexBytes = 64 << 20;
const char* const kSafetensors = ".safetensors";
const char* const kGguf = ".gguf";

std::string join(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

// Names of the files in a folder, sorted; empty when it cannot be read.
std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    names.push_back(it->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool is_projector(const std::string& name) {
  return name.ends_with(kGguf) && name.find("mmproj") != std::string::npos;
}
// Calibration leftovers that no runtime reads.
bool is_ignored(const std::string& tensor) {
  return tensor.find("fake_quantizer") != std::string::npos;
}

Error missing_file(const std::string& path) {
  return Error(ErrorCode::not_found, path + ": this shard is missing; is the download complete?");
}

class Opener {
 public:
  Opener(const std::string& path, const CheckpointOptions& options, const Log& log)
      : path_(path), options_(options), log_(log) {}

  Result<CheckpointFiles> open() {
    if (folder_exists(path_)) {
      TRY(open_folder());
    } else if (!file_exists(path_)) {
      return Error(ErrorCode::not_found, path_ + ": no such file or folder");
    } else if (!path_.ends_with(kGguf)) {
      return Error(ErrorCode::unsupported, path_ + ": expected a model folder or a .gguf file");
    } else if (options_.layout.value_or(Layout::gguf) != Layout::gguf) {
      return wrong_layout();
    } else {
      out_.folder = fs::path(path_).parent_path().string();
      if (out_.folder.empty()) out_.folder = ".";
      TRY(open_gguf(path_));
    }
    if (!options_.mmproj.empty() && out_.layout != Layout::gguf) {
      return Error(ErrorCode::invalid_argument,
                   options_.mmproj + ": a projector file goes with a GGUF model, and " + path_ +
                       " has the layout " + layout_name(out_.layout));
    }
    return std::move(out_);
  }

 private:
  // --- which layout -------------------------------------------------------------------------

  bool here(const std::string& name) const { return file_exists(join(out_.folder, name)); }

  // Whether weights of a safetensors layout ("model", "consolidated") lie in the folder.
  bool has_weights(const std::string& stem) const {
    if (here(stem + ".safetensors.index.json") || here(stem + kSafetensors)) return true;
    return std::any_of(names_.begin(), names_.end(), [&](const std::string& name) {
      auto shard = parse_shard_name(name, kSafetensors);
      return shard && shard->stem == stem;
    });
  }

  // The GGUF models of the folder, of a split one the first shard that is there.
  std::vector<std::string> gguf_models() const {
    std::vector<std::string> models;
    std::set<std::string> stems;
    for (const std::string& name : names_) {
      if (!name.ends_with(kGguf) || is_projector(name)) continue;
      auto shard = parse_shard_name(name, kGguf);
      if (!shard || stems.insert(shard->stem).second) models.push_back(name);
    }
    return models;
  }

  Error wrong_layout() const {
    return Error(ErrorCode::not_found, path_ + ": no model in the layout " +
                                           layout_name(*options_.layout) +
                                           " here; leave the layout out to take what there is");
  }

  Result<void> open_folder() {
    out_.folder = path_;
    names_ = names_in(path_);
    const bool config = here("config.json"), params = here("params.json");
    const bool hf = config && has_weights("model");
    const bool mistral = params && has_weights("consolidated");
    const std::vector<std::string> models = gguf_models();
    if (options_.layout) {
      switch (*options_.layout) {
        case Layout::hf: return config ? open_hf() : wrong_layout();
        case Layout::mistral: return params ? open_mistral() : wrong_layout();
        case Layout::gguf: return models.empty() ? wrong_layout() : open_one_of(models);
      }
    }
    if (hf && mistral) {
      log_.info(path_ + ": holds the layouts hf and mistral; hf is taken");
    }
    if (hf) return open_hf();
    if (mistral) return open_mistral();
    if (!models.empty()) return open_one_of(models);
    // No weights at all: the messages of the layout at hand say which are expected.
    if (config) return open_hf();
    if (params) return open_mistral();
    return Error(ErrorCode::not_found,
                 path_ +
                     ": no model here; expected config.json with model*.safetensors, params.json "
                     "with consolidated*.safetensors, or a .gguf file");
  }

  Result<void> open_one_of(const std::vector<std::string>& models) {
    if (models.size() == 1) return open_gguf(join(out_.folder, models[0]));
    return Error(ErrorCode::invalid_argument, path_ + ": holds " + std::to_string(models.size()) +
                                                  " GGUF models; name one of them, such as " +
                                                  join(out_.folder, models[0]));
  }

  // --- safetensors --------------------------------------------------------------------------

  Result<void> add(TensorView tensor, const std::string& file) {
    if (is_ignored(tensor.name)) return {};
    out_.total_bytes += tensor.bytes.size();
    auto [at, is_new] = out_.tensors.emplace(tensor.name, std::move(tensor));
    if (is_new) return {};
    return Error(ErrorCode::corrupt, file + ": tensor " + at->first + " is also in another file");
  }

  Result<void> add_safetensors(const std::string& name) {
    std::string file = join(out_.folder, name);
    FileMap map = TRY(FileMap::open(file));
    std::vector<TensorView> views = TRY(parse_safetensors(map.bytes(), file));
    for (TensorView& view : views) TRY(add(std::move(view), file));
    out_.maps.push_back(std::move(map));
    out_.paths.push_back(file);
    return {};
  }

  Result<void> open_hf() {
    out_.layout = Layout::hf;
    out_.config_json = TRY(read_file(join(out_.folder, "config.json"), kMaxConfigBytes));
    out_.scheme = TRY(read_hf_quantization(out_.config_json).with_context(path_));
    TRY(open_safetensors("model", "config.json"));
    for (auto& [name, tensor] : out_.tensors) {
      if (name.ends_with("patch_conv.weight")) put_channels_first(tensor);
    }
    return {};
  }

  // MLX keeps the patch convolution as [out, height, width, channels]; Hugging Face has the
  // channels second. Kernels of 3 x 3 tell nothing by their shape: there MLX's own name decides.
  void put_channels_first(TensorView& tensor) {
    const std::vector<int64_t> from = tensor.shape;
    const bool last = from.size() == 4 && from[3] == 3 && from[1] == from[2] &&
                      (from[1] != 3 || tensor.name.find("vision_model.") != std::string::npos);
    if (!last || tensor.bytes.empty()) return;
    const size_t width = dtype_bytes(tensor.dtype), channels = 3;
    const size_t pixels = static_cast<size_t>(from[1] * from[2]);
    std::vector<std::byte> bytes(tensor.bytes.size());
    for (size_t at = 0; at < bytes.size(); at += width) {
      const size_t element = at / width, pixel = element % pixels;
      const size_t channel = element / pixels % channels, row = element / pixels / channels;
      const size_t source = (row * pixels + pixel) * channels + channel;
      std::memcpy(&bytes[at], &tensor.bytes[source * width], width);
    }
    tensor.shape = {from[0], 3, from[1], from[2]};
    tensor.bytes = bytes;
    out_.reordered.push_back(std::move(bytes));
  }

  Result<void> open_mistral() {
    out_.layout = Layout::mistral;
    out_.params_json = TRY(read_file(join(out_.folder, "params.json"), kMaxConfigBytes));
    out_.scheme = TRY(read_mistral_quantization(out_.params_json).with_context(path_));
    return open_safetensors("consolidated", "params.json");
  }

  // By the index, else the one file, else shards whose names make a whole.
  Result<void> open_safetensors(const std::string& stem, const char* config_name) {
    std::set<std::string> taken;
    if (here(stem + ".safetensors.index.json")) {
      taken = TRY(open_index(join(out_.folder, stem + ".safetensors.index.json")));
    } else if (here(stem + kSafetensors)) {
      taken.insert(stem + kSafetensors);
      TRY(add_safetensors(stem + kSafetensors));
    } else {
      taken = TRY(open_shards(stem, config_name));
    }
    for (const std::string& name : names_) {
      auto shard = parse_shard_name(name, kSafetensors);
      if (shard && shard->stem == stem && taken.count(name) == 0) {
        log_.warning(join(out_.folder, name) + ": not part of this model, it is left out");
      }
    }
    return {};
  }

  Result<std::set<std::string>> open_shards(const std::string& stem, const char* config_name) {
    std::set<std::string> taken;
    for (const std::string& name : names_) {
      auto shard = parse_shard_name(name, kSafetensors);
      if (!shard || shard->stem != stem) continue;
      for (shard->number = 1; shard->number <= shard->count; ++shard->number) {
        std::string part = make_shard_name(*shard, kSafetensors);
        if (!here(part)) return missing_file(join(out_.folder, part));
        TRY(add_safetensors(part));
        taken.insert(part);
      }
      return taken;
    }
    return Error(ErrorCode::not_found, path_ + ": " + config_name + " without weights; expected " +
                                           stem + ".safetensors, or " + stem +
                                           "-0000x-of-0000y.safetensors");
  }

  // The index maps each tensor to its shard: every shard it names must be there and hold it.
  // Returns the shards' names.
  Result<std::set<std::string>> open_index(const std::string& index_path) {
    std::string text = TRY(read_file(index_path, kMaxIndexBytes));
    Json index = TRY(
        parse_json(text, {.max_bytes = kMaxIndexBytes, .max_depth = 8}).with_context(index_path));
    const Json* map = TRY(json_object(index, "weight_map", index_path));
    if (map == nullptr || map->empty()) {
      return Error(ErrorCode::corrupt, index_path + ": weight_map is missing or empty");
    }
    std::map<std::string, size_t> shards;  // name -> number among the maps
    for (const auto& [tensor, shard] : map->items()) {
      const auto* name = shard.get_ptr<const std::string*>();
      if (name == nullptr || !is_printable_name(*name) || name->find('/') != std::string::npos) {
        return Error(ErrorCode::corrupt, index_path + ": weight_map of " + in_quotes(tensor) +
                                             ": expected the name of a file in this folder");
      }
      shards.emplace(*name, 0);
    }
    for (auto& [name, number] : shards) {
      if (!here(name)) return missing_file(join(out_.folder, name));
      number = out_.maps.size();
      TRY(add_safetensors(name));
    }
    for (const auto& [tensor, shard] : map->items()) {
      const std::string& name = shard.get_ref<const std::string&>();
      if (is_ignored(tensor) || holds(out_.maps[shards.at(name)], tensor)) continue;
      return Error(ErrorCode::corrupt, join(out_.folder, name) + ": the tensor " +
                                           in_quotes(tensor) +
                                           " is not in this shard although the index says so; are "
                                           "index and shards of one version?");
    }
    std::set<std::string> taken;
    for (const auto& [name, number] : shards) taken.insert(name);
    return taken;
  }
  bool holds(const FileMap& map, const std::string& tensor) const {
    auto found = out_.tensors.find(tensor);
    if (found == out_.tensors.end()) return false;
    const std::byte *data = found->second.bytes.data(), *begin = map.bytes().data();
    return !std::less<>()(data, begin) && !std::less<>()(begin + map.bytes().size(), data);
  }

  // --- GGUF ---------------------------------------------------------------------------------

  Result<void> add_gguf(const std::string& file) {
    GgufFile gguf = TRY(GgufFile::open(file));
    for (const TensorView& tensor : gguf.tensors()) TRY(add(tensor, file));
    out_.ggufs.push_back(std::move(gguf));
    out_.paths.push_back(file);
    return {};
  }

  Result<void> open_gguf(const std::string& file) {
    out_.layout = Layout::gguf;
    auto shard = parse_shard_name(fs::path(file).filename().string(), kGguf);
    if (shard) {
      for (shard->number = 1; shard->number <= shard->count; ++shard->number) {
        std::string part = join(out_.folder, make_shard_name(*shard, kGguf));
        if (!file_exists(part)) return missing_file(part);
        TRY(add_gguf(part));
        TRY(check_split("split.no", shard->number - 1));
        TRY(check_split("split.count", shard->count));
      }
    } else {
      TRY(add_gguf(file));
      int64_t count = TRY(out_.ggufs[0].get_int("split.count", 1));
      if (count > 1) {
        return Error(ErrorCode::corrupt, file + ": it is one of " + std::to_string(count) +
                                             " shards; give them their published names, "
                                             "…-00001-of-0000N.gguf");
      }
    }
    int64_t num_tensors = 0;
    for (const GgufFile& part : out_.ggufs)
      num_tensors += static_cast<int64_t>(part.tensors().size());
    int64_t promised = TRY(out_.ggufs[0].get_int("split.tensors.count", num_tensors));
    if (promised != num_tensors) {
      return Error(ErrorCode::corrupt, file + ": metadata split.tensors.count: found " +
                                           std::to_string(promised) + ", but the shards hold " +
                                           std::to_string(num_tensors) + " tensors");
    }
    return open_projector();
  }

  // A number in the last opened shard, when it is there.
  Result<void> check_split(const char* key, int64_t expected) const {
    int64_t found = TRY(out_.ggufs.back().get_int(key, expected));
    if (found == expected) return {};
    return Error(ErrorCode::corrupt, out_.ggufs.back().path() + ": metadata " + key + ": found " +
                                         std::to_string(found) + ", expected " +
                                         std::to_string(expected) + " by the file's name");
  }

  Result<void> open_projector() {
    if (options_.language_model_only) return {};
    std::string file = options_.mmproj;
    if (file.empty()) {
      for (const std::string& name : names_in(out_.folder)) {
        if (!is_projector(name)) continue;
        if (!file.empty()) {
          log_.info(join(out_.folder, name) + ": not read; the projector is " + file);
          continue;
        }
        file = join(out_.folder, name);
      }
    }
    if (file.empty()) return {};
    GgufFile projector = TRY(GgufFile::open(file));
    std::string architecture = TRY(projector.get_string("general.architecture", ""));
    if (architecture != "clip") {
      return Error(ErrorCode::invalid_argument, file + ": general.architecture: found " +
                                                    in_quotes(architecture) +
                                                    ", expected \"clip\" of a vision projector");
    }
    for (const TensorView& tensor : projector.tensors()) TRY(add(tensor, file));
    out_.projector = std::move(projector);
    out_.paths.push_back(file);
    return {};
  }

  const std::string& path_;
  const CheckpointOptions& options_;
  const Log& log_;
  std::vector<std::string> names_;  // of the files in the folder
  CheckpointFiles out_;
};

}  // namespace

Result<CheckpointFiles> open_checkpoint_files(const std::string& path,
                                              const CheckpointOptions& options, const Log& log) {
  try {
    return Opener(path, options, log).open();
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, path + ": out of memory while reading the tables");
  } catch (const fs::filesystem_error& e) {
    return Error(ErrorCode::io, path + ": " + e.what());
  }
}

}  // namespace bise
