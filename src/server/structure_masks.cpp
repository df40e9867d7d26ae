#include "server/structure_compiler.h"

namespace bise {
namespace {

class AllowOnly final : public TokenMask {
 public:
  explicit AllowOnly(std::shared_ptr<const std::vector<int32_t>> ids) : ids_(std::move(ids)) {}
  Result<bool> fill(std::span<uint32_t> bitmask) override {
    for (int32_t id : *ids_) bitmask[static_cast<size_t>(id) / 32] |= uint32_t{1} << (id % 32);
    return true;
  }
  Result<void> accept(int32_t) override { return {}; }
  bool is_finished() const override { return false; }

 private:
  std::shared_ptr<const std::vector<int32_t>> ids_;
};

}  // namespace

TokenMaskFactory allow_only(std::vector<int32_t> ids) {
  auto shared = std::make_shared<const std::vector<int32_t>>(std::move(ids));
  return [shared]() -> Result<std::unique_ptr<TokenMask>> { return std::unique_ptr<TokenMask>(std::make_unique<AllowOnly>(shared)); };
}

}  // namespace bise
