#include "engine/batch_builder.h"

#include <algorithm>
#include <string>

namespace bise {
namespace {

using Places = std::vector<int32_t>;

// The places in [first, last), as indices of `places`, which is ascending.
std::pair<size_t, size_t> range_of(const Places& places, int32_t first, int32_t last) {
  auto begin = std::lower_bound(places.begin(), places.end(), first);
  auto end = std::lower_bound(begin, places.end(), last);
  return {static_cast<size_t>(begin - places.begin()), static_cast<size_t>(end - places.begin())};
}

}  // namespace

bool touches(const Sequence& sequence, const SequenceImage& image) {
  auto [begin, end] =
      range_of(image.places, sequence.computed, sequence.computed + sequence.scheduled);
  return begin < end;
}

void append_rows(const Sequence& sequence, int32_t block_size, Batch& batch) {
  const int32_t first_row = static_cast<int32_t>(batch.ids.size());
  const int32_t last = sequence.computed + sequence.scheduled;
  for (int32_t position = sequence.computed; position < last; ++position) {
    int32_t block = sequence.block_table[static_cast<size_t>(position / block_size)];
    batch.ids.push_back(sequence.tokens[static_cast<size_t>(position)]);
    batch.positions.push_back(position);
    batch.slots.push_back(block * block_size + position % block_size);
  }
  batch.sequences.push_back({first_row, sequence.scheduled, last, sequence.block_table.data()});
  for (const SequenceImage& image : sequence.images) {
    auto [begin, end] = range_of(image.places, sequence.computed, last);
    if (begin == end) continue;
    CHECK(image.features != nullptr);
    ImageRows rows;
    rows.features = image.features->view;
    rows.first_feature = static_cast<int32_t>(begin);
    for (size_t i = begin; i < end; ++i) {
      rows.rows.push_back(first_row + image.places[i] - sequence.computed);
    }
    batch.images.push_back(std::move(rows));
  }
}

Result<void> place_images(Sequence& sequence, int32_t image_token) {
  uint64_t wanted = 0;
  for (const SequenceImage& image : sequence.images) {
    wanted += static_cast<uint64_t>(image.image->rows) * static_cast<uint64_t>(image.image->columns);
  }
  auto found = std::count(sequence.tokens.begin(), sequence.tokens.end(), image_token);
  if (static_cast<uint64_t>(found) != wanted) {
    return Error(ErrorCode::invalid_argument,
                 "the prompt has " + std::to_string(found) + " image tokens (id " +
                     std::to_string(image_token) + "), but the " +
                     std::to_string(sequence.images.size()) + " pictures need " +
                     std::to_string(wanted) +
                     ": prompt and pictures must be made with the same image sizes");
  }
  int32_t at = 0;
  for (SequenceImage& image : sequence.images) {
    size_t count = static_cast<size_t>(image.image->rows) * static_cast<size_t>(image.image->columns);
    for (; image.places.size() < count; ++at) {
      if (sequence.tokens[static_cast<size_t>(at)] == image_token) image.places.push_back(at);
    }
  }
  return {};
}

}  // namespace bise
