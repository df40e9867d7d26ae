#include "base/read_queue.h"

#include <fcntl.h>
#include <liburing.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace bise {
namespace {

class UringQueue : public ReadQueue {
 public:
  // Null and errno when the kernel refuses.
  static std::unique_ptr<UringQueue> create(int depth) {
    auto queue = std::make_unique<UringQueue>();
    int status = io_uring_queue_init(static_cast<unsigned>(depth), &queue->ring_, 0);
    if (status < 0) {
      errno = -status;
      return nullptr;
    }
    queue->is_open_ = true;
    return queue;
  }
  ~UringQueue() override {
    if (is_open_) io_uring_queue_exit(&ring_);
  }
  const char* name() const override { return "io_uring"; }

  void submit(uint64_t tag, int descriptor, void* into, uint64_t bytes, uint64_t offset) override {
    io_uring_sqe* entry = io_uring_get_sqe(&ring_);
    CHECK(entry != nullptr);  // the caller keeps to the depth
    io_uring_prep_read(entry, descriptor, into, static_cast<unsigned>(bytes), offset);
    io_uring_sqe_set_data64(entry, tag);
    int status = io_uring_submit(&ring_);
    while (status == -EINTR || status == -EAGAIN || status == -EBUSY) status = io_uring_submit(&ring_);
    CHECK(status >= 0);
  }
  Done wait() override {
    io_uring_cqe* entry = nullptr;
    int status = io_uring_wait_cqe(&ring_, &entry);
    while (status == -EINTR || status == -EAGAIN) status = io_uring_wait_cqe(&ring_, &entry);
    CHECK(status == 0);
    Done done{io_uring_cqe_get_data64(entry), entry->res};
    io_uring_cqe_seen(&ring_, entry);
    return done;
  }

 private:
  io_uring ring_{};
  bool is_open_ = false;
};

class ThreadQueue : public ReadQueue {
 public:
  explicit ThreadQueue(ReadFunction read) : read_(std::move(read)) {}
  bool start(int threads) {
    for (int i = 0; i < threads; ++i) {
      try {
        threads_.emplace_back([this] { work(); });
      } catch (const std::exception&) {
        break;  // the system gives no more: work with those we have
      }
    }
    return !threads_.empty();
  }
  ~ThreadQueue() override {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }
  const char* name() const override { return "threads"; }

  void submit(uint64_t tag, int descriptor, void* into, uint64_t bytes, uint64_t offset) override {
    {
      std::lock_guard lock(mutex_);
      waiting_.push_back({tag, descriptor, into, bytes, offset});
    }
    wake_.notify_one();
  }
  Done wait() override {
    std::unique_lock lock(mutex_);
    finished_.wait(lock, [&] { return !done_.empty(); });
    Done done = done_.front();
    done_.pop_front();
    return done;
  }

 private:
  struct Request {
    uint64_t tag;
    int descriptor;
    void* into;
    uint64_t bytes, offset;
  };
  void work() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [&] { return stop_ || !waiting_.empty(); });
      if (stop_) return;
      Request r = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      Done done{r.tag, read_(r.descriptor, r.into, r.bytes, r.offset)};
      lock.lock();
      done_.push_back(done);
      finished_.notify_one();
    }
  }

  ReadFunction read_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::deque<Request> waiting_;
  std::deque<Done> done_;
  bool stop_ = false;
};

int64_t system_read(int descriptor, void* into, uint64_t bytes, uint64_t offset) {
  ssize_t got = ::pread(descriptor, into, bytes, static_cast<off_t>(offset));
  return got >= 0 ? got : -int64_t{errno};
}

}  // namespace

Result<DirectFile> DirectFile::open(const std::string& path) {
  DirectFile file;
  file.path_ = path;
  file.buffered_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat info {};
  if (file.buffered_ < 0 || ::fstat(file.buffered_, &info) != 0) {
    return Error(errno == ENOENT ? ErrorCode::not_found : ErrorCode::io,
                 path + ": cannot open: " + std::strerror(errno));
  }
  file.bytes_ = static_cast<uint64_t>(info.st_size);
  file.direct_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT | O_NONBLOCK);
  return file;
}
DirectFile::DirectFile(DirectFile&& other) noexcept
    : path_(std::move(other.path_)),
      bytes_(other.bytes_),
      direct_(std::exchange(other.direct_, -1)),
      buffered_(std::exchange(other.buffered_, -1)) {}
DirectFile::~DirectFile() {
  if (direct_ >= 0) ::close(direct_);
  if (buffered_ >= 0) ::close(buffered_);
}

Error read_failed(const DirectFile& file, uint64_t offset, uint64_t bytes, int error_number) {
  return Error(ErrorCode::io, file.path() + ": cannot read " + std::to_string(bytes) + " bytes at " +
                                  std::to_string(offset) + ": " + std::strerror(error_number));
}
Error ends_early(const DirectFile& file, uint64_t end, uint64_t wanted) {
  return Error(ErrorCode::io, file.path() + ": ends at byte " + std::to_string(end) +
                                  ", but a tensor reaches to " + std::to_string(wanted) +
                                  "; was the file changed?");
}

Result<void> read_bytes(const DirectFile& file, const ReadFunction& read, uint64_t offset, uint64_t bytes,
                        void* into) {
  for (uint64_t done = 0; done < bytes;) {
    void* at = static_cast<std::byte*>(into) + done;
    const int descriptor = file.descriptor(/*direct=*/false);
    const int64_t got = read ? read(descriptor, at, bytes - done, offset + done)
                             : system_read(descriptor, at, bytes - done, offset + done);
    if (got == 0) return ends_early(file, offset + done, offset + bytes);
    if (got < 0 && got != -EINTR) return read_failed(file, offset + done, bytes - done, static_cast<int>(-got));
    if (got > 0) done += static_cast<uint64_t>(got);
  }
  return {};
}

Result<std::unique_ptr<ReadQueue>> create_read_queue(int depth, ReadFunction read, const Log& log) {
  if (!read) {
    std::unique_ptr<UringQueue> ring = UringQueue::create(depth);
    if (ring) return std::unique_ptr<ReadQueue>(std::move(ring));
    log.info(std::string("io_uring is refused here (") + std::strerror(errno) +
             "): threads read the weights");
    read = system_read;
  }
  auto threads = std::make_unique<ThreadQueue>(std::move(read));
  if (!threads->start(depth)) {
    return Error(ErrorCode::io, "no thread could be started to read the weights");
  }
  return std::unique_ptr<ReadQueue>(std::move(threads));
}

}  // namespace bise
