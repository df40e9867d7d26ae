#include "base/read_ahead.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "base/bytes.h"

namespace bise {
namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr uint64_t kHugeFrom = uint64_t{16} << 20;

// A range with what surrounds it up to the alignment of direct reads.
struct Aligned {
  uint64_t first, bytes;
};
Aligned aligned(const FileRange& r) {
  uint64_t first = r.offset / kDirectAlignment * kDirectAlignment;
  return {first, round_up(r.offset + r.bytes, kDirectAlignment) - first};
}

// One read of a file into the ring.
struct Request {
  uint64_t slot = 0;  // its number, not its place: a slot may be gone when its reads come back
  size_t file = 0;
  uint64_t offset = 0, bytes = 0;
  uint64_t needed = 0;  // of the bytes: the rest only fills up the alignment
  std::byte* into = nullptr;
  bool direct = true;
};

// An item in the ring.
struct Slot {
  uint64_t number = 0;
  size_t item = 0;
  uint64_t at = 0, bytes = 0;  // in the ring
  size_t range = 0;            // the range and the byte of it, aligned, that is to be asked for next
  uint64_t asked = 0;
  int under_way = 0;
  bool is_dropped = false;  // nobody wants it any more
};

}  // namespace

struct ReadAhead::State {
  std::vector<DirectFile> files;
  std::vector<ReadItem> items;
  ReadAheadOptions options;
  Log log;
  std::unique_ptr<ReadQueue> queue;
  std::byte* ring = nullptr;
  uint64_t ring_bytes = 0;

  std::mutex mutex;
  std::condition_variable changed;  // for the reading thread: room, another order, the end
  std::condition_variable arrived;  // for the consumer
  std::deque<Slot> slots;           // in the order of the ring
  uint64_t next_number = 0;
  size_t next_item = kNoItem;  // that gets the next slot
  std::optional<Error> failed;  // of the item below
  size_t failed_item = kNoItem;
  bool stop = false;
  ReadStats stats;
  std::thread thread;

  // The reading thread's own.
  std::vector<Request> requests;  // by tag
  std::vector<uint64_t> free_tags;
  int under_way = 0;
  Clock::time_point busy_since;

  std::vector<const std::byte*> addresses;  // of the acquired item; the consumer's own
  bool is_held = false;
  uint64_t held = 0;  // number of the acquired slot

  ~State() {
    {
      std::lock_guard lock(mutex);
      stop = true;
    }
    changed.notify_all();
    if (thread.joinable()) thread.join();
    queue.reset();
    if (ring != nullptr) ::munmap(ring, ring_bytes);
  }

  bool is_asked(const Slot& s) const { return s.range == items[s.item].ranges.size(); }
  bool is_ready(const Slot& s) const { return is_asked(s) && s.under_way == 0; }

  // Slots that nobody wants go, from the front, once no read is on the way into them.
  void collect() {
    while (!slots.empty() && slots.front().is_dropped && slots.front().under_way == 0) slots.pop_front();
  }
  void drop_all() {
    for (Slot& s : slots) s.is_dropped = true;
    collect();
  }

  bool place_of(uint64_t bytes, uint64_t* at) const {
    if (slots.empty()) {
      *at = 0;
      return true;
    }
    const uint64_t head = slots.front().at, tail = slots.back().at + slots.back().bytes;
    if (tail > head) {
      if (ring_bytes - tail >= bytes) {
        *at = tail;
        return true;
      }
      *at = 0;
      return bytes <= head;
    }
    *at = tail;
    return head - tail >= bytes;
  }

  // The next read to ask for, if there is one and room for it.
  std::optional<Request> next_request() {
    if (slots.empty() || slots.back().is_dropped || is_asked(slots.back())) {
      if (next_item == kNoItem) return std::nullopt;
      Slot slot;
      slot.item = next_item;
      slot.bytes = ring_bytes_of(items[next_item]);
      if (!place_of(slot.bytes, &slot.at)) return std::nullopt;
      slot.number = next_number++;
      next_item = items[next_item].next;
      slots.push_back(slot);
      if (is_asked(slots.back())) return next_request();  // an item without bytes
    }
    Slot& s = slots.back();
    const std::vector<FileRange>& ranges = items[s.item].ranges;
    const FileRange& range = ranges[s.range];
    const Aligned whole = aligned(range);
    uint64_t before = 0;
    for (size_t i = 0; i < s.range; ++i) before += aligned(ranges[i]).bytes;
    Request r;
    r.slot = s.number;
    r.file = range.file;
    r.offset = whole.first + s.asked;
    r.bytes = std::min(options.request_bytes, whole.bytes - s.asked);
    r.needed = std::min(r.bytes, range.offset + range.bytes - r.offset);
    r.into = ring + s.at + before + s.asked;
    s.asked += r.bytes;
    if (s.asked == whole.bytes) {
      ++s.range;
      s.asked = 0;
    }
    ++s.under_way;
    return r;
  }

