// Memory nodes (NUMA): processors with the memory that is near to them. The kernel's
// Documentation/ABI/stable/sysfs-devices-node, mbind(2).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bise {

struct MemoryNode {
  int id = 0;
  std::vector<int> cpus;  // that this process may run on; never empty
};

// "0-3,8,10-11"; nothing: the text is no such list.
std::optional<std::vector<int>> parse_cpu_list(std::string_view text);
// The nodes with processors of `allowed`, by id. Empty where the system does not tell.
std::vector<MemoryNode> read_memory_nodes(const std::string& folder, std::span<const int> allowed);
// Those of this machine.
std::vector<MemoryNode> memory_nodes();

// From now on the calling thread runs on these processors only. False: the system refuses.
bool run_on(std::span<const int> cpus);
// Pages that lie wholly in the bytes and were not touched yet come from the node, from another when it is full. False: the system
// refuses (a container needs CAP_SYS_NICE for it).
bool place_on_node(void* data, uint64_t bytes, int node);
// The same with pages from all the nodes in turn.
bool place_in_turn(void* data, uint64_t bytes, std::span<const MemoryNode> nodes);

}  // namespace bise
