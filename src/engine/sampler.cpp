#include "engine/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>

#include "base/random.h"

namespace bise {
namespace {

struct Candidate {
  float logit = 0.0f;
  int32_t id = 0;
};
bool more_likely(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Below it all is as with it: one token, or several that are equal. Its inverse is a float.
constexpr double kLowestTemperature = 1e-30;
constexpr float kNever = -std::numeric_limits<float>::infinity();
// Logits are read in groups of so many, each with its own sum or maximum: compilers make vectors of
// them. A vocabulary is read several times for each token, so this is most of what sampling costs.
constexpr size_t kLanes = 16;

float largest(std::span<const float> logits) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, kNever);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    const float* x = &logits[i];
    for (size_t j = 0; j < kLanes; ++j) lanes[j] = x[j] > lanes[j] ? x[j] : lanes[j];
  }
  float result = *std::max_element(lanes, lanes + kLanes);
  for (; i < logits.size(); ++i) result = std::max(result, logits[i]);
  return result;
}

// Whether all are numbers below +infinity.
bool are_numbers(std::span<const float> logits) {
  constexpr float kMax = std::numeric_limits<float>::max();
  uint32_t good[kLanes];
  std::fill(good, good + kLanes, 1u);
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    const float* x = &logits[i];
    for (size_t j = 0; j < kLanes; ++j) good[j] &= x[j] <= kMax ? 1u : 0u;
  }
  bool all = std::all_of(good, good + kLanes, [](uint32_t g) { return g != 0; });
  for (; i < logits.size(); ++i) all &= logits[i] <= kMax;
  return all;
}

// The unnormalised probability of a logit. Every path that looks at single tokens computes it here,
// so that they agree in the last bit.
double weight(float logit, float max_logit, double inverse_temperature) {
  double exponent =
      (static_cast<double>(logit) - static_cast<double>(max_logit)) * inverse_temperature;
  return static_cast<double>(std::exp(static_cast<float>(exponent)));
}

// exp(x) for x <= 0 within 2 units in the last place, in steps that a compiler makes vectors of:
// 2^n * exp(r) with |r| <= ln(2) / 2; what is below 2^-126 is 0.
inline float exp_of_negative(float x) {
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kLowest = -87.0f;
  const float y = x > kLowest ? x : kLowest;
  const int32_t n = static_cast<int32_t>(y * kLog2E - 0.5f);
  const float f = static_cast<float>(n);
  const float r = (y - f * kLn2High) - f * kLn2Low;
  // Cephes' polynomial for expf.
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const float scale = std::bit_cast<float>((n + 127) << 23);
  return x > kLowest ? p * scale : 0.0f;
}

// The sum of weight() over all logits, to 1e-6 of it.
double sum_of_weights(std::span<const float> logits, float max_logit, double inverse_temperature) {
  const float factor = static_cast<float>(inverse_temperature);
  constexpr size_t kGroups = 16;  // that are added as floats before they go to the double
  double sum = 0.0;
  size_t i = 0;
  while (i + kLanes <= logits.size()) {
    float lanes[kLanes] = {};
    for (size_t g = 0; g < kGroups && i + kLanes <= logits.size(); ++g, i += kLanes) {
      const float* x = &logits[i];
      for (size_t j = 0; j < kLanes; ++j) lanes[j] += exp_of_negative((x[j] - max_logit) * factor);
    }
    for (float lane : lanes) sum += static_cast<double>(lane);
  }
  for (; i < logits.size(); ++i) sum += weight(logits[i], max_logit, inverse_temperature);
  return sum;
}

// The tokens, most likely first, sorted only as far as somebody looks. A sort of a whole vocabulary
// of 131,072 takes some 10 ms; the tokens that matter are mostly a few dozen.
class SortedTokens {
 public:
  // `reach`: how far below the largest logit a token is expected to matter. Only those are
  // collected; when somebody looks further, the reach doubles.
  SortedTokens(std::span<const float> logits, float max_logit, double reach)
      : logits_(logits), max_logit_(static_cast<double>(max_logit)), reach_(reach) {
    collect();
  }

