// The forward pass against transformers: tests/golden/model, by the rules of its check.py.
#include <algorithm>
#include <cmath>
#include <map>

#include "base/file.h"
#include "base/json.h"
#include "backend/cuda/cuda_backend.h"
#include "golden_model.h"
#include "support/device_failures.h"

namespace bise {
namespace {

const char* const kVariants[] = {"smalltext", "devstral2", "ministral", "medium", "small31"};

Json golden_of(const std::string& variant) {
  std::string path = std::string(BISE_GOLDEN_DIR) + "/model/golden/" + variant + ".json";
  return parse_json(*read_file(path, 64 << 20)).value();
}

std::vector<ImageFeatures> encode_images(const GoldenModel& m, const Json& prompt) {
  std::vector<ImageFeatures> features;
  for (const Json& name : prompt["images"]) {
    std::string path = std::string(BISE_GOLDEN_DIR) + "/model/images/" + name.get<std::string>();
    std::string bytes = *read_file(path, 1 << 24);
    const VisionConfig& v = *m.model->config().vision;
    auto image = load_image(as_bytes(bytes), v.image_size, v.patch_size * v.spatial_merge_size,
                            ImageProcessing::torch, {});
    EXPECT_TRUE(image.has_value()) << image.error().message();
    features.push_back(m.model->encode_image(*image).value());
  }
  return features;
}

// The ids with every picture expanded: rows x (columns [IMG] + [IMG_BREAK]), the last one [IMG_END].
std::vector<int32_t> expanded_ids(const Json& prompt) {
  std::vector<int32_t> out;
  size_t image = 0;
  for (const Json& id : prompt["ids"]) {
    if (id.get<int32_t>() != 10 || prompt["images"].empty()) {
      out.push_back(id.get<int32_t>());
      continue;
    }
    const Json& size = prompt["image_sizes"][image++];
    for (int32_t row = 0; row < size[0].get<int32_t>() / 28; ++row) {
      out.insert(out.end(), static_cast<size_t>(size[1].get<int32_t>() / 28), 10);
      out.push_back(12);
    }
    out.back() = 13;
  }
  return out;
}

struct Distance {
  double max = 0.0, sum = 0.0;
  int count = 0;
  double mean() const { return count == 0 ? 0.0 : sum / count; }
};

double logsumexp(const std::vector<float>& row) {
  double top = *std::max_element(row.begin(), row.end()), sum = 0.0;
  for (float x : row) sum += std::exp(x - top);
  return top + std::log(sum);
}

// Adds the differences of the ten best log-probabilities; complains about another best id when the
// reference's lead is above `floor`.
void compare(const Json& want, const std::vector<float>& row, double floor, const std::string& where,
             Distance* distance) {
  double lse = logsumexp(row);
  for (size_t rank = 0; rank < 10; ++rank) {
    size_t id = want["top"][rank][0].get<size_t>();
    double expected = want["top"][rank][1].get<double>() - want["lse"].get<double>();
    double difference = std::fabs(row[id] - lse - expected);
    distance->max = std::max(distance->max, difference);
    distance->sum += difference;
    ++distance->count;
  }
  size_t best = static_cast<size_t>(std::max_element(row.begin(), row.end()) - row.begin());
  if (best == want["top"][0][0].get<size_t>()) return;
  for (const Json& entry : want["top"]) {
    if (entry[0].get<size_t>() != best) continue;
    EXPECT_LE(want["top"][0][1].get<double>() - entry[1].get<double>(), floor) << where;
    return;
  }
  ADD_FAILURE() << where << ": best id " << best << " is not among the reference's best";
}

struct RunSetup {
  BackendOptions backend;
  KvDType kv = KvDType::f32;
  int32_t chunk = 0;  // 0: the whole prompt at once
  MakeBackend make_backend = create_cpu_backend;
  bool is_split = false;  // the first layers on the host

