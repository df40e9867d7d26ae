// One request of the demo model, without a network.
#include "server/generation.h"

#include <gtest/gtest.h>

#include <string>

#include "model/golden_model.h"

namespace bise {
namespace {

const std::string kDemo = std::string(BISE_GOLDEN_DIR) + "/../../models/demo";

class Client : public HttpReply {
 public:
  void send(HttpResponse) override {}
  void begin(int, std::vector<HttpHeader>, std::string) override {}
  bool write(std::string_view) override { return true; }
  void end() override {}
  bool client_gone() const override { return false; }
  void when_gone(std::function<void()>) override {}
};

struct Served {
  GoldenModel golden = open_golden(kDemo, {});
  std::unique_ptr<ChatService> chat = std::move(*create_mistral_chat(kDemo + "/tekken.json"));
  EngineThread engine{std::move(*Engine::create(*golden.model, {}))};
  ServerMetrics metrics{"demo"};
  ServedModel model;

  Served() { model.chat = chat.get(), model.engine = &engine; }

  std::unique_ptr<Generation> submit(int32_t max_tokens) {
    GenerationPlan plan;
    plan.prompts.emplace_back().ids = {chat->bos(), 1046, 1046};
    plan.sampling.temperature = 0;
    plan.sampling.max_tokens = max_tokens;
    auto generation = Generation::submit(model, std::move(plan), metrics);
    return std::move(*generation);
  }
};

// The deltas that end a choice are given to `at_end` before the client could read them.
void run(Generation& generation, const std::function<void(const OutputDelta&)>& at_end) {
  Client client;
  auto deltas = [&](const std::vector<OutputDelta>& given) {
    if (given.back().kind == OutputDelta::Kind::finish) at_end(given.back());
  };
  EXPECT_TRUE(generation.run(client, deltas, [](double) {}));
}

TEST(generation, cannot_be_cancelled_when_its_end_is_told) {
  Served served;
  auto generation = served.submit(3);
  std::string reason;
  run(*generation, [&](const OutputDelta& end) {
    reason = end.finish_reason;
    EXPECT_FALSE(generation->cancel());
  });
  EXPECT_EQ(reason, "length");
  EXPECT_FALSE(generation->cancel());
}

TEST(generation, is_cancelled_while_it_runs) {
  Served served;
  auto generation = served.submit(100000);
  EXPECT_TRUE(generation->cancel());
  std::string reason;
  run(*generation, [&](const OutputDelta& end) { reason = end.finish_reason; });
  EXPECT_EQ(reason, "abort");
}

}  // namespace
}  // namespace bise
