#include "base/read_ahead.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <mutex>
#include <set>

#include "base/random.h"
#include "support/temp_folder.h"

namespace bise {
namespace {

// Byte i of the test files.
std::byte byte_at(uint64_t i) { return static_cast<std::byte>((i * 2654435761u) >> 13); }

class ReadAheadTest : public ::testing::Test {
 protected:
  std::string file(const std::string& name, uint64_t bytes) {
    std::string text(bytes, '\0');
    for (uint64_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(byte_at(i));
    const std::string path = folder_.path() + "/" + name;
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  TempFolder folder_;
};

int64_t plain_read(int descriptor, void* into, uint64_t bytes, uint64_t offset) {
  ssize_t got = ::pread(descriptor, into, bytes, static_cast<off_t>(offset));
  return got >= 0 ? got : -int64_t{errno};
}

void expect_item(ReadAhead& ahead, const std::vector<ReadItem>& items, size_t item) {
  auto addresses = ahead.acquire(item);
  ASSERT_TRUE(addresses.has_value()) << addresses.error().message();
  ASSERT_EQ(addresses->size(), items[item].ranges.size());
  for (size_t r = 0; r < addresses->size(); ++r) {
    const FileRange& range = items[item].ranges[r];
    for (uint64_t i = 0; i < range.bytes; ++i) {
      ASSERT_EQ((*addresses)[r][i], byte_at(range.offset + i)) << "item " << item << " byte " << i;
    }
  }
  ahead.release();
}

// Items of odd sizes at odd places of two files, the last bytes of both among them.
std::vector<ReadItem> odd_items(uint64_t bytes) {
  std::vector<ReadItem> items;
  uint64_t drawn = 0;
  auto below = [&](uint64_t n) { return random_bits(3, 0, drawn++) % n; };
  for (size_t i = 0; i < 40; ++i) {
    ReadItem item;
    for (uint64_t n = 1 + below(3); n > 0; --n) {
      uint64_t size = 1 + below(30000), offset = below(bytes - size);
      item.ranges.push_back({below(2), offset, size});
    }
    item.next = i + 1;
    items.push_back(item);
  }
  items[7].ranges[0] = {0, bytes - 1, 1};
  items[8].ranges[0] = {1, bytes - 5000, 5000};
  items[9].ranges[0] = {1, 0, 1};
  items.back().next = 0;
  return items;
}

TEST_F(ReadAheadTest, gives_the_bytes_of_every_range_in_order_and_out_of_order) {
  constexpr uint64_t kBytes = 300'001;
  const std::vector<std::string> paths = {file("a", kBytes), file("b", kBytes)};
  const std::vector<ReadItem> items = odd_items(kBytes);
  // By io_uring (threads where it is refused), and by threads.
  for (const ReadFunction& read : {ReadFunction(), ReadFunction(plain_read)}) {
    for (uint64_t ring : {120'000u, 500'000u}) {
      ReadAheadOptions options;
      options.ring_bytes = ring;
      options.request_bytes = 8192;
      options.depth = 3;
      options.read = read;
      auto ahead = ReadAhead::create(paths, items, options, Log());
      ASSERT_TRUE(ahead.has_value()) << ahead.error().message();
      (*ahead)->start(0);
      for (int round = 0; round < 3; ++round) {
        for (size_t i = 0; i < items.size(); ++i) expect_item(**ahead, items, i);
      }
      for (size_t i : {5u, 3u, 3u, 39u, 0u, 2u, 30u, 31u}) expect_item(**ahead, items, i);
      EXPECT_GT((*ahead)->stats().bytes, 0u);
    }
  }
}

TEST_F(ReadAheadTest, short_and_interrupted_reads_lose_nothing) {
  constexpr uint64_t kBytes = 300'001;
  const std::vector<std::string> paths = {file("a", kBytes), file("b", kBytes)};
  const std::vector<ReadItem> items = odd_items(kBytes);
  std::atomic<int> calls{0};
  ReadAheadOptions options;
  options.ring_bytes = 200'000;
  options.request_bytes = 16384;
  options.read = [&](int descriptor, void* into, uint64_t bytes, uint64_t offset) -> int64_t {
    switch (calls++ % 5) {
      case 1: return -EINTR;
      case 2: return plain_read(descriptor, into, (bytes + 1) / 2, offset);
      case 3: {  // a rest that no direct read could continue
        int64_t got = plain_read(descriptor, into, bytes, offset);
        return got > 100 ? got - 99 : got;
      }
      default: return plain_read(descriptor, into, bytes, offset);
    }
  };
  auto ahead = ReadAhead::create(paths, items, options, Log());
  ASSERT_TRUE(ahead.has_value());
  for (size_t i = 0; i < items.size(); ++i) expect_item(**ahead, items, i);
}

TEST_F(ReadAheadTest, a_file_system_that_refuses_direct_reads_is_read_through_the_page_cache) {
  const std::vector<std::string> paths = {file("a", 100'000)};
  const std::vector<ReadItem> items = {{{{0, 5, 99'000}}, kNoItem}};
  std::set<int> refused;
  std::mutex mutex;
  int direct = -1;
  ReadAheadOptions options;
  options.request_bytes = 4096;
  options.read = [&](int descriptor, void* into, uint64_t bytes, uint64_t offset) -> int64_t {
    std::lock_guard lock(mutex);
    if (direct < 0) direct = descriptor;  // the first read is a direct one where that can be opened
    if (descriptor == direct) return -EINVAL;
    return plain_read(descriptor, into, bytes, offset);
  };
  std::string said;
  Log log([&](LogLevel, const std::string& text) { said += text; });
  auto ahead = ReadAhead::create(paths, items, options, log);
  ASSERT_TRUE(ahead.has_value());
  auto file = DirectFile::open(paths[0]);
  if (!file->is_direct()) GTEST_SKIP() << "no direct reads in the folder of the tests";
  expect_item(**ahead, items, 0);
  EXPECT_NE(said.find("a: direct reads are refused"), std::string::npos) << said;
}

TEST_F(ReadAheadTest, a_disk_error_is_told_once_and_the_next_try_reads_again) {
  const std::vector<std::string> paths = {file("a", 400'000)};
  std::vector<ReadItem> items;
  for (size_t i = 0; i < 10; ++i) items.push_back({{{0, i * 40'000, 40'000}}, (i + 1) % 10});
  std::atomic<bool> bad{true};
  ReadAheadOptions options;
  options.ring_bytes = 150'000;
  options.read = [&](int descriptor, void* into, uint64_t bytes, uint64_t offset) -> int64_t {
    if (bad && offset > 200'000) return -EIO;
    return plain_read(descriptor, into, bytes, offset);
  };
  auto ahead = ReadAhead::create(paths, items, options, Log());
  ASSERT_TRUE(ahead.has_value());
  size_t i = 0;
  for (; i < 10; ++i) {
    auto got = (*ahead)->acquire(i);
    if (!got) {
      EXPECT_EQ(got.error().code(), ErrorCode::io);
      EXPECT_NE(got.error().message().find("/a: cannot read"), std::string::npos) << got.error().message();
      EXPECT_NE(got.error().message().find("Input/output error"), std::string::npos);
      break;
    }
    (*ahead)->release();
  }
  EXPECT_EQ(i, 6u);  // aligned, the sixth item begins at 196608: the next one meets the bad part
  bad = false;
  for (i = 0; i < 10; ++i) expect_item(**ahead, items, i);
}

TEST_F(ReadAheadTest, a_file_that_is_too_short_is_named_before_and_while_it_is_read) {
  const std::string path = file("a", 100'000);
  auto ahead = ReadAhead::create({path}, {{{{0, 99'000, 1001}}, kNoItem}}, {}, Log());
  ASSERT_FALSE(ahead.has_value());
  EXPECT_EQ(ahead.error().message(),
            path + ": ends at byte 100000, but a tensor reaches to 100001; was the file changed?");
  ahead = ReadAhead::create({path}, {{{{0, 90'000, 10'000}}, kNoItem}}, {}, Log());
  ASSERT_TRUE(ahead.has_value());
  ASSERT_EQ(::truncate(path.c_str(), 95'000), 0);
  auto got = (*ahead)->acquire(0);
  ASSERT_FALSE(got.has_value());
  EXPECT_NE(got.error().message().find("ends at byte 95000"), std::string::npos) << got.error().message();
  EXPECT_FALSE(ReadAhead::create({path + "x"}, {}, {}, Log()).has_value());
}

TEST_F(ReadAheadTest, an_item_larger_than_the_ring_is_refused) {
  ReadAheadOptions options;
  options.ring_bytes = 8192;
  const std::string path = file("a", 100'000);
  auto ahead = ReadAhead::create({path}, {{{{0, 4095, 4098}}, kNoItem}}, options, Log());
  ASSERT_FALSE(ahead.has_value());
  EXPECT_EQ(ahead.error().message(), "a read-ahead ring of 8192 bytes cannot hold a piece of 12288");
  EXPECT_TRUE(ReadAhead::create({path}, {{{{0, 4095, 4097}}, kNoItem}}, options, Log()).has_value());
}

TEST_F(ReadAheadTest, the_rate_of_a_file_counts_its_bytes) {
  auto rate = measure_read_rate(file("a", 9'000'001), 1'000'001, 1 << 30, 60, 48 << 20);
  ASSERT_TRUE(rate.has_value());
  EXPECT_EQ(rate->bytes, 8'000'000u);
  EXPECT_GT(rate->seconds, 0.0);
  // What first fills a small ring is not counted.
  rate = measure_read_rate(file("a", 9'000'001), 0, 1 << 30, 60, 6 * 8192 + 5);
  ASSERT_TRUE(rate.has_value());
  EXPECT_EQ(rate->bytes, 9'000'001u - 6 * 8192);
  EXPECT_GT(rate->seconds, 0.0);
}

}  // namespace
}  // namespace bise
