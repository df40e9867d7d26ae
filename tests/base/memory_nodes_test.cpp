#include "base/memory_nodes.h"

#include <gtest/gtest.h>
#include <linux/mempolicy.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "support/temp_folder.h"

namespace bise {
namespace {

TEST(memory_nodes, lists_of_processors_are_read_and_others_refused) {
  EXPECT_EQ(parse_cpu_list("0-3,8,10-11\n"), (std::vector<int>{0, 1, 2, 3, 8, 10, 11}));
  EXPECT_EQ(parse_cpu_list("5"), std::vector<int>{5});
  EXPECT_EQ(parse_cpu_list("\n"), std::vector<int>());  // memory alone
  for (const char* bad : {"a", "1,", ",1", "3-1", "1-", "-1", "1--2", "1 2", "0-99999999", "0x1", "1,,2"}) {
    EXPECT_EQ(parse_cpu_list(bad), std::nullopt) << bad;
  }
}

TEST(memory_nodes, nodes_have_the_processors_that_may_be_used) {
  TempFolder folder;
  auto node = [&](const std::string& name, const std::string& list) { folder.write(name + "/cpulist", list + "\n"); };
  node("node10", "8-11");
  node("node0", "0-3");
  node("node1", "4-7");
  node("node2", "");       // memory alone
  node("node3", "rubbish");
  node("nodes", "12");
  node("power", "13");
  std::filesystem::create_directories(folder.at("node4"));  // tells nothing
  const std::vector<int> allowed = {2, 3, 9, 12, 13};
  const auto nodes = read_memory_nodes(folder.path(), allowed);
  ASSERT_EQ(nodes.size(), 2u);
  EXPECT_EQ(nodes[0].id, 0);
  EXPECT_EQ(nodes[0].cpus, (std::vector<int>{2, 3}));
  EXPECT_EQ(nodes[1].id, 10);
  EXPECT_EQ(nodes[1].cpus, std::vector<int>{9});
  EXPECT_TRUE(read_memory_nodes(folder.at("none"), allowed).empty());
}

TEST(memory_nodes, pages_come_from_the_node_and_a_thread_runs_where_it_is_told) {
  const auto nodes = memory_nodes();
  if (nodes.empty()) GTEST_SKIP() << "the system tells no memory nodes";
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE)), bytes = 16 * page;
  auto* data = static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  ASSERT_NE(data, MAP_FAILED);
  const MemoryNode& last = nodes.back();
  if (!place_on_node(data + 1, bytes - 1, last.id)) GTEST_SKIP() << "the system refuses to place memory";
  auto node_of = [](char* address) {
    int node = -1;
    EXPECT_EQ(syscall(SYS_get_mempolicy, &node, nullptr, 0, address, MPOL_F_NODE | MPOL_F_ADDR), 0);
    return node;
  };
  auto policy_of = [](char* address) {
    int mode = -1;
    EXPECT_EQ(syscall(SYS_get_mempolicy, &mode, nullptr, 0, address, MPOL_F_ADDR), 0);
    return mode;
  };
  for (size_t i = 0; i < 16; ++i) data[i * page] = 1;
  EXPECT_EQ(policy_of(data), MPOL_DEFAULT);  // a page that is not wholly in the bytes stays as it was
  EXPECT_EQ(policy_of(data + page), MPOL_PREFERRED);
  for (size_t i = 1; i < 16; ++i) EXPECT_EQ(node_of(data + i * page), last.id);
  EXPECT_TRUE(place_in_turn(data, bytes, nodes));
  EXPECT_EQ(policy_of(data), MPOL_INTERLEAVE);
  EXPECT_TRUE(place_on_node(data + 1, 10, last.id));  // no whole page: nothing to do
  EXPECT_FALSE(place_on_node(data, bytes, 1000));
  EXPECT_FALSE(place_on_node(data, bytes, -1));
  EXPECT_FALSE(place_on_node(data, bytes, 1 << 20));
  munmap(data, bytes);
  std::thread([&] {
    ASSERT_TRUE(run_on({&last.cpus.back(), 1}));
    cpu_set_t set;
    ASSERT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
    EXPECT_EQ(CPU_COUNT(&set), 1);
    EXPECT_TRUE(CPU_ISSET(last.cpus.back(), &set));
    EXPECT_FALSE(run_on({}));
  }).join();
}

}  // namespace
}  // namespace bise
