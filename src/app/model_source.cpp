#include "app/model_source.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "app/embedded_model.h"
#include "base/file.h"

namespace fs = std::filesystem;

namespace bise {
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
         c == '_' || c == '-';
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// "x-00002-of-00003.gguf": any shard but the first of a split file.
bool is_later_shard(const std::string& name) {
  size_t of = name.rfind("-of-");
  if (of == std::string::npos || of < 6) return false;
  std::string number = name.substr(of - 5, 5);
  return number != "00001" &&
         std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// Model files of a folder: .gguf, first shards only, no vision projectors.
std::vector<std::string> gguf_models(const std::string& folder) {
  std::vector<std::string> found;
  std::error_code ec;
  for (fs::directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    std::string name = it->path().filename().string();
    if (ends_with(name, ".gguf") && name.rfind("mmproj", 0) != 0 && !is_later_shard(name)) {
      found.push_back(it->path().string());
    }
  }
  std::sort(found.begin(), found.end());
  return found;
}

// A folder as it is, or the one GGUF in it when nothing else says what the folder is.
Result<std::string> resolve_folder(const std::string& folder) {
  if (file_exists(folder + "/config.json") || file_exists(folder + "/params.json")) return folder;
  std::vector<std::string> models = gguf_models(folder);
  if (models.size() == 1) return models[0];
  if (models.size() > 1) {
    std::string names;
    for (const std::string& path : models) names += " " + fs::path(path).filename().string();
    return Error(ErrorCode::invalid_argument,
                 folder + " holds " + std::to_string(models.size()) +
                     " GGUF models; name one of them as MODEL:" + names);
  }
  return Error(ErrorCode::not_found,
               folder +
                   " holds no model: expected config.json (Hugging Face layout), params.json "
                   "(Mistral layout) or a .gguf file");
}

// The snapshot that `main` points to, or the only one.
Result<std::string> resolve_snapshot(const std::string& repository) {
  std::error_code ec;
  if (auto commit = read_file(repository + "/refs/main", 4096)) {
    std::string id = *commit;
    while (!id.empty() && (id.back() == '\n' || id.back() == '\r' || id.back() == ' '))
      id.pop_back();
    bool plain =
        !id.empty() && id[0] != '.' && std::all_of(id.begin(), id.end(), is_name_character);
    std::string folder = repository + "/snapshots/" + id;
    if (plain && folder_exists(folder)) return resolve_folder(folder);
    return Error(ErrorCode::not_found, repository + "/refs/main names the snapshot " + id +
                                           ", which is not there; fetch the repository again");
  }
  std::vector<std::string> snapshots;
  for (fs::directory_iterator it(repository + "/snapshots", ec), end; !ec && it != end;
       it.increment(ec)) {
    snapshots.push_back(it->path().string());
  }
  if (snapshots.size() == 1) return resolve_folder(snapshots[0]);
  return Error(ErrorCode::not_found,
               repository + " has " + std::to_string(snapshots.size()) +
                   " snapshots and no refs/main; give the snapshot's folder as MODEL");
}

}  // namespace

ModelPlaces model_places_from_environment() {
  std::string home = environment("HOME");
  auto first_of = [](std::initializer_list<std::string> candidates) {
    for (const std::string& path : candidates) {
      if (!path.empty()) return path;
    }
    return std::string();
  };
  auto below = [](const std::string& root, const char* rest) {
    return root.empty() ? "" : root + rest;
  };
  ModelPlaces places;
  places.store = first_of({environment("BISE_HOME"), below(environment("XDG_DATA_HOME"), "/bise"),
                           below(home, "/.local/share/bise")});
  if (!places.store.empty()) {
    places.unpacked = places.store + "/embedded";
    places.store += "/models";
  }
  places.hf_cache = first_of({environment("HF_HUB_CACHE"), below(environment("HF_HOME"), "/hub"),
                              below(environment("XDG_CACHE_HOME"), "/huggingface/hub"),
                              below(home, "/.cache/huggingface/hub")});
  return places;
}

bool is_store_name(const std::string& name) {
  return !name.empty() && name[0] != '.' &&
         std::all_of(name.begin(), name.end(), is_name_character);
}

Result<std::string> resolve_model(const std::string& name, const ModelPlaces& places) {
  if (name.empty()) {
    return Error(ErrorCode::invalid_argument,
                 "MODEL is empty; give a folder, a .gguf file or a name");
  }
  if (file_exists(name)) {
    if (ends_with(name, ".gguf")) return name;
    return Error(
        ErrorCode::invalid_argument,
        name + " is a file but not a .gguf; MODEL is a .gguf file, a model folder or a name");
  }
  if (folder_exists(name)) return resolve_folder(name);
  std::string tried = "path " + name;
  if (is_store_name(name) && !places.store.empty()) {
    for (const std::string& path :
         {places.store + "/" + name, places.store + "/" + name + ".gguf"}) {
      if (folder_exists(path)) return resolve_folder(path);
      if (file_exists(path)) return path;
      tried += ", " + path;
    }
  }
  if (name == kEmbeddedModel) {
    if (!places.unpacked.empty()) return unpack_embedded_model(places.unpacked);
    return Error(ErrorCode::not_found,
                 "the demo model has to be unpacked; set BISE_HOME to a folder that can be written");
  }
  size_t slash = name.find('/');
  if (slash != std::string::npos && !places.hf_cache.empty()) {
    std::string owner = name.substr(0, slash), repository = name.substr(slash + 1);
    if (is_store_name(owner) && is_store_name(repository)) {
      std::string path = places.hf_cache + "/models--" + owner + "--" + repository;
      if (folder_exists(path)) return resolve_snapshot(path);
      tried += ", " + path;
    }
  }
  return Error(ErrorCode::not_found, "model " + name + " not found; tried " + tried +
                                         "; `bise list` shows the models in the local store");
}

Result<std::vector<StoredModel>> list_store(const ModelPlaces& places) {
  std::vector<StoredModel> models;
  std::error_code ec;
  for (fs::directory_iterator it(places.store, ec), end; !ec && it != end; it.increment(ec)) {
    std::string file = it->path().filename().string();
    StoredModel model;
    model.path = it->path().string();
    model.name = ends_with(file, ".gguf") ? file.substr(0, file.size() - 5) : file;
    std::error_code size_ec;
    if (it->is_directory(size_ec)) {
      for (fs::recursive_directory_iterator f(it->path(), size_ec), last; !size_ec && f != last;
           f.increment(size_ec)) {
        std::error_code one;
        uint64_t bytes = fs::file_size(f->path(), one);
        if (one) continue;
        model.bytes += bytes;
        ++model.num_files;
      }
    } else if (ends_with(file, ".gguf")) {
      model.bytes = fs::file_size(it->path(), size_ec);
      model.num_files = 1;
    } else {
      continue;
    }
    if (is_store_name(model.name)) models.push_back(model);
  }
  if (ec && ec != std::errc::no_such_file_or_directory) {
    return Error(ErrorCode::io, places.store + ": " + ec.message());
  }
  std::sort(models.begin(), models.end(),
            [](const StoredModel& a, const StoredModel& b) { return a.name < b.name; });
  return models;
}

Result<void> remove_from_store(const std::string& name, const ModelPlaces& places) {
  if (!is_store_name(name)) {
    return Error(
        ErrorCode::invalid_argument,
        "\"" + name + "\" is not a store name: letters, digits, '.', '_' and '-' are allowed");
  }
  std::error_code ec;
  for (const std::string& path : {places.store + "/" + name, places.store + "/" + name + ".gguf"}) {
    if (!fs::exists(fs::symlink_status(path, ec))) continue;
    fs::remove_all(path, ec);
    if (ec) return Error(ErrorCode::io, path + ": " + ec.message());
    return {};
  }
  return Error(ErrorCode::not_found,
               "no model " + name + " in " + places.store + "; `bise list` shows what is there");
}

}  // namespace bise
