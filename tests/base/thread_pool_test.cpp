#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace bise {
namespace {

TEST(thread_pool, every_index_runs_exactly_once) {
  for (int num_threads : {1, 2, 3, 8}) {
    ThreadPool pool(num_threads);
    for (int64_t count : {0, 1, 2, 7, 64, 1000}) {
      for (int64_t grain : {-1, 0, 1, 3, 64, 5000}) {
        // Plain ints on purpose: a second visit, or a missing fence, is a race that TSan sees.
        std::vector<int> visits(static_cast<size_t>(count), 0);
        pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int) {
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        for (int visit : visits) ASSERT_EQ(1, visit) << num_threads << " " << count << " " << grain;
      }
    }
  }
}

// Nodes that need not be there: binding to processors that are missing is refused, and nothing else changes.
std::vector<MemoryNode> nodes_with(std::initializer_list<int> processors) {
  std::vector<MemoryNode> nodes;
  for (int count : processors) {
    nodes.push_back({static_cast<int>(nodes.size()), {}});
    for (int i = 0; i < count; ++i) nodes.back().cpus.push_back(i);
  }
  return nodes;
}

TEST(thread_pool, every_index_runs_once_on_several_memory_nodes) {
  for (const auto& nodes : {nodes_with({1, 1}), nodes_with({1, 3}), nodes_with({2, 1, 4})}) {
    for (int num_threads : {1, 2, 3, 7}) {
      ThreadPool pool(num_threads, nodes);
      for (int64_t count : {0, 1, 2, 7, 64, 1000}) {
        for (int64_t grain : {1, 3, 64, 5000}) {
          std::vector<int> visits(static_cast<size_t>(count), 0);
          pool.parallel_for(count, grain, [&](int64_t begin, int64_t end, int) {
            EXPECT_EQ(begin % grain, 0);
            EXPECT_EQ(end, std::min(begin + grain, count));
            for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
          });
          for (int visit : visits) ASSERT_EQ(1, visit) << num_threads << " " << count << " " << grain;
        }
      }
    }
  }
}

TEST(thread_pool, threads_and_indices_are_shared_out_by_the_processors_of_the_nodes) {
  ThreadPool pool(8, nodes_with({1, 3}));
  ASSERT_EQ(pool.groups().size(), 2u);
  EXPECT_EQ(pool.groups()[0].num_workers, 2);
  EXPECT_EQ(pool.groups()[1].first_worker, 2);
  EXPECT_EQ(pool.groups()[1].num_workers, 6);
  EXPECT_EQ(pool.part_end(0, 100), 25);
  EXPECT_EQ(pool.part_end(0, 100, 10), 20);
  EXPECT_EQ(pool.part_end(1, 100, 10), 100);
  EXPECT_EQ(pool.part_end(0, 1), 0);
  // A node for which no thread is left, and a machine with one node: nothing is bound.
  EXPECT_EQ(ThreadPool(1, nodes_with({2, 2})).groups().size(), 1u);
  EXPECT_EQ(ThreadPool(4, nodes_with({2})).groups().size(), 1u);
  EXPECT_EQ(ThreadPool(4).groups().size(), 1u);
}

TEST(thread_pool, workers_begin_with_the_part_of_their_node_and_help_when_it_is_done) {
  ThreadPool pool(2, nodes_with({1, 1}));
  ASSERT_EQ(pool.num_threads(), 2);
  for (int round = 0; round < 20; ++round) {
    std::vector<int> worker_of(8, -1);
    std::atomic<int> begun{0};
    pool.parallel_for(8, 1, [&](int64_t begin, int64_t, int worker) {
      if (begin % 4 == 0) {  // the first of each part: both are inside before either goes on
        ++begun;
        while (begun < 2) std::this_thread::yield();
      }
      worker_of[static_cast<size_t>(begin)] = worker;
    });
    EXPECT_EQ(worker_of[0], 0);
    EXPECT_EQ(worker_of[4], 1);
  }
  std::atomic<bool> helped{false};
  pool.parallel_for(8, 1, [&](int64_t begin, int64_t, int worker) {
    if (begin >= 4 && worker == 0) helped = true;
    while (begin == 4 && worker == 1 && !helped) std::this_thread::yield();  // the caller does the rest of this node's part
  });
}

TEST(thread_pool, pieces_are_the_same_for_any_number_of_threads) {
  for (int num_threads : {1, 2, 5}) {
    ThreadPool pool(num_threads);
    std::vector<int64_t> end_of(100, -1);
    pool.parallel_for(100, 7, [&](int64_t begin, int64_t end, int) {
      end_of[static_cast<size_t>(begin)] = end;
    });
    for (int64_t i = 0; i < 100; ++i) {
      int64_t want = i % 7 == 0 ? std::min<int64_t>(i + 7, 100) : -1;
      EXPECT_EQ(want, end_of[static_cast<size_t>(i)]) << num_threads;
    }
  }
}

TEST(thread_pool, a_worker_number_is_never_in_two_bodies_at_once) {
  ThreadPool pool(4);
  ASSERT_EQ(4, pool.num_threads());
  std::vector<int> inside(4, 0);  // plain: TSan sees two bodies with one number
  std::atomic<int> wrong{0};
  for (int round = 0; round < 200; ++round) {
    pool.parallel_for(64, 1, [&](int64_t, int64_t, int worker) {
      if (worker < 0 || worker >= 4) {
        ++wrong;
        return;
      }
      int& mine = inside[static_cast<size_t>(worker)];
      if (++mine != 1) ++wrong;
      --mine;
    });
  }
  EXPECT_EQ(0, wrong.load());
}

TEST(thread_pool, loops_follow_each_other_without_a_lost_wake_up) {
  ThreadPool pool(3);
  int64_t sum = 0;
  std::vector<int64_t> part(3);
  for (int64_t round = 0; round < 5000; ++round) {
    pool.parallel_for(6, 1, [&](int64_t begin, int64_t, int worker) {
      part[static_cast<size_t>(worker)] += begin + round;
    });
    // Long enough now and then for the workers to fall asleep.
    if (round % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    sum += 15 + 6 * round;
  }
  EXPECT_EQ(sum, part[0] + part[1] + part[2]);
}

TEST(thread_pool, what_the_bodies_wrote_is_visible_to_the_next_loop) {
  ThreadPool pool(4);
  std::vector<int64_t> values(257, 0);
  for (int round = 0; round < 300; ++round) {
    // Each index reads what another worker may have written in the loop before.
    std::vector<int64_t> next(values.size());
    pool.parallel_for(257, 2, [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        next[static_cast<size_t>(i)] = values[static_cast<size_t>((i + 100) % 257)] + 1;
      }
    });
    values.swap(next);
  }
  for (int64_t value : values) EXPECT_EQ(300, value);
}

TEST(thread_pool, a_pool_that_never_ran_ends_cleanly) {
  for (int i = 0; i < 50; ++i) ThreadPool pool(4);
  ThreadPool none(0);
  EXPECT_EQ(1, none.num_threads());
  ThreadPool negative(-3);
  EXPECT_EQ(1, negative.num_threads());
}

TEST(thread_pool, two_pools_work_side_by_side) {
  auto work = [](int64_t* sum) {
    ThreadPool pool(2);
    for (int round = 0; round < 500; ++round) {
      std::atomic<int64_t> part{0};
      pool.parallel_for(50, 1, [&](int64_t begin, int64_t, int) { part += begin; });
      *sum += part;
    }
  };
  int64_t first = 0, second = 0;
  std::thread other(work, &first);
  work(&second);
  other.join();
  EXPECT_EQ(500 * 1225, first);
  EXPECT_EQ(500 * 1225, second);
}

TEST(thread_pool_death, a_loop_within_a_loop_is_a_bug_that_is_named) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        ThreadPool pool(2);
        pool.parallel_for(8, 1, [&](int64_t, int64_t, int) {
          pool.parallel_for(8, 1, [](int64_t, int64_t, int) {});
        });
      },
      "bug: CHECK");
}

TEST(thread_pool, usable_cores_is_at_least_one) {
  EXPECT_GE(usable_cores(), 1);
  EXPECT_LE(usable_cores(), 4096);
}

}  // namespace
}  // namespace bise
