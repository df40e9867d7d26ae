// OutputParser: token ids of one answer in, ChatEvents out. Structure is found by token id only, so
// text that looks like a marker stays text. It knows the Mistral forms of all versions (thinking,
// calls with [ARGS], calls with [CALL_ID], the old list of calls) and, with no markers set, plain
// answers such as ChatML's. Sampling, stop strings and the wire format are the business of others.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "chat/chat_service.h"
#include "text/tokenizer.h"

namespace bise {

// Ids that carry structure. An absent one never matches; every other special id is dropped.
struct OutputMarkers {
  std::optional<TokenId> think, think_end;           // [THINK], [/THINK]
  std::optional<TokenId> tool_calls, args, call_id;  // [TOOL_CALLS], [ARGS], [CALL_ID]
  std::optional<TokenId> eos;                        // ends everything; later ids are ignored
  std::optional<TokenId> other_eos;                  // a second one, such as <|endoftext|>
};

// The markers a Mistral vocabulary has, by name.
OutputMarkers mistral_output_markers(const Tokenizer& tokenizer);

// The tokenizer must outlive the stream. Time is linear in the text, memory is the text of the call
// name or old call list at hand. Joined by kind (and call), the texts of the events are the same
// however the ids arrive; no event holds half a character. The same seed gives the same call ids.
std::unique_ptr<ChatStream> create_output_parser(const Tokenizer& tokenizer,
                                                 const OutputMarkers& markers,
                                                 bool starts_in_thinking, uint64_t seed);

}  // namespace bise
