// In place of llguidance_compiler.cpp where the program is built without cargo.
#include "server/structure_compiler.h"

namespace bise {
namespace {

class NoStructures final : public StructureCompiler {
 public:
  bool available() const override { return false; }
  Result<TokenMaskFactory> compile(const std::string&) const override {
    return Error(ErrorCode::unsupported,
                 "structured output is not in this build: it needs the llguidance library, which cargo 1.87 or newer builds along");
  }
};

}  // namespace

Result<std::unique_ptr<StructureCompiler>> create_structure_compiler(const Tokenizer&, const std::vector<int32_t>&) {
  return std::unique_ptr<StructureCompiler>(std::make_unique<NoStructures>());
}

}  // namespace bise
