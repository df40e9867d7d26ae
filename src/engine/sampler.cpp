#include "engine/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>

#include "base/random.h"

namespace bise {
namespace {

struct Candidate {
  float logit;
  int32_t id;
};
bool more_likely(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// Below it all is as with it: one token, or several that are equal. Its inverse is a float.
constexpr double kLowestTemperature = 1e-30;
constexpr float kNever = -std::numeric_limits<float>::infinity();
constexpr size_t kGroup = static_cast<size_t>(kLogitGroup);

size_t num_groups(size_t logits) { return (logits + kGroup - 1) / kGroup; }

// What one pass over the logits tells.
struct Peaks {
  std::vector<float> of_group;  // the largest of each kGroup logits
  float largest = kNever;
  bool are_numbers = true;  // no NaN, none that is +infinity
};

Peaks find_peaks(std::span<const float> logits, const LogitMath& math) {
  Peaks peaks;
  peaks.of_group.resize(num_groups(logits.size()));
  peaks.are_numbers =
      math.peaks(logits.data(), static_cast<int64_t>(logits.size()), peaks.of_group.data());
  for (float peak : peaks.of_group) peaks.largest = std::max(peaks.largest, peak);
  return peaks;
}

// The lowest id among the largest.
int32_t first_largest(std::span<const float> logits, const Peaks& peaks) {
  const auto group = std::find(peaks.of_group.begin(), peaks.of_group.end(), peaks.largest);
  const auto from =
      logits.begin() + (group - peaks.of_group.begin()) * static_cast<ptrdiff_t>(kGroup);
  return static_cast<int32_t>(std::find(from, logits.end(), peaks.largest) - logits.begin());
}

// The unnormalised probability of a logit. Every path that looks at single tokens computes it here,
// so that they agree in the last bit.
double weight(float logit, float max_logit, double inverse_temperature) {
  double exponent =
      (static_cast<double>(logit) - static_cast<double>(max_logit)) * inverse_temperature;
  return static_cast<double>(std::exp(static_cast<float>(exponent)));
}

// The sum of weight() over all logits, to 2e-6 of it, and over each group.
struct Masses {
  std::vector<float> of_group;
  double total = 0.0;
};
Masses sum_weights(std::span<const float> logits, const Peaks& peaks, double inverse_temperature,
                   const LogitMath& math) {
  Masses masses;
  masses.of_group.resize(num_groups(logits.size()));
  math.exp_sums(logits.data(), static_cast<int64_t>(logits.size()), peaks.largest,
                static_cast<float>(inverse_temperature), masses.of_group.data());
  for (float mass : masses.of_group) masses.total += static_cast<double>(mass);
  return masses;
}

// The tokens, most likely first, sorted only as far as somebody looks. A sort of a whole vocabulary
// of 131,072 takes some 10 ms; the tokens that matter are mostly a few dozen.
class SortedTokens {
 public:
  // `reach`: how far below the largest logit a token is expected to matter. Only those are
  // collected; when somebody looks further, the reach doubles.
  SortedTokens(std::span<const float> logits, const Peaks& peaks, double reach)
      : logits_(logits),
        peaks_(peaks),
        max_logit_(static_cast<double>(peaks.largest)),
        reach_(reach),
        tokens_(std::make_unique_for_overwrite<Candidate[]>(logits.size())) {
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
    // Which tokens they are nobody can foretell, a branch predictor least: each is written, and the
    // next one over it where it was none.
    num_collected_ = 0;
    for (size_t group = 0; group < peaks_.of_group.size(); ++group) {
      if (peaks_.of_group[group] < lowest) continue;
      const size_t first = group * kGroup, end = std::min(logits_.size(), first + kGroup);
      for (size_t i = first; i < end; ++i) {
        tokens_[num_collected_] = {logits_[i], static_cast<int32_t>(i)};
        num_collected_ += logits_[i] >= lowest ? 1 : 0;
      }
    }
  }
  void sort_more() {
    Candidate* const all = tokens_.get();
    if (num_sorted_ == num_collected_) {
      while (num_sorted_ == num_collected_) {
        CHECK(num_sorted_ < logits_.size());
        reach_ *= 2.0;
        collect();
      }
      // Those sorted before keep their places: the new ones are all less likely.
      std::nth_element(all, all + num_sorted_, all + num_collected_, more_likely);
      std::sort(all, all + num_sorted_, more_likely);
    }
    const size_t end = std::min(num_collected_, std::max<size_t>(64, 4 * num_sorted_));
    if (end < num_collected_) {
      std::nth_element(all + num_sorted_, all + end, all + num_collected_, more_likely);
    }
    std::sort(all + num_sorted_, all + end, more_likely);
    num_sorted_ = end;
  }

  std::span<const float> logits_;
  const Peaks& peaks_;
  double max_logit_, reach_;
  // Room for all; only those that were collected are ever written.
  std::unique_ptr<Candidate[]> tokens_;
  size_t num_collected_ = 0, num_sorted_ = 0;
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

// Where every token is kept nothing needs to be sorted: they are drawn in the order of their ids.
int32_t draw_from_all(std::span<const float> logits, const Peaks& peaks, double inverse_temperature,
                      double uniform, const LogitMath& math) {
  const Masses masses = sum_weights(logits, peaks, inverse_temperature, math);
  const double target = uniform * masses.total;
  // The group, then the token; rounding may lead behind the last that can be drawn, and not
  // further.
  size_t group = 0;
  double mass = 0.0, end = 0.0;
  for (size_t g = 0; g < masses.of_group.size() && end <= target; ++g) {
    if (masses.of_group[g] <= 0.0f) continue;
    group = g;
    mass = end;
    end += static_cast<double>(masses.of_group[g]);
  }
  const size_t behind = std::min(logits.size(), (group + 1) * kGroup);
  size_t drawn = group * kGroup;
  for (size_t i = drawn; i < behind && mass <= target; ++i) {
    const double w = weight(logits[i], peaks.largest, inverse_temperature);
    if (w <= 0.0) continue;
    drawn = i;
    mass += w;
  }
  return static_cast<int32_t>(drawn);
}

int32_t draw(std::span<const float> logits, const Peaks& peaks, const SamplingParams& params,
             double uniform, const LogitMath& math) {
  const float max_logit = peaks.largest;
  const double inverse_temperature = 1.0 / std::max(params.temperature, kLowestTemperature);
  const size_t count = top_k_count(params, logits.size());
  if (count == logits.size() && params.top_p >= 1.0 && params.min_p <= 0.0) {
    return draw_from_all(logits, peaks, inverse_temperature, uniform, math);
  }
  // Below exp(-12) of the best token lies what is hardly ever reached.
  SortedTokens tokens(logits, peaks, 12.0 * std::max(params.temperature, 1e-3));
  double total = 0.0;
  if (count < logits.size()) {
    for (size_t i = 0; i < count; ++i) {
      total += weight(tokens[i].logit, max_logit, inverse_temperature);
    }
  } else if (params.top_p < 1.0) {
    total = sum_weights(logits, peaks, inverse_temperature, math).total;
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

double log_sum_of(std::span<const float> logits, const Peaks& peaks, const LogitMath& math) {
  return static_cast<double>(peaks.largest) + std::log(sum_weights(logits, peaks, 1.0, math).total);
}

std::vector<TokenLogprob> most_likely(std::span<const float> logits, const Peaks& peaks,
                                      int32_t count, double log_sum) {
  std::vector<TokenLogprob> top;
  if (count <= 0) return top;
  SortedTokens tokens(logits, peaks, 10.0);
  const size_t wanted = std::min(static_cast<size_t>(count), tokens.size());
  for (size_t i = 0; i < wanted; ++i) {
    const Candidate& token = tokens[i];
    top.push_back({token.id, static_cast<float>(static_cast<double>(token.logit) - log_sum)});
  }
  return top;
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

void forbid_stop_tokens(std::span<float> logits, const std::vector<int32_t>& stop_tokens,
                        const LogitMath& math) {
  std::vector<float> before;
  for (int32_t id : stop_tokens) {
    float& logit = logits[static_cast<size_t>(id)];
    before.push_back(logit);
    logit = kNever;
  }
  if (find_peaks(logits, math).largest != kNever) return;
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

double log_sum_exp(std::span<const float> logits) {
  const LogitMath& math = scalar_logit_math();
  return log_sum_of(logits, find_peaks(logits, math), math);
}

std::vector<TokenLogprob> top_logprobs(std::span<const float> logits, int32_t count,
                                       double log_sum) {
  return most_likely(logits, find_peaks(logits, scalar_logit_math()), count, log_sum);
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
                            const TokenCounts& counts, int64_t position, const DrawLimits& limits,
                            const LogitMath& math) {
  Peaks peaks = find_peaks(logits, math);
  if (!peaks.are_numbers) return bad_logits("logits that are not finite numbers");
  if (peaks.largest == kNever) return bad_logits("no logit above minus infinity");

  const bool has_mask = !limits.allowed.empty(), wants_logprobs = params.num_logprobs >= 0;
  const bool changes = changes_logits(params) || has_mask || limits.no_stop_tokens;
  SampledToken token;
  std::vector<float> raw;
  double log_sum = 0.0;
  if (wants_logprobs) {
    log_sum = log_sum_of(logits, peaks, math);
    token.top = most_likely(logits, peaks, params.num_logprobs, log_sum);
    add_logprobs(logits, params.logprob_ids, log_sum, token.top);
    if (changes) raw.assign(logits.begin(), logits.end());
  }
  if (changes_logits(params)) {
    apply_repetition_penalty(logits, counts, params.repetition_penalty);
    apply_count_penalties(logits, counts, params.frequency_penalty, params.presence_penalty);
    apply_logit_bias(logits, params.logit_bias);
  }
  if (has_mask) {
    apply_mask(logits, limits.allowed);
    if (find_peaks(logits, math).largest == kNever) {
      return Error(ErrorCode::internal, "the structure asked for allows no token here")
          .with_kind("token_mask");
    }
  }
  if (limits.no_stop_tokens) forbid_stop_tokens(logits, params.stop_tokens, math);
  if (changes) peaks = find_peaks(logits, math);
  token.id =
      params.temperature == 0.0
          ? first_largest(logits, peaks)
          : draw(logits, peaks, params,
                 random_uniform(params.seed, kSamplerStream, static_cast<uint64_t>(position)),
                 math);
  if (wants_logprobs) {
    const float logit =
        (changes ? std::span<const float>(raw) : logits)[static_cast<size_t>(token.id)];
    token.logprob = static_cast<float>(static_cast<double>(logit) - log_sum);
  }
  return token;
}

SampledToken token_logprobs(std::span<const float> logits, int32_t id, int32_t count,
                            const LogitMath& math) {
  const Peaks peaks = find_peaks(logits, math);
  const double log_sum = log_sum_of(logits, peaks, math);
  const double logit = static_cast<double>(logits[static_cast<size_t>(id)]);
  return {id, static_cast<float>(logit - log_sum), most_likely(logits, peaks, count, log_sum)};
}

}  // namespace bise
