// A tiny golden checkpoint opened for a test, and one function that runs a prompt through it.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "backend/cpu/cpu_backend.h"
#include "io/checkpoint.h"
#include "model/model.h"

namespace bise {

struct GoldenModel {
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Model> model;
};

inline std::string checkpoint_path(const std::string& variant, const std::string& layout) {
  return std::string(BISE_GOLDEN_DIR) + "/model/ckpt/" + variant + "/" + layout;
}

using MakeBackend = Result<std::unique_ptr<Backend>> (*)(const BackendOptions&);

inline GoldenModel open_golden(const std::string& path, const BackendOptions& options,
                               const ModelLoadOptions& load = {}, MakeBackend make_backend = create_cpu_backend) {
  GoldenModel m;
  auto checkpoint = Checkpoint::open(path, {}, Log());
  if (!checkpoint) {
    ADD_FAILURE() << checkpoint.error().message();
    return m;
  }
  m.checkpoint = std::make_unique<Checkpoint>(std::move(*checkpoint));
  auto backend = make_backend(options);
  if (!backend) {
    ADD_FAILURE() << backend.error().message();
    return m;
  }
  m.backend = std::move(*backend);
  auto model = Model::load(*m.checkpoint, *m.backend, load, Log());
  if (!model) {
    ADD_FAILURE() << model.error().message();
    return m;
  }
  m.model = std::make_unique<Model>(std::move(*model));
  return m;
}

// On a device whose memory has no room for the first layer or two.
inline GoldenModel open_golden_split(const std::string& path, const BackendOptions& options, MakeBackend make_backend) {
  ModelLoadOptions load;
  load.weights.memory.context = 64;
  load.weights.memory.device_ceiling = uint64_t{1} << 40;
  GoldenModel m = open_golden(path, options, load, make_backend);
  if (m.model == nullptr) return m;
  const DevicePlan whole = *m.model->memory_plan().device;
  EXPECT_EQ(whole.host_layers, 0);
  load.weights.memory.device_ceiling = whole.weight_bytes + whole.kv_bytes + whole.work_bytes - 1;
  m = open_golden(path, options, load, make_backend);
  if (m.model != nullptr) {
    EXPECT_GT(m.model->memory_plan().device->host_layers, 0);
    EXPECT_LT(m.model->memory_plan().device->host_layers, m.model->config().num_layers);
  }
  return m;
}

// One sequence in one cache: blocks in descending order, so that a mixed-up block table shows.
class GoldenSequence {
 public:
  GoldenSequence(const GoldenModel& m, int32_t capacity, KvDType dtype) : m_(m) {
    int32_t blocks = (capacity + kKvBlockSize - 1) / kKvBlockSize;
    auto cache = KvCache::create(m.model->placement(), m.model->config(), blocks, dtype);
    cache_ = std::make_unique<KvCache>(std::move(*cache));
    for (int32_t i = 0; i < blocks; ++i) table_.push_back(blocks - 1 - i);
  }

  // Pictures are given by their features; image rows are those ids equal to the image token.
  void set_images(const std::vector<ImageFeatures>* images) { images_ = images; }

  // Runs `ids` behind what is cached; logits of the rows in `wanted` (indices into ids).
  std::vector<std::vector<float>> run(const std::vector<int32_t>& ids,
                                      const std::vector<int32_t>& wanted) {
    Batch batch;
    batch.ids = ids;
    for (size_t i = 0; i < ids.size(); ++i) {
      int32_t position = length_ + static_cast<int32_t>(i);
      batch.positions.push_back(position);
      batch.slots.push_back(table_[static_cast<size_t>(position / kKvBlockSize)] * kKvBlockSize +
                            position % kKvBlockSize);
    }
    place_images(batch);
    batch.sequences = {{0, static_cast<int32_t>(ids.size()),
                        length_ + static_cast<int32_t>(ids.size()), table_.data()}};
    batch.logits_rows = wanted;
    const int64_t vocabulary = m_.model->config().vocab_size;
    const int64_t rows = static_cast<int64_t>(wanted.size());
    auto buffer = m_.backend->allocate(static_cast<uint64_t>(rows * vocabulary + 1) * 4, "logits");
    MatrixView logits{buffer->data(), rows, vocabulary};
    auto done = m_.model->forward(batch, *cache_, logits);
    EXPECT_TRUE(done.has_value());
    length_ += static_cast<int32_t>(ids.size());
    std::vector<std::vector<float>> out;
    const std::span<float> on_host = m_.backend->on_host(logits).value();
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = on_host.data() + r * vocabulary;
      out.emplace_back(row, row + vocabulary);
    }
    return out;
  }

 private:
  void place_images(Batch& batch) {
    if (images_ == nullptr) return;
    const int32_t token = m_.model->config().vision->image_token;
    for (size_t i = 0; i < batch.ids.size(); ++i) {
      if (batch.ids[i] != token) continue;
      if (feature_ == (*images_)[image_].view.rows) {
        ++image_;
        feature_ = 0;
      }
      batch.images.push_back({(*images_)[image_].view, static_cast<int32_t>(feature_),
                              {static_cast<int32_t>(i)}});
      ++feature_;
    }
  }
  const GoldenModel& m_;
  std::unique_ptr<KvCache> cache_;
  std::vector<int32_t> table_;
  int32_t length_ = 0;
  const std::vector<ImageFeatures>* images_ = nullptr;
  size_t image_ = 0;
  int64_t feature_ = 0;
};

}  // namespace bise