  size_t size() const { return logits_.size(); }
  // `index` < size().
  const Candidate& operator[](size_t index) {
    while (index >= num_sorted_) sort_more();
    return tokens_[index];
  }

 private:
  void collect() {
    // Far out there is nothing but masked logits, down to -infinity.
    float lowest = reach_ > 1e4 ? -std::numeric_limits<float>::infinity()
                                : static_cast<float>(max_logit_ - reach_);
    tokens_.clear();
    for (size_t i = 0; i < logits_.size(); ++i) {
      if (logits_[i] >= lowest) tokens_.push_back({logits_[i], static_cast<int32_t>(i)});
    }
  }
  void sort_more() {
    auto at = [this](size_t index) { return tokens_.begin() + static_cast<ptrdiff_t>(index); };
    if (num_sorted_ == tokens_.size()) {
      while (num_sorted_ == tokens_.size()) {
        CHECK(num_sorted_ < logits_.size());
        reach_ *= 2.0;
        collect();
      }
      // Those sorted before keep their places: the new ones are all less likely.
      std::nth_element(tokens_.begin(), at(num_sorted_), tokens_.end(), more_likely);
      std::sort(tokens_.begin(), at(num_sorted_), more_likely);
    }
    size_t end = std::min(tokens_.size(), std::max<size_t>(64, 2 * num_sorted_));
    if (end < tokens_.size()) {
      std::nth_element(at(num_sorted_), at(end), tokens_.end(), more_likely);
    }
    std::sort(at(num_sorted_), at(end), more_likely);
    num_sorted_ = end;
  }

  std::span<const float> logits_;
  double max_logit_, reach_;
  std::vector<Candidate> tokens_;
  size_t num_sorted_ = 0;
};

// Top-k, top-p and min-p all keep a prefix of the tokens in order of likelihood, so what is kept is
// one number (and the mass up to there).
struct Kept {
  size_t count = 0;
  double mass = 0.0;
};

size_t top_k_count(const SamplingParams& params, size_t vocab_size) {
  return params.top_k > 0 ? std::min(static_cast<size_t>(params.top_k), vocab_size) : vocab_size;
}

// `total`: the mass of the first `count` tokens. A token stays while those before it have less than
// top_p of the total (transformers, vLLM) and while it has at least min_p of the first one's share.
template <class Tokens>
Kept top_p_and_min_p(Tokens& tokens, size_t count, double total, const SamplingParams& params,
                     float max_logit, double inverse_temperature) {
  if (params.top_p >= 1.0 && params.min_p <= 0.0) return {count, total};
  Kept kept;
  double limit =
      params.top_p >= 1.0 ? std::numeric_limits<double>::infinity() : params.top_p * total;
  while (kept.count < count && kept.mass < limit) {
    double w = weight(tokens[kept.count].logit, max_logit, inverse_temperature);
    if (kept.count > 0 && w < params.min_p) break;
    kept.mass += w;
    ++kept.count;
  }
  return kept;
}

int32_t draw(std::span<const float> logits, const SamplingParams& params, double uniform) {
  float max_logit = largest(logits);
  double inverse_temperature = 1.0 / std::max(params.temperature, kLowestTemperature);
  // Below exp(-12) of the best token lies what is hardly ever reached.
  SortedTokens tokens(logits, max_logit, 12.0 * std::max(params.temperature, 1e-3));
  size_t count = top_k_count(params, logits.size());
  double total = 0.0;
  if (count < logits.size()) {
    for (size_t i = 0; i < count; ++i) {
      total += weight(tokens[i].logit, max_logit, inverse_temperature);
    }
  } else {
    total = sum_of_weights(logits, max_logit, inverse_temperature);
  }
  Kept kept = top_p_and_min_p(tokens, count, total, params, max_logit, inverse_temperature);
  double target = uniform * kept.mass;
  double mass = 0.0;
  int32_t last = tokens[0].id;
  for (size_t i = 0; i < kept.count; ++i) {
    double w = weight(tokens[i].logit, max_logit, inverse_temperature);
    if (w <= 0.0) break;  // and so are all behind it: only rounding leads here
    last = tokens[i].id;
    mass += w;
    if (mass > target) break;
  }
  return last;
}

