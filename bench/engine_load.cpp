// What a server's engine does under load, without the server: one JSON line per measurement.
//
//   engine_load MODEL [--threads N] [CASE...]     MODEL as for `bise run`; all cases when none is named
//
//   itl       inter-token time of one stream: alone, and while prompts of 8,000 tokens arrive
//   cache     time to read a prompt of 1,024 tokens: without and with the cache (0 % hits); and what the scheduler alone
//             takes of it, which says what the cache costs where the clock's noise does not
//   hit       64 new tokens: alone, behind 4,096 that the cache holds, and behind the same in one long prompt
//   batch     tokens/s of 1, 8 and 32 streams, and the share of a step outside of the forward pass
//   fair      time to first token of a polite tenant: alone, and beside one that floods
#include <algorithm>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "app/session.h"
#include "base/random.h"
#include "engine/engine.h"
#include "engine/scheduler.h"

namespace bise {
namespace {

double ms_since(EngineClock::time_point start) {
  return std::chrono::duration<double, std::milli>(EngineClock::now() - start).count();
}
double quantile(std::vector<double> values, double q) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(q * static_cast<double>(values.size() - 1))];
}

struct Load {
  const Model& model;
  uint64_t seed = 0;

  NewSequence prompt(int32_t tokens, int32_t answer) {
    NewSequence sequence;
    ++seed;
    for (int32_t i = 0; i < tokens; ++i) {
      uint64_t id = random_bits(seed, 1, static_cast<uint64_t>(i));
      sequence.ids.push_back(static_cast<int32_t>(
          100 + id % static_cast<uint64_t>(model.config().vocab_size - 200)));
    }
    sequence.params.temperature = 0.0;
    sequence.params.ignore_eos = true;
    sequence.params.max_tokens = answer;
    return sequence;
  }
  std::unique_ptr<Engine> engine(EngineOptions options) {
    if (options.kv_tokens == 0) options.kv_tokens = 24576;
    return Engine::create(model, options).value();
  }

  void itl(double stretch) {
    EngineOptions options;
    options.max_step_stretch = stretch;
    auto e = engine(options);
    const SequenceId stream = e->submit(prompt(64, 8000)).value();
    auto run = [&](int tokens, bool with_prompts, int64_t& read) {
      std::vector<double> gaps;
      EngineClock::time_point last;
      SequenceId reader = 0;
      const uint64_t before = e->stats().prompt_tokens;
      for (int seen = 0; seen <= tokens;) {
        if (with_prompts && reader == 0) reader = e->submit(prompt(8000, 1)).value();
        for (const SequenceEvent& event : e->step()) {
          if (event.sequence == reader && event.finish != FinishReason::none) reader = 0;
          if (event.sequence != stream || !event.token) continue;
          if (seen++ > 0) gaps.push_back(ms_since(last));
          last = EngineClock::now();
        }
      }
      read = static_cast<int64_t>(e->stats().prompt_tokens - before);
      if (reader != 0) e->cancel(reader);
      return gaps;
    };
    int64_t read = 0;
    run(20, false, read);
    std::vector<double> idle = run(200, false, read);
    const auto start = EngineClock::now();
    std::vector<double> loaded = run(700, true, read);
    const double seconds = ms_since(start) / 1e3;
    std::vector<double> idle_after = run(60, false, read);
    EngineStats stats = e->stats();
    std::printf(
        "{\"case\": \"itl\", \"stretch\": %g, \"idle_p50_ms\": %.2f, \"idle_p99_ms\": %.2f, "
        "\"idle_after_p50_ms\": %.2f, \"loaded_p50_ms\": %.2f, \"loaded_p99_ms\": %.2f, "
        "\"p99_over_idle_p50\": %.2f, \"prompt_tokens_per_s\": %.0f, \"token_ms\": %.3f, "
        "\"bound_ms\": %.2f}\n",
        stretch, quantile(idle, 0.5), quantile(idle, 0.99), quantile(idle_after, 0.5),
        quantile(loaded, 0.5), quantile(loaded, 0.99), quantile(loaded, 0.99) / quantile(idle, 0.5),
        static_cast<double>(read) / seconds, stats.prefill_token_seconds * 1e3,
        stats.step_bound_seconds * 1e3);
  }

