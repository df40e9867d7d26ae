#include "app/model_source.h"

#include <gtest/gtest.h>

#include "app/embedded_model.h"
#include "base/file.h"
#include "support/temp_folder.h"

namespace fs = std::filesystem;

namespace bise {
namespace {

class ModelSource : public testing::Test {
 protected:
  void SetUp() override {
    places_ = {at("store"), at("hub"), at("embedded")};
  }
  void touch(const std::string& path, const std::string& text = "x") {
    folder_.write(path, text);
  }
  std::string at(const std::string& path) { return folder_.at(path); }
  TempFolder folder_;
  ModelPlaces places_;
};

TEST_F(ModelSource, folders_and_gguf_files_are_taken_as_they_are) {
  touch("hf/config.json");
  touch("mistral/params.json");
  touch("one.gguf");
  EXPECT_EQ(*resolve_model(at("hf"), places_), at("hf"));
  EXPECT_EQ(*resolve_model(at("mistral"), places_), at("mistral"));
  EXPECT_EQ(*resolve_model(at("one.gguf"), places_), at("one.gguf"));
}

TEST_F(ModelSource, a_folder_with_one_gguf_means_that_file) {
  touch("m/model-00001-of-00002.gguf");
  touch("m/model-00002-of-00002.gguf");
  touch("m/mmproj-F16.gguf");
  EXPECT_EQ(*resolve_model(at("m"), places_), at("m/model-00001-of-00002.gguf"));
}

TEST_F(ModelSource, several_ggufs_in_a_folder_are_listed) {
  touch("m/a.gguf");
  touch("m/b.gguf");
  auto result = resolve_model(at("m"), places_);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message().find("a.gguf b.gguf"), std::string::npos);
}

TEST_F(ModelSource, names_are_looked_up_in_the_store) {
  touch("store/demo/SmolLM2.gguf");
  touch("store/other.gguf");
  EXPECT_EQ(*resolve_model("demo", places_), at("store/demo/SmolLM2.gguf"));
  EXPECT_EQ(*resolve_model("other", places_), at("store/other.gguf"));
}

TEST_F(ModelSource, the_demo_in_the_program_is_unpacked_and_mended) {
  auto folder = resolve_model("demo", places_);
  ASSERT_TRUE(folder) << folder.error().message();
  EXPECT_EQ(folder->rfind(at("embedded/demo-"), 0), 0u);
  for (const EmbeddedFile& file : embedded_files()) {
    EXPECT_EQ(*read_file(*folder + "/" + file.name, 1 << 30), as_text(file.bytes)) << file.name;
  }
  const std::string weights = *folder + "/model.safetensors", config = *folder + "/config.json";
  fs::resize_file(weights, 1000);
  fs::remove(config);
  ASSERT_EQ(*resolve_model("demo", places_), *folder);
  EXPECT_GT(fs::file_size(weights), 1000u);
  EXPECT_TRUE(file_exists(config));
  EXPECT_EQ(std::distance(fs::directory_iterator(*folder), fs::directory_iterator()),
            static_cast<ptrdiff_t>(embedded_files().size()));
}

TEST_F(ModelSource, where_the_demo_cannot_be_unpacked_one_line_says_what_to_do) {
  touch("embedded", "a file in the way");
  auto demo = resolve_model("demo", places_);
  ASSERT_FALSE(demo);
  EXPECT_NE(demo.error().message().find("BISE_HOME"), std::string::npos);
  EXPECT_EQ(demo.error().message().find('\n'), std::string::npos);
}

TEST_F(ModelSource, where_a_file_of_the_demo_cannot_be_written_the_advice_is_the_same) {
  auto folder = resolve_model("demo", places_);
  ASSERT_TRUE(folder);
  const std::string config = *folder + "/config.json";
  fs::remove(config);
  fs::create_directories(config + "/in the way");
  auto demo = resolve_model("demo", places_);
  ASSERT_FALSE(demo);
  EXPECT_NE(demo.error().message().find("config.json"), std::string::npos);
  EXPECT_NE(demo.error().message().find("BISE_HOME"), std::string::npos);
}

TEST_F(ModelSource, repository_ids_follow_refs_main) {
  touch("hub/models--mistralai--M/refs/main", "abc123\n");
  touch("hub/models--mistralai--M/snapshots/abc123/config.json");
  touch("hub/models--mistralai--M/snapshots/def456/config.json");
  EXPECT_EQ(*resolve_model("mistralai/M", places_),
            at("hub/models--mistralai--M/snapshots/abc123"));
}

TEST_F(ModelSource, a_ref_cannot_lead_out_of_the_cache) {
  touch("hub/models--a--b/refs/main", "../../../outside");
  touch("outside/config.json");
  EXPECT_FALSE(resolve_model("a/b", places_));
}

TEST_F(ModelSource, the_only_snapshot_is_taken_without_a_ref) {
  touch("hub/models--a--b/snapshots/s/params.json");
  EXPECT_EQ(*resolve_model("a/b", places_), at("hub/models--a--b/snapshots/s"));
}

TEST_F(ModelSource, what_is_not_found_lists_every_place_tried) {
  auto name = resolve_model("nothing", places_);
  ASSERT_FALSE(name);
  EXPECT_EQ(name.error().code(), ErrorCode::not_found);
  EXPECT_NE(name.error().message().find("path nothing"), std::string::npos);
  EXPECT_NE(name.error().message().find(places_.store + "/nothing"), std::string::npos);
  EXPECT_EQ(name.error().message().find('\n'), std::string::npos);
  auto id = resolve_model("org/nothing", places_);
  ASSERT_FALSE(id);
  EXPECT_NE(id.error().message().find("models--org--nothing"), std::string::npos);
  EXPECT_FALSE(resolve_model("", places_));
  EXPECT_FALSE(resolve_model("../x/../..", places_));
}

TEST_F(ModelSource, a_file_that_is_no_gguf_is_refused) {
  touch("model.safetensors");
  auto result = resolve_model(at("model.safetensors"), places_);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message().find(".gguf"), std::string::npos);
}