  GoldenModel open(const std::string& path) const {
    return is_split ? open_golden_split(path, backend, make_backend) : open_golden(path, backend, {}, make_backend);
  }
};

// Runs one prompt in chunks, gives the logits of the golden positions, then decodes greedily.
void run_case(const GoldenModel& m, const Json& prompt, const Json& run, const Json& reference,
              const RunSetup& setup, double tolerance, Distance* distance, const std::string& where) {
  std::vector<int32_t> ids = expanded_ids(prompt);
  std::vector<ImageFeatures> images = encode_images(m, prompt);
  GoldenSequence sequence(m, static_cast<int32_t>(ids.size()) + 33, setup.kv);
  if (!images.empty()) sequence.set_images(&images);
  std::vector<float> last;
  const size_t chunk = setup.chunk == 0 ? ids.size() : static_cast<size_t>(setup.chunk);
  for (size_t first = 0; first < ids.size(); first += chunk) {
    size_t end = std::min(first + chunk, ids.size());
    std::vector<int32_t> wanted;
    for (size_t i = first; i < end; ++i) {
      if (reference["logits"].contains(std::to_string(i)) || i + 1 == ids.size()) {
        wanted.push_back(static_cast<int32_t>(i - first));
      }
    }
    auto rows = sequence.run({ids.begin() + static_cast<long>(first), ids.begin() + static_cast<long>(end)}, wanted);
    for (size_t r = 0; r < rows.size(); ++r) {
      std::string position = std::to_string(first + static_cast<size_t>(wanted[r]));
      if (reference["logits"].contains(position)) {
        compare(reference["logits"][position], rows[r], 2 * tolerance, where + " at " + position,
                distance);
      }
      last = rows[r];
    }
  }
  if (!run.contains("greedy")) return;
  for (size_t step = 0; step < run["greedy"].size(); ++step) {
    int32_t best = static_cast<int32_t>(std::max_element(last.begin(), last.end()) - last.begin());
    if (best != run["greedy"][step].get<int32_t>()) {
      EXPECT_LE(run["gaps"][step].get<double>(), 2 * tolerance)
          << where << ": greedy step " << step << " gives " << best;
      return;
    }
    last = sequence.run({best}, {0})[0];
  }
}

std::string name_of(const std::string& variant, const Json& run, const std::string& layout) {
  return variant + "/" + layout + " " + run["dtype"].get<std::string>() + " " +
         run["case"].get<std::string>();
}

// Under sanitizers only the first layout of the largest variant is asked everything.
bool leave_out(const std::string& variant, const Json& run, const Json& format) {
  const bool is_first = variant == "medium" && format == run["formats"][0];
  return BISE_TEST_SHARE > 1 && !is_first && run["case"] != "short" && run["case"] != "two-images";
}

class GoldenLogits : public ::testing::TestWithParam<const char*> {
 protected:
  void check_float32(const RunSetup& setup, bool every_case) {
    const Json golden = golden_of(GetParam());
    std::map<std::string, GoldenModel> models;
    for (const Json& run : golden["runs"]) {
      if (run["dtype"] != "float32" || !run.contains("logits")) continue;
      std::string name = run["case"];
      if (!every_case && name != "short" && (name != "two-images" || BISE_TEST_SHARE > 1)) continue;
      for (const Json& format : run["formats"]) {
        if (leave_out(GetParam(), run, format)) continue;
        std::string layout = format;
        if (!models.count(layout)) {
          models[layout] = setup.open(checkpoint_path(GetParam(), layout));
        }
        ASSERT_NE(models[layout].model, nullptr);
        double tolerance = name == "jpeg" ? 1e-2 : 5e-4;
        Distance distance;
        std::string where = name_of(GetParam(), run, layout);
        run_case(models[layout], golden["prompts"][name], run, run, setup, tolerance, &distance, where);
        EXPECT_LE(distance.max, tolerance) << where;
      }
    }
  }

