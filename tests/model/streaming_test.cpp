// Out of core: the same bits as in memory, whatever streams; what a bad disk does; what the plan says.
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <filesystem>
#include <unistd.h>

#include "backend/cuda/cuda_backend.h"
#include "golden_model.h"
#include "support/temp_folder.h"

namespace bise {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> every_checkpoint() {
  std::vector<std::string> paths;
  for (const auto& variant : fs::directory_iterator(std::string(BISE_GOLDEN_DIR) + "/model/ckpt")) {
    for (const auto& layout : fs::directory_iterator(variant)) paths.push_back(layout.path());
  }
  for (const auto& file : fs::directory_iterator(std::string(BISE_GOLDEN_DIR) + "/own/gguf")) {
    const std::string name = file.path().filename();
    if (file.path().extension() == ".gguf" && name.find("mmproj") == std::string::npos &&
        (name.find("-0000") == std::string::npos || name.find("-00001-of") != std::string::npos)) {
      paths.push_back(file.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// The projector beside the GGUF files belongs to one of them only.
ModelLoadOptions plain_load(const std::string& path) {
  ModelLoadOptions load;
  load.config.language_model_only = path.find("own/gguf") != std::string::npos;
  return load;
}

// The smallest ceiling with which the model loads, in steps of 3 %.
ModelLoadOptions tightest(const std::string& path, const BackendOptions& backend,
                          MakeBackend make_backend = create_cpu_backend, uint64_t device_ceiling = 0) {
  auto checkpoint = Checkpoint::open(path, {}, Log());
  EXPECT_TRUE(checkpoint.has_value()) << path;
  ModelLoadOptions load = plain_load(path);
  load.weights.memory.context = 64;
  load.weights.memory.is_firm = true;
  load.weights.memory.ceiling = 1 << 20;
  load.weights.memory.device_ceiling = device_ceiling;
  for (;;) {
    auto made = make_backend(backend);
    auto model = Model::load(*checkpoint, **made, load, Log());
    if (model) return load;
    if (model.error().code() != ErrorCode::out_of_memory || load.weights.memory.ceiling > 1u << 30) {
      ADD_FAILURE() << path << ": " << model.error().message();
      return load;
    }
    load.weights.memory.ceiling += load.weights.memory.ceiling / 32;
  }
}

// Logits of chunks of odd size and of single steps, and the features of a picture where there is a tower.
std::vector<std::vector<float>> outputs(const GoldenModel& m) {
  const int32_t vocabulary = m.model->config().vocab_size;
  std::vector<std::vector<float>> all;
  GoldenSequence sequence(m, 64, KvDType::f32);
  for (int32_t chunk : {5, 1, 23, 1, 1, 2}) {
    std::vector<int32_t> ids, wanted;
    for (int32_t i = 0; i < chunk; ++i) ids.push_back((static_cast<int32_t>(all.size()) * 97 + i * 31 + 100) % vocabulary);
    if (chunk != 23) wanted = {chunk - 1};  // a chunk without logits leaves the head out
    for (auto& row : sequence.run(ids, wanted)) all.push_back(std::move(row));
  }
  if (!m.model->config().vision) return all;
  const VisionConfig& v = *m.model->config().vision;
  const int32_t side = 2 * v.patch_size * v.spatial_merge_size;
  ProcessedImage image;
  image.height = image.width = side;
  for (int32_t i = 0; i < 3 * side * side; ++i) image.pixels.push_back(static_cast<float>(i % 17) / 8.0f - 1.0f);
  auto features = m.model->encode_image(image);
  if (!features) {
    ADD_FAILURE() << features.error().message();
    return all;
  }
  const MatrixView& view = features->view;
  all.emplace_back(view.f32(), view.f32() + view.rows * view.columns);
  for (auto& row : sequence.run({100}, {0})) all.push_back(std::move(row));  // back to the text
  return all;
}

// All in memory, read past the page cache.
ModelLoadOptions direct_load(const std::string& path) {
  ModelLoadOptions load = plain_load(path);
  load.weights.read = [](int fd, void* into, uint64_t bytes, uint64_t offset) -> int64_t {
    ssize_t got = ::pread(fd, into, bytes, static_cast<off_t>(offset));
    return got >= 0 ? got : -int64_t{errno};
  };
  return load;
}
void expect_same_past_the_page_cache(const std::string& path, const BackendOptions& backend,
                                     const std::vector<std::vector<float>>& expected) {
  GoldenModel loaded = open_golden(path, backend, direct_load(path));
  ASSERT_NE(loaded.model, nullptr) << path;
  EXPECT_FALSE(loaded.model->memory_plan().streams);
  EXPECT_EQ(outputs(loaded), expected) << path;
}

TEST(Streaming, gives_the_same_bits_as_memory_for_every_checkpoint) {
  int streamed = 0;
  size_t turn = 0;
  for (const std::string& path : every_checkpoint()) {
    for (Precision precision : {Precision::fast, Precision::reference}) {
      if (BISE_TEST_SHARE > 1 && ++turn / 2 % 2 == 0) continue;  // sanitizers: fast and reference in turn
      const BackendOptions backend{.num_threads = 2, .precision = precision};
      GoldenModel whole = open_golden(path, backend, plain_load(path));
      ASSERT_NE(whole.model, nullptr) << path;
      const auto expected = outputs(whole);
      ModelLoadOptions load = tightest(path, backend);
      GoldenModel tight = open_golden(path, backend, load);
      ASSERT_NE(tight.model, nullptr) << path;
      const MemoryPlan least = tight.model->memory_plan();
      EXPECT_TRUE(least.streams) << path;
      EXPECT_EQ(outputs(tight), expected) << path;
      EXPECT_GT(tight.backend->stream_stats().bytes, least.streamed_bytes) << path;
      // Half of it streamed, and a ring that pieces have to take turns in.
      load.weights.memory.ceiling += least.streamed_bytes / 2;
      GoldenModel half = open_golden(path, backend, load);
      ASSERT_NE(half.model, nullptr) << path;
      const MemoryPlan& plan = half.model->memory_plan();
      EXPECT_LT(plan.streamed_bytes, least.streamed_bytes) << path;
      EXPECT_EQ(outputs(half), expected) << path;
      if (plan.streamed_bytes > 0) ++streamed;
      expect_same_past_the_page_cache(path, backend, expected);
    }
  }
  EXPECT_GE(streamed, 10);
}

TEST(Streaming, past_the_page_cache_a_gpu_gets_the_same_weights) {
  if (const auto gpu = make_cuda_backend({}); !gpu) GTEST_SKIP() << gpu.error().message();
  const BackendOptions backend{.num_threads = 2};
  int compared = 0;
  for (const std::string& path : every_checkpoint()) {
    if (path.find("own/gguf") == std::string::npos && path.find("smalltext") == std::string::npos) continue;
    std::atomic<int> reads = 0;
    ModelLoadOptions load = direct_load(path);
    load.weights.read = [&reads, read = load.weights.read](int fd, void* into, uint64_t bytes, uint64_t offset) {
      ++reads;
      return read(fd, into, bytes, offset);
    };
    const GoldenModel mapped = open_golden(path, backend, plain_load(path), make_cuda_backend),
                      direct = open_golden(path, backend, load, make_cuda_backend);
    ASSERT_TRUE(mapped.model != nullptr && direct.model != nullptr) << path;
    EXPECT_GT(reads, 0) << path;
    auto logits = [](const GoldenModel& m) { return GoldenSequence(m, 64, KvDType::bf16).run({7, 100, 9}, {0, 2}); };
    EXPECT_EQ(logits(direct), logits(mapped)) << path;
    ++compared;
  }
  EXPECT_GT(compared, 3);
}

TEST(Streaming, of_the_layers_that_a_gpu_has_no_room_for_gives_the_same_bits) {
  if (const auto gpu = make_cuda_backend({}); !gpu) GTEST_SKIP() << gpu.error().message();
  const std::string path = checkpoint_path("smalltext", "hf-bf16");
  const BackendOptions backend{.num_threads = 2};
  const GoldenModel split = open_golden_split(path, backend, make_cuda_backend);
  ASSERT_NE(split.model, nullptr);
  EXPECT_FALSE(split.model->memory_plan().streams);
  const auto expected = outputs(split);
  const GoldenModel streamed =
      open_golden(path, backend, tightest(path, backend, make_cuda_backend, split.model->memory_plan().device->ceiling),
                  make_cuda_backend);
  ASSERT_NE(streamed.model, nullptr);
  EXPECT_GT(streamed.model->memory_plan().device->host_layers, 0);
  EXPECT_TRUE(streamed.model->memory_plan().streams);
  EXPECT_EQ(outputs(streamed), expected);
}

// MLX's patch convolution is brought into another order in memory: there are no bytes of a file to read for it.
TEST(Streaming, what_is_put_together_in_memory_stays_there) {
  const std::string path = std::string(BISE_GOLDEN_DIR) + "/own/clothes/vision-mlx";
  for (Precision precision : {Precision::fast, Precision::reference}) {
    const BackendOptions backend{.num_threads = 2, .precision = precision};
    GoldenModel whole = open_golden(path, backend);
    ASSERT_NE(whole.model, nullptr);
    const auto expected = outputs(whole);
    expect_same_past_the_page_cache(path, backend, expected);
    GoldenModel tight = open_golden(path, backend, tightest(path, backend));
    ASSERT_NE(tight.model, nullptr);
    EXPECT_TRUE(tight.model->memory_plan().streams);
    EXPECT_EQ(outputs(tight), expected);
  }
}

TEST(Streaming, other_tools_files_read_past_the_page_cache_give_the_same_bits) {
  for (const auto& entry : fs::directory_iterator(std::string(BISE_GOLDEN_DIR) + "/own/clothes")) {
    const std::string path = entry.path();
    const BackendOptions backend{.num_threads = 2, .precision = Precision::fast};
    GoldenModel whole = open_golden(path, backend);
    ASSERT_NE(whole.model, nullptr) << path;
    expect_same_past_the_page_cache(path, backend, outputs(whole));
  }
}

TEST(Streaming, a_bad_disk_fails_the_step_and_not_the_next_one) {
  const std::string path = checkpoint_path("medium", "hf-bf16");
  const BackendOptions backend{.num_threads = 2};
  GoldenModel whole = open_golden(path, backend);
  ModelLoadOptions load = tightest(path, backend);
  static std::atomic<bool> is_bad{false};
  load.weights.read = [](int fd, void* into, uint64_t bytes, uint64_t offset) -> int64_t {
    if (is_bad) return -EIO;
    ssize_t got = ::pread(fd, into, bytes, static_cast<off_t>(offset));
    return got >= 0 ? got : -int64_t{errno};
  };
  GoldenModel m = open_golden(path, backend, load);
  ASSERT_NE(m.model, nullptr);
  const auto expected = outputs(whole);
  EXPECT_EQ(outputs(m), expected);
  is_bad = true;
  auto cache = KvCache::create(*m.backend, m.model->config(), 1, KvDType::f32);
  const int32_t table[] = {0};
  Batch batch;
  batch.ids = {100};
  batch.positions = {0};
  batch.slots = {0};
  batch.sequences = {{0, 1, 1, table}};
  auto failed = m.model->forward(batch, *cache, {});
  is_bad = false;
  ASSERT_FALSE(failed.has_value());
  EXPECT_EQ(failed.error().code(), ErrorCode::device);
  EXPECT_NE(failed.error().message().find("Input/output error"), std::string::npos) << failed.error().message();
  EXPECT_NE(failed.error().message().find(".safetensors: cannot read"), std::string::npos);
  EXPECT_NE(failed.error().message().find("tensor "), std::string::npos);
  EXPECT_EQ(outputs(m), expected);
}

TEST(Streaming, a_file_that_is_cut_short_fails_the_step) {
  TempFolder folder;
  fs::copy(checkpoint_path("medium", "hf-bf16"), folder.path(), fs::copy_options::recursive);
  const BackendOptions backend{.num_threads = 2};
  GoldenModel m = open_golden(folder.path(), backend, tightest(folder.path(), backend));
  ASSERT_NE(m.model, nullptr);
  for (const auto& file : fs::directory_iterator(folder.path())) {
    if (file.path().extension() == ".safetensors") fs::resize_file(file.path(), file.file_size() / 16);
  }
  auto cache = KvCache::create(*m.backend, m.model->config(), 1, KvDType::f32);
  const int32_t table[] = {0};
  std::string said;
  for (int32_t id : {1, 1500}) {  // both may have been read ahead, or lie behind the end
    for (int32_t position = 0; position < 3; ++position) {
      Batch batch;
      batch.ids = {id};
      batch.positions = {position};
      batch.slots = {position};
      batch.sequences = {{0, 1, position + 1, table}};
      auto done = m.model->forward(batch, *cache, {});
      if (!done) said = done.error().message();
    }
  }
  EXPECT_NE(said.find(".safetensors: ends at byte "), std::string::npos) << said;
  EXPECT_NE(said.find("was the file changed?"), std::string::npos) << said;
}

TEST(Streaming, a_ring_smaller_than_a_piece_is_refused) {
  const std::string path = checkpoint_path("medium", "hf-bf16");
  ModelLoadOptions load = tightest(path, {.num_threads = 1});
  load.weights.ring_bytes = 4096;
  auto checkpoint = Checkpoint::open(path, {}, Log());
  auto backend = create_backend("cpu", {.num_threads = 1});
  auto model = Model::load(*checkpoint, **backend, load, Log());
  ASSERT_FALSE(model.has_value());
  EXPECT_NE(model.error().message().find("a read-ahead ring of 4096 bytes cannot hold a piece of"),
            std::string::npos)
      << model.error().message();
}

}  // namespace
}  // namespace bise
