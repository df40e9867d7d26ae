// Reads of a file past the page cache, several in flight: what io_uring, or a few threads where the
// kernel refuses io_uring, do for ReadAhead (base/read_ahead.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/log.h"

namespace bise {

// Direct reads begin, end and land on multiples of it. Disks ask for 512 or 4096.
constexpr uint64_t kDirectAlignment = 4096;

// A file open twice: for direct reads, and for ordinary ones (unaligned rests of short reads, and
// file systems that know no direct reads, such as tmpfs). Move-only.
class DirectFile {
 public:
  static Result<DirectFile> open(const std::string& path);
  DirectFile(DirectFile&& other) noexcept;
  DirectFile& operator=(DirectFile&&) = delete;
  ~DirectFile();

  const std::string& path() const { return path_; }
  uint64_t bytes() const { return bytes_; }
  bool is_direct() const { return direct_ >= 0 && !is_refused_; }
  // The descriptor to read with: the ordinary one when direct reads are not wanted or not had.
  int descriptor(bool direct) const { return direct && is_direct() ? direct_ : buffered_; }
  // A read said that this file system does not do direct reads after all.
  void refuse_direct() { is_refused_ = true; }

 private:
  DirectFile() = default;
  std::string path_;
  uint64_t bytes_ = 0;
  int direct_ = -1, buffered_ = -1;
  bool is_refused_ = false;  // the descriptor stays open: reads may be under way on it
};

// Like pread(), but a failure is the negative error number. Tests put a bad disk in its place.
using ReadFunction = std::function<int64_t(int descriptor, void* into, uint64_t bytes, uint64_t offset)>;

Error read_failed(const DirectFile& file, uint64_t offset, uint64_t bytes, int error_number);
// A file that ends at `end` where bytes up to `wanted` should be.
Error ends_early(const DirectFile& file, uint64_t end, uint64_t wanted);
// Bytes [offset, offset + bytes) the ordinary way, for a few of them here and there. `read`: in place of
// the system's, or empty.
Result<void> read_bytes(const DirectFile& file, const ReadFunction& read, uint64_t offset, uint64_t bytes,
                        void* into);

// Submits reads and hands back what became of them, in any order. One thread uses a queue.
class ReadQueue {
 public:
  struct Done {
    uint64_t tag = 0;
    int64_t result = 0;  // bytes read, or a negative error number
  };
  virtual ~ReadQueue() = default;
  virtual const char* name() const = 0;
  // At most `depth` reads may be under way.
  virtual void submit(uint64_t tag, int descriptor, void* into, uint64_t bytes, uint64_t offset) = 0;
  virtual Done wait() = 0;  // for one; there must be one
};

// `depth` reads at once. A read function given: threads that call it. Otherwise io_uring, or threads
// with pread() where the kernel refuses it, which the log is told.
Result<std::unique_ptr<ReadQueue>> create_read_queue(int depth, ReadFunction read, const Log& log);

}  // namespace bise