  void submit(const Request& r) {
    uint64_t tag = free_tags.back();
    free_tags.pop_back();
    requests[tag] = r;
    if (under_way++ == 0) busy_since = Clock::now();
    const DirectFile& file = files[r.file];
    const bool direct = r.direct && file.is_direct();
    requests[tag].direct = direct;
    queue->submit(tag, file.descriptor(direct), r.into, r.bytes, r.offset);
  }

  // Called with the lock held. A read that must go on is submitted again.
  void complete(ReadQueue::Done done) {
    Request r = requests[done.tag];
    free_tags.push_back(done.tag);
    if (--under_way == 0) stats.seconds += seconds_since(busy_since);
    if (done.result > 0) stats.bytes += static_cast<uint64_t>(done.result);
    auto slot = std::find_if(slots.begin(), slots.end(), [&](const Slot& s) { return s.number == r.slot; });
    CHECK(slot != slots.end());  // a slot waits for its reads
    std::optional<Error> error;
    bool again = false;
    if (done.result == -EINTR || done.result == -EAGAIN) {
      again = true;
    } else if (done.result == -EINVAL && r.direct) {
      if (files[r.file].is_direct()) {
        files[r.file].refuse_direct();
        log.info(files[r.file].path() + ": direct reads are refused here: the page cache is used");
      }
      again = true;
    } else if (done.result < 0) {
      error = read_failed(files[r.file], r.offset, r.bytes, static_cast<int>(-done.result));
    } else if (static_cast<uint64_t>(done.result) < r.needed) {
      // Short: the rest is read the ordinary way, which may begin anywhere.
      const uint64_t got = static_cast<uint64_t>(done.result);
      if (got == 0 && !r.direct) error = ends_early(files[r.file], r.offset, r.offset + r.needed);
      r.offset += got;
      r.into += got;
      r.needed -= got;
      r.bytes = r.needed;
      r.direct = false;
      again = true;
    }
    if (again && !error && !slot->is_dropped) {
      submit(r);
      return;
    }
    --slot->under_way;
    if (error && !slot->is_dropped) {
      // What was read before it stays good. Nothing more is asked of a bad disk until somebody wants it.
      failed = std::move(error);
      failed_item = slot->item;
      for (; slot != slots.end(); ++slot) slot->is_dropped = true;
      next_item = kNoItem;
    }
    collect();
    arrived.notify_all();
  }

  void work() {
    std::unique_lock lock(mutex);
    for (;;) {
      while (!stop && under_way < options.depth) {
        std::optional<Request> request = next_request();
        if (!request) break;
        submit(*request);
      }
      if (under_way == 0) {
        if (stop) return;
        changed.wait(lock);
        continue;
      }
      lock.unlock();
      ReadQueue::Done done = queue->wait();
      lock.lock();
      if (stop) drop_all();
      complete(done);
    }
  }
};

uint64_t ReadAhead::ring_bytes_of(const ReadItem& item) {
  uint64_t bytes = 0;
  for (const FileRange& range : item.ranges) bytes += aligned(range).bytes;
  return bytes;
}

