// What a backend is told before weights are packed: which are coming, in the order of use, where their
// bytes lie in files, and where each is to live. With it reading runs ahead of packing, and a model
// may be larger than memory.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/log.h"
#include "base/read_ahead.h"
#include "base/read_queue.h"
#include "tensor/weight_view.h"

namespace bise {

enum class WeightHome : uint8_t {
  memory,    // packed once. Without a ceiling a format that has no kernel layout stays in the file's map
  streamed,  // read from the file at every product
  in_file,   // a table of which a step needs a few rows, read when they are needed
};

// A file whose map holds the bytes of weights.
struct StoredFile {
  std::string path;
  Bytes bytes;
};

// Where bytes of one of the maps lie in its file; nothing: they are in memory of their own.
std::optional<FileRange> find_in_files(std::span<const StoredFile> files, Bytes part);

// Whether the codes of all parts do.
bool lies_in_files(std::span<const StoredFile> files, std::span<const WeightView> parts);

struct PlannedWeight {
  std::vector<WeightView> parts;  // of one product
  WeightHome home = WeightHome::memory;  // the only one for codes that are in no file
  // Weights of one pass are used one after the other, again and again: 0 the text decoder, 1 the
  // vision tower. When a pass ends, pass 0 is expected next.
  int pass = 0;
};

struct WeightPlan {
  std::vector<StoredFile> files;
  std::vector<PlannedWeight> weights;  // in the order of the calls of pack_weight, which is that of use
  // Read weights into memory past the page cache; otherwise through the maps, as it is best when the
  // page cache has them.
  bool direct = false;
  // A ceiling of memory is to hold: what lives in memory is copied out of the maps.
  bool bounded = false;
  uint64_t ring_bytes = uint64_t{64} << 20;  // of read-ahead; while loading and while streaming
  ReadFunction read;                         // tests: in place of the system's
  Log log;
};

// What a weight takes at home and away.
struct WeightCost {
  uint64_t memory_bytes = 0;  // packed
  uint64_t stored_bytes = 0;  // codes in the file: what a product reads of a streamed weight
  uint64_t side_bytes = 0;    // scales and the like, which stay in memory when the codes are streamed
  uint64_t piece_bytes = 0;   // least of it that can be read at once
};

// Of the streamed weights, since they were planned.
struct StreamStats {
  uint64_t bytes = 0;           // read
  double seconds = 0.0;         // that the disk was at work
  double waited_seconds = 0.0;  // that products waited for it
};

}  // namespace bise
