// A copy of a golden checkpoint with one text file changed: for configurations that are wrong.
#pragma once

#include <filesystem>
#include <string>

#include "base/file.h"
#include "support/temp_folder.h"

namespace bise {

class EditedCheckpoint {
 public:
  EditedCheckpoint(const std::string& variant, const std::string& layout) {
    namespace fs = std::filesystem;
    fs::copy(std::string(BISE_GOLDEN_DIR) + "/model/ckpt/" + variant + "/" + layout, path());
    for (const auto& entry : fs::directory_iterator(path())) {
      fs::permissions(entry, fs::perms::owner_write, fs::perm_options::add);
    }
  }

  // Replaces the first `from` in `file`; false when it is not there.
  bool replace(const std::string& file, const std::string& from, const std::string& to) {
    std::string text = *read_file(folder_.at(file), 64 << 20);
    size_t at = text.find(from);
    if (at == std::string::npos) return false;
    text.replace(at, from.size(), to);
    folder_.write(file, text);
    return true;
  }
  void remove(const std::string& file) { std::filesystem::remove(folder_.at(file)); }
  const std::string& path() const { return folder_.path(); }

 private:
  TempFolder folder_;
};

}  // namespace bise