  double first_token_ms(Engine& e, NewSequence sequence) {
    return e.generate(std::move(sequence), {}).value().prefill_seconds * 1e3;
  }
  void cache() {
    EngineOptions options;
    options.prefix_cache = false;
    auto plain = engine(options);
    options.prefix_cache = true;
    auto cached = engine(options);
    std::vector<double> without, with;
    for (int round = 0; round < 9; ++round) {
      NewSequence one = prompt(1024, 1), two = prompt(1024, 1);
      if (round % 2 == 0) without.push_back(first_token_ms(*plain, one));
      with.push_back(first_token_ms(*cached, two));
      if (round % 2 == 1) without.push_back(first_token_ms(*plain, one));
    }
    const double books_off = books_us(false), books_on = books_us(true);
    std::printf(
        "{\"case\": \"cache\", \"off_ms\": %.1f, \"on_ms\": %.1f, \"on_over_off\": %.4f, \"scheduler_off_us\": %.1f, "
        "\"scheduler_on_us\": %.1f, \"cost_of_cache\": %.6f}\n",
        quantile(without, 0.5), quantile(with, 0.5), quantile(with, 0.5) / quantile(without, 0.5), books_off, books_on,
        (books_on - books_off) / 1e3 / quantile(without, 0.0));
  }

  // Microseconds that the scheduler takes for a prompt of 1,024 tokens which begins like no other, from add() to
  // finish(), no model computing. The cache is full, so that each block of a prompt evicts another's.
  double books_us(bool prefix_cache) {
    constexpr int kPrompts = 400;
    BlockManager blocks(512);
    Scheduler scheduler({}, blocks);
    double seconds = 0.0;
    for (int i = 0; i < 2 * kPrompts; ++i) {
      auto sequence = std::make_unique<Sequence>();
      sequence->tokens = prompt(1024, 1).ids;
      sequence->id = sequence->group = static_cast<SequenceId>(i + 1);
      sequence->prompt_tokens = sequence->total();
      sequence->max_tokens = sequence->total() + 1;
      if (prefix_cache) sequence->salt = "all";
      const auto start = EngineClock::now();
      scheduler.add(std::move(sequence));
      for (bool done = false; !done;) {
        for (Sequence* item : scheduler.plan().items) {
          done = item->samples();
          scheduler.complete(*item);
          if (done) scheduler.finish(item->id);
        }
      }
      if (i >= kPrompts) seconds += ms_since(start) / 1e3;
    }
    CHECK(prefix_cache == (blocks.num_evicted() > 0));
    return seconds / kPrompts * 1e6;
  }

  // The new tokens alone have nothing to look back on. What the cache costs shows beside the step that
  // reads the same tokens at the end of a long prompt.
  void hit() {
    EngineOptions options;
    options.prefix_cache = false;
    auto plain = engine(options);
    options.prefix_cache = true;
    auto cached = engine(options);
    const NewSequence shared = prompt(8 * options.max_step_tokens, 1);
    const double cold = first_token_ms(*cached, shared);
    std::vector<double> hits, alone, behind;
    for (int round = 0; round < 9; ++round) {
      NewSequence tail = prompt(64, 1), turn = shared;
      turn.ids.insert(turn.ids.end(), tail.ids.begin(), tail.ids.end());
      alone.push_back(first_token_ms(*plain, tail));
      hits.push_back(first_token_ms(*cached, turn));
      if (round > 1) continue;
      const SequenceId id = plain->submit(std::move(turn)).value();
      EngineClock::time_point last;
      for (bool done = false; !done;) {
        last = EngineClock::now();
        for (const SequenceEvent& event : plain->step()) done |= event.sequence == id && event.finish != FinishReason::none;
      }
      behind.push_back(ms_since(last));
    }
    std::printf(
        "{\"case\": \"hit\", \"cold_4096_ms\": %.0f, \"hit_ms\": %.1f, \"alone_ms\": %.1f, \"behind_ms\": %.1f, "
        "\"hit_over_alone\": %.3f, \"hit_over_behind\": %.3f}\n",
        cold, quantile(hits, 0.0), quantile(alone, 0.0), quantile(behind, 0.0), quantile(hits, 0.0) / quantile(alone, 0.0),
        quantile(hits, 0.0) / quantile(behind, 0.0));
  }

