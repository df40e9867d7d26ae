// What this machine has, read from the operating system; and what this process has used of it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/memory_nodes.h"

namespace bise {

struct Machine {
  std::string cpu_model;
  std::vector<std::string> cpu_features;  // those our kernels could use
  int online_cores = 0, usable_cores = 0;
  std::vector<MemoryNode> memory_nodes;  // with processors that this process may use
  std::optional<double> cpu_quota;  // cores' worth, by cgroup
  uint64_t memory_total = 0, memory_available = 0;
  std::optional<uint64_t> memory_limit;  // by cgroup
  std::string transparent_huge_pages;    // always | madvise | never, empty: unknown
  uint64_t huge_pages_total = 0, huge_page_bytes = 0;
  std::vector<std::string> gpus;
};
Machine read_machine();

// Bytes this process may still use: free memory, cut by the cgroup's limit.
uint64_t available_memory();
// The memory this process holds (VmRSS).
uint64_t held_memory();
// The most memory this process ever held (VmHWM).
uint64_t peak_memory();

// Forgets that peak, so that the next one is of what comes; false where the system cannot.
bool reset_peak_memory();

struct DiskSpeed {
  std::string file;
  uint64_t bytes = 0;
  double seconds = 0;
  bool cached = false;  // the page cache could not be bypassed: the figure is no disk speed
  double gb_per_s() const { return seconds > 0 ? static_cast<double>(bytes) / seconds / 1e9 : 0; }
};
// Reads up to `limit` bytes of a file as weights are read: several reads at once, past the page cache
// where the file system allows it. Nothing when the file cannot be read.
std::optional<DiskSpeed> measure_disk_file(const std::string& file, uint64_t limit);
// The same with the largest file below `folder`.
std::optional<DiskSpeed> measure_disk(const std::string& folder, uint64_t limit);

// Asks the system to forget what it holds of these files in memory. Dirty pages are written first.
void drop_cached(const std::vector<std::string>& files);
// Reads these files through the page cache, so that it holds what it has room for.
void fill_cache(const std::vector<std::string>& files);
// The part of these files' bytes that lies in memory, 0 to 1.
double cached_share(const std::vector<std::string>& files);

}  // namespace bise