TEST_F(ModelSource, the_store_is_listed_by_name_and_models_can_be_removed) {
  touch("store/b/x.gguf", "12345");
  touch("store/a.gguf", "123");
  touch("store/.hidden/x.gguf");
  auto models = list_store(places_);
  ASSERT_TRUE(models);
  ASSERT_EQ(models->size(), 2u);
  EXPECT_EQ((*models)[0].name, "a");
  EXPECT_EQ((*models)[0].bytes, 3u);
  EXPECT_EQ((*models)[1].name, "b");
  EXPECT_EQ((*models)[1].bytes, 5u);
  EXPECT_TRUE(remove_from_store("b", places_));
  EXPECT_FALSE(remove_from_store("b", places_));
  EXPECT_EQ(list_store(places_)->size(), 1u);
}

TEST_F(ModelSource, names_with_slashes_or_dots_cannot_remove_anything) {
  touch("store/a/x.gguf");
  touch("precious/x");
  for (const char* name : {"../precious", "..", ".", "", "a/x.gguf", ".hidden"}) {
    EXPECT_FALSE(remove_from_store(name, places_)) << name;
  }
  EXPECT_TRUE(fs::exists(at("precious/x")));
  EXPECT_TRUE(fs::exists(at("store/a/x.gguf")));
}

TEST_F(ModelSource, a_missing_store_is_an_empty_one) {
  auto models = list_store(places_);
  ASSERT_TRUE(models);
  EXPECT_TRUE(models->empty());
}

TEST_F(ModelSource, removing_a_link_leaves_what_it_points_to) {
  touch("elsewhere/x.gguf");
  fs::create_directories(at("store"));
  fs::create_directory_symlink(at("elsewhere"), at("store/linked"));
  EXPECT_TRUE(remove_from_store("linked", places_));
  EXPECT_TRUE(fs::exists(at("elsewhere/x.gguf")));
}

}  // namespace
}  // namespace bise