bool changes_logits(const SamplingParams& params) {
  return params.repetition_penalty != 1.0 || params.presence_penalty != 0.0 ||
         params.frequency_penalty != 0.0 || !params.logit_bias.empty();
}

void apply_mask(std::span<float> logits, std::span<const uint32_t> allowed) {
  for (size_t i = 0; i < logits.size(); i += 32) {
    uint32_t bits = allowed[i / 32];
    if (bits == ~uint32_t{0}) continue;
    size_t end = std::min(logits.size(), i + 32);
    for (size_t j = i; j < end; ++j) {
      if ((bits >> (j - i) & 1) == 0) logits[j] = kNever;
    }
  }
}

void forbid_stop_tokens(std::span<float> logits, const std::vector<int32_t>& stop_tokens) {
  std::vector<float> before;
  for (int32_t id : stop_tokens) {
    float& logit = logits[static_cast<size_t>(id)];
    before.push_back(logit);
    logit = kNever;
  }
  if (largest(logits) != kNever) return;
  // Backwards, so that a token that is listed twice gets its first value.
  for (size_t i = stop_tokens.size(); i-- > 0;) {
    logits[static_cast<size_t>(stop_tokens[i])] = before[i];
  }
}

// Those of `ids` that are not in `out` yet.
void add_logprobs(std::span<const float> logits, const std::vector<int32_t>& ids, double log_sum,
                  std::vector<TokenLogprob>& out) {
  for (int32_t id : ids) {
    auto is_it = [id](const TokenLogprob& token) { return token.id == id; };
    if (std::any_of(out.begin(), out.end(), is_it)) continue;
    const double logit = static_cast<double>(logits[static_cast<size_t>(id)]);
    out.push_back({id, static_cast<float>(logit - log_sum)});
  }
}

Error bad_logits(const char* what) {
  return Error(ErrorCode::internal,
               std::string("the model gave ") + what +
                   "; the weights are damaged, or a number format overflowed on the way "
                   "(--precision reference tells the two apart)");
}

}  // namespace

void apply_repetition_penalty(std::span<float> logits, const TokenCounts& counts, double penalty) {
  if (penalty == 1.0) return;
  float factor = static_cast<float>(penalty);
  for (const auto& [id, count] : counts.counts()) {
    float& logit = logits[static_cast<size_t>(id)];
    logit = logit > 0.0f ? logit / factor : logit * factor;
    // An extreme penalty must not make an infinity of it.
    logit =
        std::clamp(logit, -std::numeric_limits<float>::max(), std::numeric_limits<float>::max());
  }
}

void apply_count_penalties(std::span<float> logits, const TokenCounts& counts, double frequency,
                           double presence) {
  if (frequency == 0.0 && presence == 0.0) return;
  for (const auto& [id, count] : counts.counts()) {
    if (count == 0) continue;
    logits[static_cast<size_t>(id)] -= static_cast<float>(frequency * count + presence);
  }
}

void apply_logit_bias(std::span<float> logits, const std::map<int32_t, float>& bias) {
  for (const auto& [id, value] : bias) logits[static_cast<size_t>(id)] += value;
}

int32_t greedy_token(std::span<const float> logits) {
  const auto best = std::find(logits.begin(), logits.end(), largest(logits));
  return static_cast<int32_t>(best - logits.begin());
}

