// Grammars to token masks. One implementation stands on the llguidance library; where the program was
// built without it, another refuses every grammar by saying so.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "engine/token_mask.h"
#include "text/tokenizer.h"

namespace bise {

class StructureCompiler {
 public:
  virtual ~StructureCompiler() = default;
  virtual bool available() const = 0;
  // `lark`: a grammar in llguidance's Lark dialect over the text of the answer; special tokens stand in
  // it as <[id]>. The factory may outlive neither the compiler nor its tokenizer. Error: a grammar that
  // is not one, or too expensive; its message is for the client. From any thread.
  virtual Result<TokenMaskFactory> compile(const std::string& lark) const = 0;
};

// The tokenizer must outlive it. `stop_tokens` may end an answer where the grammar allows the end.
Result<std::unique_ptr<StructureCompiler>> create_structure_compiler(const Tokenizer& tokenizer,
                                                                     const std::vector<int32_t>& stop_tokens);

// A mask that allows these tokens alone.
TokenMaskFactory allow_only(std::vector<int32_t> ids);

}  // namespace bise
