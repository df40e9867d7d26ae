#include <chrono>

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

class TimedMask final : public TokenMask {
 public:
  TimedMask(std::unique_ptr<TokenMask> inner, std::function<void(double)> took) : inner_(std::move(inner)), took_(std::move(took)) {}

  Result<bool> fill(std::span<uint32_t> bitmask) override {
    const auto begin = std::chrono::steady_clock::now();
    Result<bool> limited = inner_->fill(bitmask);
    took_(std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    return limited;
  }
  Result<void> accept(int32_t token) override { return inner_->accept(token); }
  bool is_finished() const override { return inner_->is_finished(); }

 private:
  std::unique_ptr<TokenMask> inner_;
  std::function<void(double)> took_;
};

}  // namespace

TokenMaskFactory timed(TokenMaskFactory make_mask, std::function<void(double)> took) {
  return [make_mask = std::move(make_mask), took = std::move(took)]() -> Result<std::unique_ptr<TokenMask>> {
    std::unique_ptr<TokenMask> inner = TRY(make_mask());
    return std::unique_ptr<TokenMask>(std::make_unique<TimedMask>(std::move(inner), took));
  };
}

TokenMaskFactory allow_only(std::vector<int32_t> ids) {
  auto shared = std::make_shared<const std::vector<int32_t>>(std::move(ids));
  return [shared]() -> Result<std::unique_ptr<TokenMask>> { return std::unique_ptr<TokenMask>(std::make_unique<AllowOnly>(shared)); };
}

}  // namespace bise
