#include "base/memory_nodes.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>

#include "base/bytes.h"

namespace bise {
namespace {

constexpr int kMaxCpus = 1 << 16;
constexpr int kMaxNodes = 1024;
// <linux/mempolicy.h>
constexpr int kPreferred = 1, kInterleave = 3;

std::optional<int> small_number(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value >= kMaxCpus) return std::nullopt;
  return value;
}

bool bind_pages(void* data, uint64_t bytes, int mode, std::span<const int> nodes) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = round_up(reinterpret_cast<uintptr_t>(data), page);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + bytes) / page * page;
  if (begin >= end) return true;
  constexpr size_t kBits = 8 * sizeof(unsigned long);
  unsigned long mask[kMaxNodes / kBits] = {};
  for (int node : nodes) {
    if (node < 0 || node >= kMaxNodes) return false;
    mask[static_cast<size_t>(node) / kBits] |= 1ul << (static_cast<size_t>(node) % kBits);
  }
  // The kernel reads one bit less than it is told.
  return syscall(SYS_mbind, begin, end - begin, mode, mask, kMaxNodes + 1, 0) == 0;
}

}  // namespace

std::optional<std::vector<int>> parse_cpu_list(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  std::vector<int> cpus;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, comma);
    const size_t dash = std::min(item.find('-'), item.size());
    const auto first = small_number(item.substr(0, dash));
    const auto last = dash == item.size() ? first : small_number(item.substr(dash + 1));
    if (!first || !last || *first > *last || comma + 1 == text.size()) return std::nullopt;
    for (int cpu = *first; cpu <= *last; ++cpu) cpus.push_back(cpu);
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return cpus;
}

std::vector<MemoryNode> read_memory_nodes(const std::string& folder, std::span<const int> allowed) {
  std::vector<MemoryNode> nodes;
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    const auto id = name.starts_with("node") ? small_number(std::string_view(name).substr(4)) : std::nullopt;
    if (!id || *id >= kMaxNodes) continue;
    std::ifstream file(it->path() / "cpulist");
    std::string text;
    std::getline(file, text);
    MemoryNode node{*id, {}};
    for (int cpu : parse_cpu_list(text).value_or(std::vector<int>())) {
      if (std::ranges::find(allowed, cpu) != allowed.end()) node.cpus.push_back(cpu);
    }
    if (!node.cpus.empty()) nodes.push_back(std::move(node));  // else memory alone, or not ours
  }
  std::ranges::sort(nodes, {}, &MemoryNode::id);
  return nodes;
}

std::vector<MemoryNode> memory_nodes() {
  std::vector<int> allowed;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return {};
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) allowed.push_back(cpu);
  }
  return read_memory_nodes("/sys/devices/system/node", allowed);
}

bool run_on(std::span<const int> cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (int cpu : cpus) {
    if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &set);
  }
  return sched_setaffinity(0, sizeof(set), &set) == 0;
}

bool place_on_node(void* data, uint64_t bytes, int node) {
  return bind_pages(data, bytes, kPreferred, {&node, 1});
}

bool place_in_turn(void* data, uint64_t bytes, std::span<const MemoryNode> nodes) {
  std::vector<int> ids;
  for (const MemoryNode& node : nodes) ids.push_back(node.id);
  return bind_pages(data, bytes, kInterleave, ids);
}

}  // namespace bise