  void batch(int32_t streams, double temperature, double top_p) {
    EngineOptions options;
    options.max_sequences = 32;
    auto e = engine(options);
    for (int32_t i = 0; i < streams; ++i) {
      NewSequence sequence = prompt(32, 400);
      sequence.params.temperature = temperature;
      sequence.params.top_p = top_p;
      if (!e->submit(std::move(sequence))) return;
    }
    int tokens = 0;
    for (int i = 0; i < 10; ++i) e->step();
    const EngineStats before = e->stats();
    const auto start = EngineClock::now();
    const int steps = streams > 8 ? 40 : 100;
    for (int i = 0; i < steps; ++i) {
      for (const SequenceEvent& event : e->step()) tokens += event.token ? 1 : 0;
    }
    const double seconds = ms_since(start) / 1e3;
    const EngineStats after = e->stats();
    const double step = after.step_seconds.sum - before.step_seconds.sum;
    const double forward = after.forward_seconds.sum - before.forward_seconds.sum;
    std::printf(
        "{\"case\": \"batch\", \"streams\": %d, \"temperature\": %g, \"top_p\": %g, \"tokens_per_s\": %.1f, "
        "\"step_ms\": %.2f, \"outside_forward_share\": %.4f}\n",
        streams, temperature, top_p, tokens / seconds, 1e3 * step / steps, (step - forward) / step);
  }

  void fair() {
    auto measure = [&](int flood) {
      EngineOptions options;
      options.max_sequences = 8;
      options.max_step_stretch = 2.0;
      options.max_waiting = 100;
      auto e = engine(options);
      std::set<SequenceId> flooding;
      std::vector<double> first;
      SequenceId polite = 0;
      EngineClock::time_point asked;
      int pause = 30;
      while (first.size() < 20) {
        while (static_cast<int>(flooding.size()) < flood) {
          NewSequence sequence = prompt(400, 100);
          sequence.tenant = "flood";
          flooding.insert(e->submit(std::move(sequence)).value());
        }
        if (polite == 0 && --pause <= 0) {
          NewSequence sequence = prompt(200, 10);
          sequence.tenant = "polite";
          polite = e->submit(std::move(sequence)).value();
          asked = EngineClock::now();
        }
        for (const SequenceEvent& event : e->step()) {
          if (event.sequence == polite && event.token && event.times.first_token >= asked &&
              event.times.first_token == event.times.last_token) {
            first.push_back(ms_since(asked));
          }
          if (event.finish == FinishReason::none) continue;
          flooding.erase(event.sequence);
          if (event.sequence == polite) polite = 0, pause = 10;
        }
      }
      return first;
    };
    std::vector<double> alone = measure(0), beside = measure(40);
    std::printf(
        "{\"case\": \"fair\", \"ttft_alone_p50_ms\": %.0f, \"ttft_alone_p99_ms\": %.0f, "
        "\"ttft_flooded_p50_ms\": %.0f, \"ttft_flooded_p99_ms\": %.0f}\n",
        quantile(alone, 0.5), quantile(alone, 0.99), quantile(beside, 0.5),
        quantile(beside, 0.99));
  }
};

int run(int argc, char** argv) {
  CommonOptions common;
  std::set<std::string> cases;
  std::string name;
  for (int i = 1; i < argc; ++i) {
    std::string argument = argv[i];
    if (argument == "--threads" && i + 1 < argc) common.threads = std::stoi(argv[++i]);
    else if (name.empty()) name = argument;
    else cases.insert(argument);
  }
  auto session = open_session(name, {common, /*needs_text=*/false}, Log());
  if (!session) {
    std::fprintf(stderr, "%s\n", session.error().message().c_str());
    return 1;
  }
  Load load{*(*session)->model};
  auto wanted = [&cases](const char* c) { return cases.empty() || cases.count(c) > 0; };
  if (wanted("itl")) load.itl(2.0);
  if (wanted("cache")) load.cache();
  if (wanted("hit")) load.hit();
  if (wanted("batch")) {
    for (int32_t streams : {1, 8, 32}) load.batch(streams, 0.0, 1.0);
    load.batch(32, 1.0, 1.0);
    load.batch(32, 0.7, 0.95);
  }
  if (wanted("fair")) load.fair();
  return 0;
}

}  // namespace
}  // namespace bise

int main(int argc, char** argv) { return bise::run(argc, argv); }
