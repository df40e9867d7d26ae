// server/parameters and server/structure grammars: whatever a body holds is obeyed or refused with a
// message, and what was read lies within its limits.
#include <cmath>
#include <cstdint>
#include <string>

#include "base/utf8.h"
#include "chat/request.h"
#include "server/chat_grammar.h"
#include "server/parameters.h"

namespace {

void check(const bise::PyJson& body, bise::Endpoint endpoint) {
  constexpr int32_t kVocab = 1000;
  auto read = bise::read_parameters(body, endpoint, {bise::SamplingParams(), kVocab});
  if (!read) {
    CHECK(!read.error().message.empty() && read.error().status == 400);
    return;
  }
  const bise::GenerationParameters& p = *read;
  CHECK(p.sampling.validate(kVocab));
  CHECK(p.n >= 1 && p.n <= 16 && p.stop.size() <= 16);
  CHECK(p.sampling.temperature >= 0 && std::isfinite(p.sampling.temperature));
  if (p.structure.kind != bise::Structure::Kind::none) (void)bise::structure_grammar(p.structure);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  bise::PyJsonLimits limits;
  limits.max_depth = 64;
  auto body = bise::parse_chat_body(std::string_view(reinterpret_cast<const char*>(data), size), limits);
  if (!body) {
    CHECK(bise::is_valid_utf8(body.error().message()));
    return 0;
  }
  check(*body, bise::Endpoint::chat);
  check(*body, bise::Endpoint::completions);
  return 0;
}
