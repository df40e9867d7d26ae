#include "backend/weight_plan.h"

#include <algorithm>
#include <functional>

namespace bise {

std::optional<FileRange> find_in_files(std::span<const StoredFile> files, Bytes part) {
  for (size_t i = 0; i < files.size(); ++i) {
    const Bytes whole = files[i].bytes;
    if (!std::less<>()(part.data(), whole.data()) &&
        !std::less<>()(whole.data() + whole.size(), part.data() + part.size())) {
      return FileRange{i, static_cast<uint64_t>(part.data() - whole.data()), part.size()};
    }
  }
  return std::nullopt;
}

bool lies_in_files(std::span<const StoredFile> files, std::span<const WeightView> parts) {
  return std::ranges::all_of(
      parts, [&](const WeightView& view) { return view.codes.empty() || find_in_files(files, view.codes); });
}

}  // namespace bise
