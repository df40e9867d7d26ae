// WeightView: a weight matrix [rows, columns] (rows = outputs) as it lies in the file: a format
// plus the byte runs that are its parts. Owns nothing; must not outlive its Checkpoint.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "tensor/tensor_view.h"

namespace bise {

enum class FormatId : uint8_t;

// How rows are ordered in `codes`. Consolidated and GGUF files keep the rows of Wq and Wk so that
// rotary pairs are neighbours (2i, 2i+1); everything above this room sees the half-split order of
// Hugging Face (i, i + head/2). stored_row() is the one place that knows.
struct RowOrder {
  int64_t interleaved_head = 0;  // head size when the rows are interleaved, else 0
};

struct WeightView {
  std::string name;
  FormatId format{};
  int64_t rows = 0;
  int64_t columns = 0;
  Bytes codes;  // rows * row_bytes, row-major
  RowOrder order;

  // FP8: weight = code * scale; per tensor ([], [1], [1,1]), per row ([rows], [rows,1]) or per
  // block. Codes in groups: one scale per row and group, laid out as the format has it
  // (group_codes.h).
  TensorView scale;
  int64_t scale_block_rows =
      0;  // block scales: rows and columns that share a scale; 0 = not by block
  int64_t scale_block_columns = 0;
  // Static activation quantisation: x is divided by it before the product. 0 = not given.
  float activation_scale = 0.0f;

  // Formats whose codes share a scale in groups of columns. group_codes.h reads them, whatever
  // their packing; other formats leave these as they are.
  int32_t bits = 0;            // of one code
  int64_t group = 0;           // columns that share a scale; `columns` when a row has one scale
  int32_t codes_per_word = 0;  // old INT files: this many codes in each 32-bit word; 0: no gaps
  TensorView zero;             // zero points, or MLX's biases, as stored; without shape: none
  int32_t zero_offset = 0;     // added to a stored zero point (1 in GPTQ's first version)
  TensorView group_index;  // I32 [columns]: the group of each column; without shape: column / group
  // NVFP4's scale of the whole matrix: multiplies the scales of the groups, or divides them.
  float global_scale = 1.0f;
  bool global_divides = false;

  // Calls body(bytes) for each run of bytes beside `codes`.
  template <class Body>
  void each_side_part(Body body) {
    for (TensorView* part : {&scale, &zero, &group_index}) body(part->bytes);
  }
  template <class Body>
  void each_side_part(Body body) const {
    for (const TensorView* part : {&scale, &zero, &group_index}) body(part->bytes);
  }

  // The row of `codes` that holds row `row` of the matrix in half-split (HF) order.
  int64_t stored_row(int64_t row) const {
    if (order.interleaved_head == 0) return row;
    int64_t head = order.interleaved_head, half = head / 2;
    int64_t first = row / head * head, within = row % head;
    return first + 2 * (within % half) + within / half;
  }
};

}  // namespace bise
