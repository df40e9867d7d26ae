// The cut of text into pieces before byte-pair encoding: Tekken's and GPT-2's regular expressions as
// hand-written scanners. Linear on any input: each character is looked at a bounded number of times.
#pragma once

#include <cstddef>
#include <string_view>

namespace bise {

// `text` must be valid UTF-8 and `at` a character's begin inside it. Returns the end of the piece that
// begins there; pieces put together are the text.

// Tekken, the same in all versions:
//   [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+
//   |[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*
//   |\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
size_t next_tekken_piece(std::string_view text, size_t at);

// GPT-2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
size_t next_gpt2_piece(std::string_view text, size_t at);

// SmolLM: every \p{N} is a piece; what lies between two of them is cut by GPT-2's rule on its own.
size_t next_smollm_piece(std::string_view text, size_t at);

// The expression that next_tekken_piece stands for, as tekken.json spells it.
extern const std::string_view kTekkenPattern;

}  // namespace bise
