// A copy of a golden checkpoint with one text file changed: for configurations that are wrong.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "base/file.h"

namespace bise {

class EditedCheckpoint {
 public:
  EditedCheckpoint(const std::string& variant, const std::string& layout, const std::string& name) {
    namespace fs = std::filesystem;
    path_ = std::string(BISE_TEST_TMP) + "/" + name;
    fs::remove_all(path_);
    fs::create_directories(path_);
    fs::copy(std::string(BISE_GOLDEN_DIR) + "/model/ckpt/" + variant + "/" + layout, path_);
    for (const auto& entry : fs::directory_iterator(path_)) {
      fs::permissions(entry, fs::perms::owner_write, fs::perm_options::add);
    }
  }
  ~EditedCheckpoint() { std::filesystem::remove_all(path_); }
  EditedCheckpoint(const EditedCheckpoint&) = delete;
  EditedCheckpoint& operator=(const EditedCheckpoint&) = delete;

  // Replaces the first `from` in `file`; false when it is not there.
  bool replace(const std::string& file, const std::string& from, const std::string& to) {
    std::string text = *read_file(path_ + "/" + file, 64 << 20);
    size_t at = text.find(from);
    if (at == std::string::npos) return false;
    text.replace(at, from.size(), to);
    std::ofstream(path_ + "/" + file, std::ios::binary) << text;
    return true;
  }
  void remove(const std::string& file) { std::filesystem::remove(path_ + "/" + file); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace bise
