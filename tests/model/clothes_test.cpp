// The same weights in the files of every tool (tests/golden/own/clothes): each folder gives the
// logits of transformers on the real numbers, and all folders of a set give the same bits.
#include <algorithm>
#include <cmath>

#include "base/file.h"
#include "base/json.h"
#include "golden_model.h"
#include "model/tensor_names.h"

namespace bise {
namespace {

const std::string kOwn = std::string(BISE_GOLDEN_DIR) + "/own/";

Json clothes() { return parse_json(*read_file(kOwn + "clothes.json", 64 << 20)).value()["sets"]; }

double logsumexp(const std::vector<float>& row) {
  double top = *std::max_element(row.begin(), row.end()), sum = 0.0;
  for (float x : row) sum += std::exp(x - top);
  return top + std::log(sum);
}

struct Answer {
  std::vector<std::vector<float>> rows;  // logits at the golden's positions
  std::vector<int32_t> greedy;
};

Answer answer(const GoldenModel& m, const Json& set, KvDType kv) {
  const auto ids = set["ids"].get<std::vector<int32_t>>();
  std::vector<ImageFeatures> images;
  if (set.contains("image")) {
    const std::string bytes = *read_file(
        std::string(BISE_GOLDEN_DIR) + "/model/images/" + set["image"].get<std::string>(), 1 << 24);
    auto image = load_image(as_bytes(bytes), 1540, 28, ImageProcessing::torch, {});
    EXPECT_TRUE(image.has_value());
    images.push_back(m.model->encode_image(*image).value());
  }
  std::vector<int32_t> wanted;
  for (const auto& [position, entry] : set["logits"].items()) wanted.push_back(std::stoi(position));
  std::sort(wanted.begin(), wanted.end());
  EXPECT_EQ(wanted.back() + 1, static_cast<int32_t>(ids.size()));
  GoldenSequence sequence(m, static_cast<int32_t>(ids.size()) + 20, kv);
  if (!images.empty()) sequence.set_images(&images);
  Answer out;
  out.rows = sequence.run(ids, wanted);
  sequence.set_images(nullptr);
  std::vector<float> last = out.rows.back();
  for (size_t i = 0; i < set["greedy"].size(); ++i) {
    out.greedy.push_back(
        static_cast<int32_t>(std::max_element(last.begin(), last.end()) - last.begin()));
    last = sequence.run({out.greedy.back()}, {0})[0];
  }
  return out;
}

// The largest difference of the ten best log-probabilities.
double distance(const Answer& got, const Json& set) {
  std::vector<int32_t> positions;
  for (const auto& [position, entry] : set["logits"].items())
    positions.push_back(std::stoi(position));
  std::sort(positions.begin(), positions.end());
  double worst = 0.0;
  for (size_t r = 0; r < positions.size(); ++r) {
    const Json& want = set["logits"][std::to_string(positions[r])];
    for (size_t rank = 0; rank < 10; ++rank) {
      double expected = want["top"][rank][1].get<double>() - want["lse"].get<double>();
      double value = got.rows[r][want["top"][rank][0].get<size_t>()] - logsumexp(got.rows[r]);
      worst = std::max(worst, std::fabs(value - expected));
    }
  }
  return worst;
}

TEST(Clothes, every_folder_of_a_set_gives_the_logits_and_tokens_of_the_same_model) {
  size_t folders = 0;
  for (const Json& set : clothes()) {
    std::vector<Answer> answers;
    for (const Json& name : set["folders"]) {
      SCOPED_TRACE(name.get<std::string>());
      GoldenModel m = open_golden(kOwn + "clothes/" + name.get<std::string>(),
                                  {.num_threads = 2, .precision = Precision::reference});
      ASSERT_NE(m.model, nullptr);
      answers.push_back(answer(m, set, KvDType::f32));
      EXPECT_LE(distance(answers.back(), set), 5e-4);
      EXPECT_EQ(answers.back().rows, answers.front().rows);  // not a bit differs
      EXPECT_EQ(answers.back().greedy, answers.front().greedy);
      for (size_t i = 0; i < set["greedy"].size() && set["gaps"][i].get<double>() > 1e-3; ++i) {
        EXPECT_EQ(answers.back().greedy[i], set["greedy"][i].get<int32_t>()) << i;
      }
      ++folders;
    }
  }
  EXPECT_EQ(folders, 19u);
}

TEST(Clothes, fast_precision_stays_near_the_reference) {
  for (const Json& set : clothes()) {
    for (const Json& name : set["folders"]) {
      SCOPED_TRACE(name.get<std::string>());
      GoldenModel m = open_golden(kOwn + "clothes/" + name.get<std::string>(),
                                  {.num_threads = 2, .precision = Precision::fast});
      ASSERT_NE(m.model, nullptr);
      // What bfloat16 itself shows on these checkpoints (tests/golden/model) is 0.2 to 0.6.
      EXPECT_LE(distance(answer(m, set, KvDType::bf16), set), 0.6);
    }
  }
}

// What `probe tensor` shows: the names of any layout, values in HF's order.
TEST(Clothes, tensors_decode_to_the_same_values_under_hf_names) {
  const char* name = "model.layers.1.self_attn.q_proj.weight";
  std::vector<float> first;
  const std::pair<const char*, const char*> formats[] = {
      {"int4-hf-bf16", "BF16"},           {"int4-w4a16", "INT4 g32"},
      {"int4-mistral-w4a16", "INT4 g32"}, {"int4-gptq", "GPTQ INT4 g32"},
      {"int4-awq", "AWQ INT4 g32"},       {"int4-auto-round", "GPTQ INT4 g32"},
      {"int4-mlx", "MLX 4-bit g32"},      {"int4-q4_0.gguf", "Q4_0"}};
  for (const auto& [folder, format] : formats) {
    SCOPED_TRACE(folder);
    auto checkpoint = Checkpoint::open(kOwn + "clothes/" + folder, {}, Log());
    ASSERT_TRUE(checkpoint.has_value()) << checkpoint.error().message();
    auto config = read_model_config(*checkpoint, {}, Log());
    ASSERT_TRUE(config.has_value()) << config.error().message();
    auto tensor = decode_tensor(*checkpoint, *config, name);
    ASSERT_TRUE(tensor.has_value()) << tensor.error().message();
    EXPECT_EQ(tensor->format, format);
    EXPECT_EQ(tensor->shape, (std::vector<int64_t>{192, 96}));
    if (first.empty()) first = tensor->values;
    EXPECT_EQ(tensor->values, first);
  }
}

TEST(Clothes, a_channel_last_patch_convolution_is_brought_into_hf_order) {
  auto mlx = Checkpoint::open(kOwn + "clothes/vision-mlx", {}, Log());
  auto hf = Checkpoint::open(checkpoint_path("medium", "hf-bf16"), {}, Log());
  ASSERT_TRUE(mlx.has_value() && hf.has_value());
  const TensorView* got = mlx->find("vision_tower.vision_model.patch_conv.weight");
  const TensorView* want = hf->find("model.vision_tower.patch_conv.weight");
  ASSERT_TRUE(got != nullptr && want != nullptr);
  EXPECT_EQ(got->shape, want->shape);
  EXPECT_EQ(as_text(got->bytes), as_text(want->bytes));
}

TEST(Clothes, different_global_scales_of_one_product_are_warned_of_once) {
  std::vector<std::string> lines;
  Log log([&](LogLevel level, const std::string& line) {
    if (level == LogLevel::warning) lines.push_back(line);
  });
  auto checkpoint = Checkpoint::open(kOwn + "clothes/nvfp4-w4a4", {}, Log());
  ASSERT_TRUE(checkpoint.has_value());
  auto backend = create_backend("cpu", {.num_threads = 1});
  ASSERT_TRUE(Model::load(*checkpoint, **backend, {}, log).has_value());
  size_t found = 0;
  for (const std::string& line : lines)
    found += line.find("different global scales") != std::string::npos;
  EXPECT_EQ(found, 1u);
}

}  // namespace
}  // namespace bise