Result<std::unique_ptr<ReadAhead>> ReadAhead::create(const std::vector<std::string>& paths,
                                                     std::vector<ReadItem> items,
                                                     const ReadAheadOptions& options, const Log& log) {
  CHECK(options.depth > 0 && options.request_bytes % kDirectAlignment == 0 && options.request_bytes > 0);
  auto state = std::make_unique<State>();
  state->options = options;
  state->log = log;
  state->ring_bytes = round_up(options.ring_bytes, kDirectAlignment);
  for (const std::string& path : paths) {
    state->files.push_back(TRY(DirectFile::open(path)));
    if (!state->files.back().is_direct()) {
      log.info(path + ": direct reads are refused here: the page cache is used");
    }
  }
  for (const ReadItem& item : items) {
    for (const FileRange& range : item.ranges) {
      CHECK(range.file < state->files.size() && range.bytes > 0);
      const DirectFile& file = state->files[range.file];
      if (range.offset > file.bytes() || range.bytes > file.bytes() - range.offset) {
        return ends_early(file, file.bytes(), range.offset + range.bytes);
      }
    }
    if (ring_bytes_of(item) > state->ring_bytes) {
      return Error(ErrorCode::too_large, "a read-ahead ring of " + std::to_string(state->ring_bytes) +
                                             " bytes cannot hold a piece of " +
                                             std::to_string(ring_bytes_of(item)));
    }
  }
  state->items = std::move(items);
  void* ring = ::mmap(nullptr, state->ring_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (ring == MAP_FAILED) {
    return Error(ErrorCode::out_of_memory, "no memory to read ahead: " +
                                               std::to_string(state->ring_bytes >> 20) + " MiB could not be had");
  }
  state->ring = static_cast<std::byte*>(ring);
  if (state->ring_bytes >= kHugeFrom) ::madvise(ring, state->ring_bytes, MADV_HUGEPAGE);
  state->queue = TRY(create_read_queue(options.depth, options.read, log));
  state->requests.resize(static_cast<size_t>(options.depth));
  for (int i = 0; i < options.depth; ++i) state->free_tags.push_back(static_cast<uint64_t>(i));
  try {
    state->thread = std::thread([s = state.get()] { s->work(); });
  } catch (const std::exception&) {
    return Error(ErrorCode::io, "no thread could be started to read the weights");
  }
  return std::unique_ptr<ReadAhead>(new ReadAhead(std::move(state)));
}

ReadAhead::ReadAhead(std::unique_ptr<State> state) : state_(std::move(state)) {}
ReadAhead::~ReadAhead() = default;

void ReadAhead::start(size_t item) {
  State& s = *state_;
  CHECK(item < s.items.size() && !s.is_held);
  {
    std::lock_guard lock(s.mutex);
    s.drop_all();
    s.failed.reset();
    s.next_item = item;
  }
  s.changed.notify_all();
}

Result<std::span<const std::byte* const>> ReadAhead::acquire(size_t item) {
  State& s = *state_;
  CHECK(item < s.items.size() && !s.is_held);
  const Clock::time_point start = Clock::now();
  std::unique_lock lock(s.mutex);
  auto wanted = [&] {
    return std::find_if(s.slots.begin(), s.slots.end(),
                        [&](const Slot& slot) { return slot.item == item && !slot.is_dropped; });
  };
  auto has_failed = [&] { return s.failed.has_value() && s.failed_item == item; };
  for (bool is_fresh = false;;) {
    auto found = wanted();
    s.failed.reset();  // of something else, or of an earlier try
    if (found != s.slots.end()) {
      for (auto it = s.slots.begin(); it != found; ++it) it->is_dropped = true;
      s.collect();
    } else {
      is_fresh = true;
      s.drop_all();
      s.next_item = item;
    }
    s.changed.notify_all();
    s.arrived.wait(lock, [&] {
      auto it = wanted();
      return has_failed() || (it != s.slots.end() && s.is_ready(*it));
    });
    if (!has_failed()) break;
    // An error met ahead of need may have passed: it is told when it comes again.
    if (is_fresh) {
      s.stats.waited_seconds += seconds_since(start);
      return *std::exchange(s.failed, std::nullopt);
    }
  }
  s.stats.waited_seconds += seconds_since(start);
  auto slot = wanted();
  s.addresses.clear();
  uint64_t at = slot->at;
  for (const FileRange& range : s.items[item].ranges) {
    const Aligned whole = aligned(range);
    s.addresses.push_back(s.ring + at + (range.offset - whole.first));
    at += whole.bytes;
  }
  s.is_held = true;
  s.held = slot->number;
  return std::span<const std::byte* const>(s.addresses);
}

void ReadAhead::release() {
  State& s = *state_;
  CHECK(s.is_held);
  s.is_held = false;
  {
    std::lock_guard lock(s.mutex);
    for (Slot& slot : s.slots) {  // it may be gone: dropped when a read behind it failed
      if (slot.number == s.held) slot.is_dropped = true;
    }
    s.collect();
  }
  s.changed.notify_all();
}

ReadStats ReadAhead::stats() const {
  std::lock_guard lock(state_->mutex);
  ReadStats stats = state_->stats;
  if (state_->under_way > 0) stats.seconds += seconds_since(state_->busy_since);
  return stats;
}

const char* ReadAhead::method() const { return state_->queue->name(); }

Result<ReadRate> measure_read_rate(const std::string& path, uint64_t offset, uint64_t max_bytes,
                                   double max_seconds, uint64_t ring_bytes) {
  // The first filling of the ring is not counted: its memory is touched for the first time. A disk that stands
  // still for a moment is given the time for some pieces.
  constexpr size_t kRingPieces = 6, kLeastPieces = 4;
  constexpr double kPatience = 10;
  const DirectFile file = TRY(DirectFile::open(path));
  ReadRate rate;
  rate.is_direct = file.is_direct();
  const uint64_t first = std::min(offset, file.bytes());
  const uint64_t bytes = std::min(max_bytes, file.bytes() - first);
  const uint64_t piece = std::max<uint64_t>(ring_bytes / kRingPieces / kDirectAlignment, 1) * kDirectAlignment;
  std::vector<ReadItem> items;
  for (uint64_t at = 0; at < bytes; at += piece) {
    items.push_back({{{0, first + at, std::min(piece, bytes - at)}}, items.size() + 1});
  }
  if (items.empty()) return rate;
  items.back().next = kNoItem;
  ReadAheadOptions options;
  options.ring_bytes = kRingPieces * (piece + 2 * kDirectAlignment);
  std::unique_ptr<ReadAhead> ahead = TRY(ReadAhead::create({path}, items, options, Log()));
  ahead->start(0);
  const Clock::time_point start = Clock::now();
  Clock::time_point counted = start;
  const size_t skipped = items.size() >= kRingPieces + kLeastPieces ? kRingPieces : 0;
  for (size_t i = 0; i < items.size(); ++i) {
    const bool is_enough = i >= skipped + kLeastPieces && seconds_since(counted) >= max_seconds;
    if (is_enough || seconds_since(start) >= kPatience * max_seconds) break;
    TRY(ahead->acquire(i));
    ahead->release();
    if (i < skipped) {
      counted = Clock::now();
    } else {
      rate.bytes += items[i].ranges[0].bytes;
    }
  }
  rate.seconds = seconds_since(counted);
  return rate;
}

}  // namespace bise