double log_sum_exp(std::span<const float> logits) {
  float max_logit = largest(logits);
  double sum = sum_of_weights(logits, max_logit, 1.0);
  return static_cast<double>(max_logit) + std::log(sum);
}

std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, int32_t count,
                                       double log_sum) {
  SortedTokens tokens(logits, largest(logits), 10.0);
  std::vector<TokenLogprob> top;
  size_t wanted = std::min(static_cast<size_t>(std::max(count, 0)), tokens.size());
  for (size_t i = 0; i < wanted; ++i) {
    const Candidate& token = tokens[i];
    top.push_back({token.id, static_cast<float>(static_cast<double>(token.logit) - log_sum)});
  }
  return top;
}

std::vector<TokenProbability> kept_tokens(std::span<const float> logits,
                                          const SamplingParams& params) {
  std::vector<Candidate> tokens;
  for (size_t i = 0; i < logits.size(); ++i) tokens.push_back({logits[i], static_cast<int32_t>(i)});
  std::sort(tokens.begin(), tokens.end(), more_likely);
  if (params.temperature == 0.0) return {{tokens[0].id, 1.0}};
  float max_logit = tokens[0].logit;
  double inverse_temperature = 1.0 / std::max(params.temperature, kLowestTemperature);
  size_t count = top_k_count(params, tokens.size());
  double total = 0.0;
  for (size_t i = 0; i < count; ++i) {
    total += weight(tokens[i].logit, max_logit, inverse_temperature);
  }
  Kept kept = top_p_and_min_p(tokens, count, total, params, max_logit, inverse_temperature);
  std::vector<TokenProbability> result;
  for (size_t i = 0; i < kept.count; ++i) {
    double w = weight(tokens[i].logit, max_logit, inverse_temperature);
    result.push_back({tokens[i].id, w / kept.mass});
  }
  return result;
}

Result<SampledToken> sample(std::span<float> logits, const SamplingParams& params,
                            const TokenCounts& counts, int64_t position,
                            const DrawLimits& limits) {
  if (!are_numbers(logits)) return bad_logits("logits that are not finite numbers");
  if (!std::isfinite(largest(logits))) return bad_logits("no logit above minus infinity");

  SampledToken token;
  bool wants_logprobs = params.num_logprobs >= 0;
  std::vector<float> raw;
  double log_sum = 0.0;
  if (wants_logprobs) {
    log_sum = log_sum_exp(logits);
    token.top = top_logprobs(logits, params.num_logprobs, log_sum);
    add_logprobs(logits, params.logprob_ids, log_sum, token.top);
    raw.assign(logits.begin(), logits.end());
  }
  if (changes_logits(params)) {
    apply_repetition_penalty(logits, counts, params.repetition_penalty);
    apply_count_penalties(logits, counts, params.frequency_penalty, params.presence_penalty);
    apply_logit_bias(logits, params.logit_bias);
  }
  if (!limits.allowed.empty()) {
    apply_mask(logits, limits.allowed);
    if (largest(logits) == kNever) {
      return Error(ErrorCode::internal, "the structure asked for allows no token here")
          .with_kind("token_mask");
    }
  }
  if (limits.no_stop_tokens) forbid_stop_tokens(logits, params.stop_tokens);
  token.id =
      params.temperature == 0.0
          ? greedy_token(logits)
          : draw(logits, params,
                 random_uniform(params.seed, kSamplerStream, static_cast<uint64_t>(position)));
  if (wants_logprobs) {
    token.logprob =
        static_cast<float>(static_cast<double>(raw[static_cast<size_t>(token.id)]) - log_sum);
  }
  return token;
}

SampledToken token_logprobs(std::span<const float> logits, int32_t id, int32_t count) {
  double log_sum = log_sum_exp(logits);
  double logit = static_cast<double>(logits[static_cast<size_t>(id)]);
  return {id, static_cast<float>(logit - log_sum), top_logprobs(logits, count, log_sum)};
}

}  // namespace bise
