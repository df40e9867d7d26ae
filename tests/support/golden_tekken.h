// The full-size tekken tokenizer of the goldens (v15), loaded once per test program.
#pragma once

#include <stdexcept>

#include "support/gunzip.h"
#include "text/tekken.h"

namespace bise::testing {

inline const Tekken& golden_tekken() {
  static const std::unique_ptr<Tekken> tekken = [] {
    auto loaded = Tekken::parse(gunzip_file(BISE_GOLDEN_DIR "/chat/tekken.json.gz"), "tekken.json");
    if (!loaded) throw std::runtime_error(loaded.error().message());
    return std::move(loaded).value();
  }();
  return *tekken;
}

}  // namespace bise::testing
