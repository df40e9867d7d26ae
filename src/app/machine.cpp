#include "app/machine.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <system_error>

#include "app/terminal.h"
#include "base/file.h"
#include "base/read_ahead.h"
#include "base/thread_pool.h"

namespace fs = std::filesystem;

namespace bise {
namespace {

// Files of /proc and /sys say they have size 0, so they are read as streams.
std::string read_small(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// "Key:   value unit" lines, as in /proc/meminfo and /proc/cpuinfo.
std::string field(const std::string& text, const std::string& key) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    std::string name = line.substr(0, colon);
    while (!name.empty() && (name.back() == ' ' || name.back() == '\t')) name.pop_back();
    if (name != key) continue;
    size_t start = line.find_first_not_of(" \t", colon + 1);
    return start == std::string::npos ? "" : line.substr(start);
  }
  return "";
}

uint64_t number(const std::string& text) { return std::strtoull(text.c_str(), nullptr, 10); }
uint64_t kib_field(const std::string& text, const std::string& key) {
  return number(field(text, key)) * 1024;
}

std::optional<uint64_t> cgroup_memory_limit() {
  for (const char* path :
       {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::string text = read_small(path);
    uint64_t limit = number(text);
    // "max", or a number near 2^63, is no limit.
    if (limit != 0 && limit < uint64_t{1} << 60) return limit;
  }
  return std::nullopt;
}

std::optional<double> cgroup_cpu_quota() {
  std::istringstream v2(read_small("/sys/fs/cgroup/cpu.max"));
  double quota = 0, period = 0;
  if (v2 >> quota >> period && period > 0) return quota / period;
  double v1 = std::strtod(read_small("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").c_str(), nullptr);
  double v1_period =
      std::strtod(read_small("/sys/fs/cgroup/cpu/cpu.cfs_period_us").c_str(), nullptr);
  if (v1 > 0 && v1_period > 0) return v1 / v1_period;
  return std::nullopt;
}

std::vector<std::string> useful_features(const std::string& flags) {
  std::vector<std::string> found;
  std::istringstream words(flags);
  std::vector<std::string> all;
  for (std::string word; words >> word;) all.push_back(word);
  for (const char* wanted : {"avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl",
                             "avx512vbmi", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"}) {
    if (std::find(all.begin(), all.end(), wanted) != all.end()) found.push_back(wanted);
  }
  return found;
}

std::vector<std::string> find_gpus() {
  std::vector<std::string> gpus;
  std::error_code ec;
  for (fs::directory_iterator it("/proc/driver/nvidia/gpus", ec), end; !ec && it != end;
       it.increment(ec)) {
    std::string model = field(read_small(it->path().string() + "/information"), "Model");
    gpus.push_back(model.empty() ? it->path().filename().string() : model);
  }
  return gpus;
}

std::optional<fs::path> largest_file(const std::string& folder) {
  std::optional<fs::path> best;
  uint64_t best_bytes = 0;
  std::error_code ec;
  for (fs::recursive_directory_iterator it(folder, ec), end; !ec && it != end; it.increment(ec)) {
    std::error_code one;
    uint64_t bytes = it->is_regular_file(one) ? it->file_size(one) : 0;
    if (!one && bytes > best_bytes) {
      best = it->path();
      best_bytes = bytes;
    }
  }
  return best;
}

}  // namespace

Machine read_machine() {
  Machine machine;
  std::string cpu = read_small("/proc/cpuinfo"), memory = read_small("/proc/meminfo");
  machine.cpu_model = field(cpu, "model name");
  machine.cpu_features = useful_features(field(cpu, "flags"));
  machine.online_cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  machine.usable_cores = usable_cores();
  machine.memory_nodes = memory_nodes();
  machine.cpu_quota = cgroup_cpu_quota();
  machine.memory_total = kib_field(memory, "MemTotal");
  machine.memory_available = available_memory();
  machine.memory_limit = cgroup_memory_limit();
  machine.huge_pages_total = number(field(memory, "HugePages_Total"));
  machine.huge_page_bytes = kib_field(memory, "Hugepagesize");
  // "always [madvise] never": the one in brackets is chosen.
  std::string modes = read_small("/sys/kernel/mm/transparent_hugepage/enabled");
  size_t open = modes.find('['), close = modes.find(']');
  if (open != std::string::npos && close != std::string::npos && open < close) {
    machine.transparent_huge_pages = modes.substr(open + 1, close - open - 1);
  }
  machine.gpus = find_gpus();
  return machine;
}

uint64_t available_memory() {
  uint64_t available = kib_field(read_small("/proc/meminfo"), "MemAvailable");
  if (auto limit = cgroup_memory_limit()) {
    uint64_t used = number(read_small("/sys/fs/cgroup/memory.current"));
    available = std::min(available, *limit > used ? *limit - used : 0);
  }
  return available;
}

uint64_t held_memory() { return kib_field(read_small("/proc/self/status"), "VmRSS"); }
uint64_t peak_memory() { return kib_field(read_small("/proc/self/status"), "VmHWM"); }

bool reset_peak_memory() {
  std::ofstream file("/proc/self/clear_refs");
  file << "5" << std::flush;
  return file.good();
}

std::optional<DiskSpeed> measure_disk_file(const std::string& file, uint64_t limit) {
  constexpr double kMaxSeconds = 60;
  constexpr uint64_t kRing = uint64_t{48} << 20;
  auto rate = measure_read_rate(file, 0, limit, kMaxSeconds, kRing);
  if (!rate || rate->bytes == 0) return std::nullopt;
  return DiskSpeed{file, rate->bytes, rate->seconds, !rate->is_direct};
}

std::optional<DiskSpeed> measure_disk(const std::string& folder, uint64_t limit) {
  std::optional<fs::path> path = largest_file(folder);
  return path ? measure_disk_file(path->string(), limit) : std::nullopt;
}

void drop_cached(const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) continue;
    fdatasync(fd);
    posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    close(fd);
  }
}

void fill_cache(const std::vector<std::string>& files) {
  std::vector<char> buffer(size_t{4} << 20);
  for (const std::string& path : files) {
    std::ifstream file(path, std::ios::binary);
    while (!interrupted() && file.read(buffer.data(), static_cast<std::streamsize>(buffer.size()))) {
    }
  }
}

double cached_share(const std::vector<std::string>& files) {
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  uint64_t pages = 0, held = 0;
  for (const std::string& file : files) {
    auto map = FileMap::open(file);
    if (!map || map->bytes().empty()) continue;
    std::vector<unsigned char> in_memory(ceil_div(map->bytes().size(), page));
    if (mincore(const_cast<std::byte*>(map->bytes().data()), map->bytes().size(), in_memory.data()) != 0) continue;
    pages += in_memory.size();
    held += static_cast<uint64_t>(std::count_if(in_memory.begin(), in_memory.end(), [](unsigned char c) { return (c & 1) != 0; }));
  }
  return pages == 0 ? 0.0 : static_cast<double>(held) / static_cast<double>(pages);
}

}  // namespace bise