  // Within twice the distance of bfloat16.
  void check_fast(const RunSetup& setup, bool every_layout) {
    const Json golden = golden_of(GetParam());
    std::map<std::string, GoldenModel> models;
    std::map<std::string, Json> float32;
    for (const Json& run : golden["runs"]) {
      std::string key = run["case"].get<std::string>() + run["formats"][0].get<std::string>();
      if (run["dtype"] == "float32") float32[key] = run;
      if (run["dtype"] != "bfloat16" || !run.contains("logits")) continue;
      for (const Json& format : run["formats"]) {
        if (!every_layout && format != run["formats"][0]) continue;
        if (leave_out(GetParam(), run, format)) continue;
        std::string layout = format;
        if (!models.count(layout)) {
          models[layout] = setup.open(checkpoint_path(GetParam(), layout));
        }
        ASSERT_NE(models[layout].model, nullptr);
        double limit = 2 * run["distance"]["top20_logprob_max"].get<double>();
        double mean_limit = 2 * run["distance"]["top20_logprob_mean"].get<double>();
        Distance distance;
        std::string where = name_of(GetParam(), run, layout);
        run_case(models[layout], golden["prompts"][run["case"].get<std::string>()], Json::object(), float32.at(key),
                 setup, limit, &distance, where);
        EXPECT_LE(distance.max, limit) << where;
        EXPECT_LE(distance.mean(), mean_limit) << where;
      }
    }
  }
};

TEST_P(GoldenLogits, reference_precision_equals_transformers_in_float32) {
  check_float32({{.num_threads = 2, .precision = Precision::reference}, KvDType::f32, 0}, true);
}

TEST_P(GoldenLogits, reference_precision_holds_in_chunks_of_odd_size) {
  check_float32({{.num_threads = 2, .precision = Precision::reference}, KvDType::f32, 37}, false);
}

TEST_P(GoldenLogits, reference_precision_holds_without_vector_instructions) {
  check_float32({{.num_threads = 1, .isa = "scalar", .precision = Precision::reference}, KvDType::f32, 0},
                false);
}

TEST_P(GoldenLogits, fast_precision_stays_within_twice_the_distance_of_bfloat16) {
  check_fast({{.num_threads = 2, .precision = Precision::fast}, KvDType::bf16, 64}, true);
}

// The same on a GPU: the emulated one where the build has no other. Sanitizers see its kernels in the smallest model.
bool is_asked_of_gpu(const std::string& variant) { return BISE_TEST_SHARE == 1 || variant == "small31"; }

TEST_P(GoldenLogits, reference_precision_equals_transformers_in_float32_on_a_gpu) {
  if (!is_asked_of_gpu(GetParam())) return;
  if (const auto gpu = make_cuda_backend({}); !gpu) GTEST_SKIP() << gpu.error().message();
  check_float32({{.num_threads = 2, .precision = Precision::reference}, KvDType::f32, 37, make_cuda_backend}, false);
}
TEST_P(GoldenLogits, fast_precision_stays_within_twice_the_distance_of_bfloat16_on_a_gpu) {
  if (!is_asked_of_gpu(GetParam())) return;
  if (const auto gpu = make_cuda_backend({}); !gpu) GTEST_SKIP() << gpu.error().message();
  check_fast({{.num_threads = 2, .precision = Precision::fast}, KvDType::bf16, 64, make_cuda_backend}, false);
}
TEST_P(GoldenLogits, reference_precision_equals_transformers_in_float32_on_a_gpu_that_is_too_small) {
  if (!is_asked_of_gpu(GetParam())) return;
  if (const auto gpu = make_cuda_backend({}); !gpu) GTEST_SKIP() << gpu.error().message();
  check_float32({{.num_threads = 2, .precision = Precision::reference}, KvDType::f32, 37, make_cuda_backend, true},
                false);
}

INSTANTIATE_TEST_SUITE_P(variants, GoldenLogits, ::testing::ValuesIn(kVariants),
                         [](const auto& variant) { return std::string(variant.param); });

// Whatever allocation fails, on the device or in the step of the layers beside it, the next try gives the right numbers.
TEST(Forward, memory_that_a_gpu_does_not_give_leaves_nothing_behind) {
  if (!test::device_fails_on_demand()) GTEST_SKIP() << "a real GPU fails when it likes";
  const BackendOptions options{.num_threads = 2};
  const std::string path = checkpoint_path("small31", "hf-bf16");
  ProcessedImage image;
  image.height = image.width = 56;
  for (int32_t i = 0; i < 3 * 56 * 56; ++i) image.pixels.push_back(static_cast<float>(i % 17) / 8.0f - 1.0f);
  auto features = [&](const GoldenModel& m) -> Result<std::vector<float>> {
    const ImageFeatures f = TRY(m.model->encode_image(image));
    const std::span<float> numbers = TRY(m.backend->on_host(f.view));
    return std::vector<float>(numbers.begin(), numbers.end());
  };
  const GoldenModel first = open_golden(path, options, {}, make_cuda_backend);
  ASSERT_NE(first.model, nullptr);
  const std::vector<float> expected = features(first).value();
  const GoldenModel m = open_golden(path, options, {}, make_cuda_backend);
  int failures = 0;
  for (int skip = 0; skip < 100; ++skip, ++failures) {
    test::fail_device_allocation(skip);
    const auto got = features(m);
    if (got) break;
    EXPECT_EQ(got.error().code(), ErrorCode::out_of_memory);
  }
  test::fail_device_allocation(-1);
  EXPECT_GT(failures, 8);
  EXPECT_EQ(features(m).value(), expected);
}

// The contract of backend.h: a row of the result depends on its own sequence only.
TEST(Forward, chunk_size_and_thread_count_do_not_change_a_bit) {
  std::vector<int32_t> ids;
  for (int32_t i = 0; i < 150; ++i) ids.push_back(1000 + (i * 37) % 500);
  for (Precision precision : {Precision::fast, Precision::reference}) {
    std::vector<std::vector<float>> seen;
    for (int32_t threads : {1, 2, 3, -3}) {  // -3: three on two memory nodes
      BackendOptions options{.num_threads = std::abs(threads), .precision = precision, .row_invariant = true};
      if (threads < 0) options.nodes = {{0, {0}}, {0, {0, 1}}};
      GoldenModel m = open_golden(checkpoint_path("medium", "hf-bf16"), options);
      ASSERT_NE(m.model, nullptr);
      for (size_t chunk : {size_t{1}, size_t{7}, size_t{64}, ids.size()}) {
        GoldenSequence sequence(m, 160, KvDType::bf16);
        std::vector<float> last;
        for (size_t first = 0; first < ids.size(); first += chunk) {
          size_t end = std::min(first + chunk, ids.size());
          std::vector<int32_t> part(ids.begin() + static_cast<long>(first), ids.begin() + static_cast<long>(end));
          last = sequence.run(part, {static_cast<int32_t>(part.size()) - 1})[0];
        }
        seen.push_back(last);
      }
    }
    for (const auto& row : seen) EXPECT_EQ(row, seen[0]);
  }
}

}  // namespace
}  // namespace bise
