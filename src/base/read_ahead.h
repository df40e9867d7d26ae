// ReadAhead: a fixed order of items (byte ranges of files), read past the page cache into a ring that
// a thread of its own keeps full ahead of the consumer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/log.h"
#include "base/read_queue.h"

namespace bise {

struct FileRange {
  size_t file = 0;
  uint64_t offset = 0, bytes = 0;
};

// What is handed over at once. `next`: the item that follows it, or kNoItem.
constexpr size_t kNoItem = ~size_t{0};
struct ReadItem {
  std::vector<FileRange> ranges;
  size_t next = kNoItem;
};

struct ReadAheadOptions {
  uint64_t ring_bytes = uint64_t{64} << 20;
  uint64_t request_bytes = uint64_t{4} << 20;  // of one read; a multiple of kDirectAlignment
  int depth = 8;                               // reads under way
  ReadFunction read;                           // tests: in place of the system's
};

struct ReadStats {
  uint64_t bytes = 0;          // that came from the files
  double seconds = 0.0;        // during which at least one read was under way
  double waited_seconds = 0.0;  // that acquire() waited
};

class ReadAhead {
 public:
  // Bytes of the ring that an item takes: each range with its aligned surroundings.
  static uint64_t ring_bytes_of(const ReadItem& item);

  // Error: a file that cannot be opened, a range beyond the end of its file, an item larger than the
  // ring, no memory for the ring. Nothing is read before start() or acquire().
  static Result<std::unique_ptr<ReadAhead>> create(const std::vector<std::string>& paths,
                                                   std::vector<ReadItem> items,
                                                   const ReadAheadOptions& options, const Log& log);
  ~ReadAhead();

  // Reading begins, with this item.
  void start(size_t item);
  // Waits until the item is there; gives the address of each of its ranges. The next items are read
  // meanwhile. An item out of the order is read anew, what was read for nothing is thrown away.
  // Error: the disk's, or a file that has become shorter; a later acquire() tries again.
  Result<std::span<const std::byte* const>> acquire(size_t item);
  // The acquired item's memory may be used again.
  void release();

  ReadStats stats() const;
  const char* method() const;  // "io_uring, direct"

 private:
  struct State;
  explicit ReadAhead(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct ReadRate {
  uint64_t bytes = 0;
  double seconds = 0.0;
  bool is_direct = false;  // false: the page cache could not be passed by, so this is no disk speed
};
// Reads up to `max_bytes` of the file, beginning at `offset`, for about `max_seconds` through a ring of about
// `ring_bytes`; ten times as long where the disk gives hardly anything.
Result<ReadRate> measure_read_rate(const std::string& path, uint64_t offset, uint64_t max_bytes,
                                   double max_seconds, uint64_t ring_bytes);

}  // namespace bise
