#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <new>

namespace bise {
namespace {

Error os_error(const std::string& path, const char* verb) {
  int code = errno;
  ErrorCode kind = code == ENOENT || code == ENOTDIR ? ErrorCode::not_found
                   : code == ENOMEM                  ? ErrorCode::out_of_memory
                                                     : ErrorCode::io;
  return Error(kind, path + ": cannot " + verb + ": " + std::strerror(code));
}

struct Descriptor {
  int fd = -1;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

void advise(Bytes part, int advice, bool inward) {
  const uintptr_t page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  uintptr_t begin = reinterpret_cast<uintptr_t>(part.data());
  uintptr_t end = begin + part.size();
  begin = inward ? round_up(begin, page) : begin / page * page;
  if (inward) end = end / page * page;
  if (end > begin) ::madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace

Result<FileMap> FileMap::open(const std::string& path) {
  // O_NONBLOCK: a named pipe is refused below, not waited for.
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) return os_error(path, "open");
  struct stat info;
  if (::fstat(file.fd, &info) != 0) return os_error(path, "read the size of");
  if (!S_ISREG(info.st_mode)) {
    return Error(ErrorCode::io, path + ": expected a file, found a folder or a device");
  }
  FileMap map;
  map.path_ = path;
  if (info.st_size > 0) {
    size_t size = static_cast<size_t>(info.st_size);
    void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd, 0);
    if (data == MAP_FAILED) return os_error(path, "map");
    map.bytes_ = {static_cast<const std::byte*>(data), size};
  }
  return map;
}

FileMap::FileMap(FileMap&& other) noexcept
    : path_(std::move(other.path_)), bytes_(std::exchange(other.bytes_, {})) {}
FileMap& FileMap::operator=(FileMap&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(bytes_, other.bytes_);
  return *this;
}
FileMap::~FileMap() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}
void FileMap::drop(Bytes part) const { advise(part, MADV_DONTNEED, true); }
void FileMap::will_need(Bytes part) const { advise(part, MADV_WILLNEED, false); }

void give_back_pages(Bytes part) { advise(part, MADV_DONTNEED, false); }

double cached_share(const std::string& path, Bytes part) {
  constexpr uint64_t kSamples = 128;
  const uint64_t page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  if (part.empty()) return 1.0;
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  struct stat info;
  if (file.fd < 0 || ::fstat(file.fd, &info) != 0) return 0.0;
  // To strangers mincore() says that everything is there.
  const bool may_ask = info.st_uid == ::geteuid() || ::access(path.c_str(), W_OK) == 0;
  if (!may_ask) return 0.0;
  const uintptr_t first = reinterpret_cast<uintptr_t>(part.data()) / page * page;
  const uint64_t pages = (reinterpret_cast<uintptr_t>(part.data()) + part.size() - first + page - 1) / page;
  const uint64_t samples = std::min(pages, kSamples);
  uint64_t cached = 0;
  for (uint64_t i = 0; i < samples; ++i) {
    unsigned char state = 0;
    void* at = reinterpret_cast<void*>(first + pages * i / samples * page);
    if (::mincore(at, page, &state) == 0 && (state & 1) != 0) ++cached;
  }
  return static_cast<double>(cached) / static_cast<double>(samples);
}

Result<std::string> read_file(const std::string& path, uint64_t max_bytes) {
  Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (file.fd < 0) return os_error(path, "open");
  try {
    std::string text;
    for (;;) {
      size_t have = text.size();
      if (have > max_bytes) {
        return Error(ErrorCode::too_large,
                     path + ": larger than the limit of " + std::to_string(max_bytes) + " bytes");
      }
      text.resize(have + (size_t{1} << 16));
      ssize_t got = ::read(file.fd, text.data() + have, text.size() - have);
      int code = errno;
      text.resize(have + (got > 0 ? static_cast<size_t>(got) : 0));
      if (got == 0) return text;
      errno = code;
      if (got < 0 && code != EINTR) return os_error(path, "read");
    }
  } catch (const std::bad_alloc&) {
    return Error(ErrorCode::out_of_memory, path + ": out of memory while reading");
  }
}

bool file_exists(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISREG(info.st_mode);
}
bool folder_exists(const std::string& path) {
  struct stat info;
  return ::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode);
}

Result<FileWriter> FileWriter::create(const std::string& path) {
  // rename() would put a file in the place of a device such as /dev/null, so only files give way.
  struct stat info;
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return Error(ErrorCode::io, path + ": cannot write: it is a folder or a device; name a file");
  }
  FileWriter writer;
  writer.path_ = path;
  for (int attempt = 0; attempt < 1000; ++attempt) {
    // "x": never another writer's part, and never through a link that someone laid there.
    writer.part_path_ = path + ".part" + std::to_string(::getpid()) + "-" + std::to_string(attempt);
    writer.file_ = std::fopen(writer.part_path_.c_str(), "wbxe");
    if (writer.file_ != nullptr) return writer;
    if (errno != EEXIST) break;
  }
  return os_error(path, "create");
}
FileWriter::FileWriter(FileWriter&& other) noexcept
    : path_(std::move(other.path_)),
      part_path_(std::move(other.part_path_)),
      file_(std::exchange(other.file_, nullptr)),
      failed_(other.failed_) {}
FileWriter::~FileWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  ::unlink(part_path_.c_str());
}
Result<void> FileWriter::write(Bytes bytes) {
  CHECK(file_ != nullptr);  // no write after commit()
  if (bytes.empty()) return {};
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) {
    failed_ = true;
    return os_error(path_, "write");
  }
  return {};
}
Result<void> FileWriter::commit() {
  CHECK(file_ != nullptr);
  errno = EIO;  // for a write that failed before and was reported then
  bool written = !failed_ && std::fflush(file_) == 0 && ::fsync(::fileno(file_)) == 0;
  int code = errno;
  std::fclose(std::exchange(file_, nullptr));
  const char* verb = "write";
  if (written) {
    if (::rename(part_path_.c_str(), path_.c_str()) == 0) return {};
    code = errno;
    verb = "rename into place";
  }
  ::unlink(part_path_.c_str());
  errno = code;
  return os_error(path_, verb);
}

}  // namespace bise
