#include "base/file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/temp_folder.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  std::string path(const char* name) const { return folder_.at(name); }
  void put(const char* name, const std::string& text) const { folder_.write(name, text); }
  size_t num_files() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_.path()), {}));
  }
  TempFolder folder_;
};
std::string content(const std::string& path) { return read_file(path, 1 << 20).value(); }

TEST_F(FileTest, a_map_shows_the_bytes_and_survives_a_move) {
  std::string text(10000, 'x');
  text[9999] = 'y';
  put("a", text);
  FileMap map = FileMap::open(path("a")).value();
  const std::byte* data = map.bytes().data();
  FileMap other = std::move(map);
  EXPECT_EQ(data, other.bytes().data());
  EXPECT_TRUE(map.bytes().empty());
  EXPECT_EQ(text, as_text(other.bytes()));
  other.will_need(other.bytes().subspan(5000, 100));
  other.drop(other.bytes());  // the pages come back from the file
  EXPECT_EQ(text, as_text(other.bytes()));
  put("b", "short");
  other = FileMap::open(path("b")).value();
  EXPECT_EQ("short", as_text(other.bytes()));
}

TEST_F(FileTest, an_empty_file_maps_to_no_bytes) {
  put("a", "");
  FileMap map = FileMap::open(path("a")).value();
  EXPECT_TRUE(map.bytes().empty());
  map.drop(map.bytes());
}

TEST_F(FileTest, what_is_no_file_is_refused_with_its_path) {
  auto missing = FileMap::open(path("missing"));
  ASSERT_FALSE(missing);
  EXPECT_EQ(ErrorCode::not_found, missing.error().code());
  EXPECT_EQ(path("missing") + ": cannot open: No such file or directory", missing.error().message());
  auto folder = FileMap::open(folder_.path());
  ASSERT_FALSE(folder);
  EXPECT_EQ(ErrorCode::io, folder.error().code());
  ASSERT_EQ(0, ::mkfifo(path("pipe").c_str(), 0600));
  EXPECT_FALSE(FileMap::open(path("pipe")));  // and does not wait for a writer
  EXPECT_FALSE(read_file(folder_.path(), 100));
}

TEST_F(FileTest, a_whole_file_is_read_up_to_the_limit) {
  for (size_t size : {0u, 1u, 65535u, 65536u, 65537u, 200000u}) {
    std::string text(size, 'a');
    put("a", text);
    EXPECT_EQ(text, read_file(path("a"), size).value());
    if (size == 0) continue;
    auto refused = read_file(path("a"), size - 1);
    ASSERT_FALSE(refused) << size;
    EXPECT_EQ(ErrorCode::too_large, refused.error().code());
  }
  // A device without end stops at the limit, too.
  EXPECT_FALSE(read_file("/dev/zero", 1 << 20));
}

TEST_F(FileTest, existence_tells_files_from_folders) {
  put("a", "x");
  EXPECT_TRUE(file_exists(path("a")));
  EXPECT_FALSE(folder_exists(path("a")));
  EXPECT_TRUE(folder_exists(folder_.path()));
  EXPECT_FALSE(file_exists(folder_.path()));
  EXPECT_FALSE(file_exists(path("b")) || folder_exists(path("b")));
}

TEST_F(FileTest, a_written_file_appears_under_its_name_only_when_whole) {
  put("a", "old");
  {
    FileWriter writer = FileWriter::create(path("a")).value();
    ASSERT_TRUE(writer.write(as_bytes("new ")));
    ASSERT_TRUE(writer.write({}));
    EXPECT_EQ("old", content(path("a")));
    FileWriter moved = std::move(writer);
    ASSERT_TRUE(moved.write(as_bytes("text")));
    ASSERT_TRUE(moved.commit());
  }
  EXPECT_EQ("new text", content(path("a")));
  EXPECT_EQ(1u, num_files());
}

TEST_F(FileTest, without_commit_nothing_remains) {
  {
    FileWriter writer = FileWriter::create(path("a")).value();
    ASSERT_TRUE(writer.write(as_bytes("half")));
    EXPECT_EQ(1u, num_files());
  }
  EXPECT_EQ(0u, num_files());
}

TEST_F(FileTest, two_writers_of_one_name_do_not_mix) {
  FileWriter first = FileWriter::create(path("a")).value();
  FileWriter second = FileWriter::create(path("a")).value();
  ASSERT_TRUE(first.write(as_bytes("first")));
  ASSERT_TRUE(second.write(as_bytes("second")));
  ASSERT_TRUE(second.commit());
  EXPECT_EQ("second", content(path("a")));
  ASSERT_TRUE(first.commit());
  EXPECT_EQ("first", content(path("a")));
  EXPECT_EQ(1u, num_files());
}

TEST_F(FileTest, devices_folders_and_missing_folders_are_refused_before_writing) {
  EXPECT_FALSE(FileWriter::create("/dev/null"));
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_FALSE(FileWriter::create(folder_.path()));
  auto nowhere = FileWriter::create(path("no/such/folder"));
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(ErrorCode::not_found, nowhere.error().code());
  EXPECT_EQ(0u, num_files());
}

TEST_F(FileTest, a_link_is_replaced_and_its_target_untouched) {
  put("target", "old");
  fs::create_symlink(path("target"), path("link"));
  FileWriter writer = FileWriter::create(path("link")).value();
  ASSERT_TRUE(writer.write(as_bytes("new")));
  ASSERT_TRUE(writer.commit());
  EXPECT_EQ("old", content(path("target")));
  EXPECT_EQ("new", content(path("link")));
}

TEST_F(FileTest, a_failed_rename_is_reported_and_leaves_nothing) {
  FileWriter writer = FileWriter::create(path("a")).value();
  ASSERT_TRUE(writer.write(as_bytes("x")));
  fs::create_directory(path("a"));
  auto committed = writer.commit();
  ASSERT_FALSE(committed);
  EXPECT_NE(std::string::npos, committed.error().message().find("rename into place"));
  EXPECT_EQ(1u, num_files());  // the folder that stood in the way
}

}  // namespace
}  // namespace bise
