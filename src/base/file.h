// Read-only file maps, whole-file reads with a limit, and a writer whose file appears under its name
// only when it is whole.
#pragma once

#include <cstdio>
#include <string>
#include <utility>

#include "base/bytes.h"
#include "base/error.h"

namespace bise {

// A file mapped read-only for its own lifetime. Move-only. bytes() stay put when it is moved.
class FileMap {
 public:
  static Result<FileMap> open(const std::string& path);
  FileMap(FileMap&& other) noexcept;
  FileMap& operator=(FileMap&& other) noexcept;
  FileMap(const FileMap&) = delete;
  FileMap& operator=(const FileMap&) = delete;
  ~FileMap();

  const std::string& path() const { return path_; }
  Bytes bytes() const { return bytes_; }
  // Tells the kernel that this part was read and its pages may go (they come back from the file).
  void drop(Bytes part) const;
  // Asks the kernel to start reading this part.
  void will_need(Bytes part) const;

 private:
  FileMap() = default;
  std::string path_;
  Bytes bytes_;
};

// Tells the kernel that the pages of a read-only file map which hold a part of `part` may go.
void give_back_pages(Bytes part);
// The share, 0 to 1, of some pages spread over a mapped file's `part` that the page cache holds.
double cached_share(const std::string& path, Bytes part);

// The whole file as a string; more than `max_bytes` is an Error.
Result<std::string> read_file(const std::string& path, uint64_t max_bytes);
bool file_exists(const std::string& path);
bool folder_exists(const std::string& path);

// Writes to `path` + ".part…" and renames on commit(); without commit, or when a write failed, nothing
// remains and what was at `path` stays. A link at `path` is replaced, not followed.
class FileWriter {
 public:
  static Result<FileWriter> create(const std::string& path);
  FileWriter(FileWriter&& other) noexcept;
  FileWriter& operator=(FileWriter&&) = delete;
  ~FileWriter();
  Result<void> write(Bytes bytes);
  Result<void> commit();

 private:
  FileWriter() = default;
  std::string path_, part_path_;
  std::FILE* file_ = nullptr;
  bool failed_ = false;
};

}  // namespace bise
