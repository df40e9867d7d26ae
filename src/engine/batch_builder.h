// The arrays of one step from the sequences in it: positions, slots, block tables, image rows.
// Computed once here; model and backend only read them.
#pragma once

#include "engine/sequence.h"
#include "model/batch.h"

namespace bise {

// Appends the scheduled tokens of the sequence. Its images that are touched must have features, and
// sequence and batch stay unchanged in memory during the step: the batch points into the block
// table.
void append_rows(const Sequence& sequence, int32_t block_size, Batch& batch);

// Whether the scheduled tokens touch this image.
bool touches(const Sequence& sequence, const SequenceImage& image);

// Distributes the image tokens of `sequence.tokens` over its images, in order. Error when their
// numbers differ.
Result<void> place_images(Sequence& sequence, int32_t image_token);

}  // namespace bise
