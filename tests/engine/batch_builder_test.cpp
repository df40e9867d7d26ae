#include "engine/batch_builder.h"

#include <gtest/gtest.h>

namespace bise {
namespace {

constexpr int32_t kImageToken = 10;

TEST(batch_builder, slots_follow_the_block_table) {
  Sequence sequence;
  sequence.tokens = {100, 101, 102, 103, 104, 105, 106};
  sequence.block_table = {5, 2};
  sequence.computed = 2;
  sequence.scheduled = 4;
  Batch batch;
  batch.ids = {1};  // another sequence's row
  batch.positions = {0};
  batch.slots = {0};
  append_rows(sequence, 4, batch);
  EXPECT_EQ(batch.ids, (std::vector<int32_t>{1, 102, 103, 104, 105}));
  EXPECT_EQ(batch.positions, (std::vector<int32_t>{0, 2, 3, 4, 5}));
  EXPECT_EQ(batch.slots, (std::vector<int32_t>{0, 22, 23, 8, 9}));
  ASSERT_EQ(batch.sequences.size(), 1u);
  EXPECT_EQ(batch.sequences[0].first_row, 1);
  EXPECT_EQ(batch.sequences[0].num_rows, 4);
  EXPECT_EQ(batch.sequences[0].num_tokens, 6);
  EXPECT_EQ(batch.sequences[0].block_table, sequence.block_table.data());
}

SequenceImage image_of(int32_t rows, int32_t columns) {
  ProcessedImage processed;
  processed.rows = rows;
  processed.columns = columns;
  SequenceImage image;
  image.image = std::make_shared<ProcessedImage>(std::move(processed));
  return image;
}

TEST(batch_builder, pictures_take_the_image_tokens_in_order) {
  Sequence sequence;
  sequence.tokens = {1, 10, 10, 12, 10, 10, 13, 5, 10, 13, 6};
  sequence.images.push_back(image_of(2, 2));
  sequence.images.push_back(image_of(1, 1));
  ASSERT_TRUE(place_images(sequence, kImageToken));
  EXPECT_EQ(sequence.images[0].places, (std::vector<int32_t>{1, 2, 4, 5}));
  EXPECT_EQ(sequence.images[1].places, (std::vector<int32_t>{8}));

  // A chunk from 2 to 8 touches the last three rows of the first picture and none of the second.
  sequence.block_table = {0, 1, 2};
  sequence.computed = 2;
  sequence.scheduled = 6;
  EXPECT_TRUE(touches(sequence, sequence.images[0]));
  EXPECT_FALSE(touches(sequence, sequence.images[1]));
  sequence.images[0].features = std::make_shared<ImageFeatures>();
  Batch batch;
  append_rows(sequence, 4, batch);
  ASSERT_EQ(batch.images.size(), 1u);
  EXPECT_EQ(batch.images[0].first_feature, 1);
  EXPECT_EQ(batch.images[0].rows, (std::vector<int32_t>{0, 2, 3}));
}

TEST(batch_builder, pictures_and_image_tokens_must_match) {
  for (int32_t rows : {0, 1, 3}) {
    Sequence sequence;
    sequence.tokens = {10, 10, 10, 10};
    sequence.images.push_back(image_of(rows, 2));
    auto placed = place_images(sequence, kImageToken);
    ASSERT_FALSE(placed);
    EXPECT_NE(placed.error().message().find("4 image tokens"), std::string::npos);
  }
}

}  // namespace
}  // namespace bise
