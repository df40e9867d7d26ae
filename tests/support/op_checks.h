// What the conformance tests of the backends share: which cases they ask, and how outputs are compared.
#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <ostream>
#include <span>
#include <sstream>
#include <string>
#include <vector>

#include "support/op_cases.h"

namespace bise::test {

struct OpAt {
  Op op;
  Precision precision;
};
inline void PrintTo(const OpAt& p, std::ostream* out) {
  *out << op_name(p.op) << (p.precision == Precision::fast ? "_fast" : "_reference");
}
inline std::vector<OpAt> every_op() {
  std::vector<OpAt> all;
  for (int op = 0; op <= static_cast<int>(Op::unfold_patches); ++op) {
    for (Precision precision : {Precision::fast, Precision::reference}) all.push_back({static_cast<Op>(op), precision});
  }
  return all;
}

// The table of cases. Sanitizers look at memory, not at numbers: of the ops with many cases they see a third, with the other
// precision another third.
inline std::vector<OpCase> cases_for(Precision precision) {
  std::vector<OpCase> all = op_cases(), some;
  if (BISE_TEST_SHARE == 1) return all;
  std::map<Op, size_t> count, turn;
  for (const OpCase& c : all) ++count[c.op];
  for (OpCase& c : all) {
    if (count[c.op] < 30 || turn[c.op]++ % 3 == static_cast<size_t>(precision)) some.push_back(std::move(c));
  }
  return some;
}

inline bool is_row_wise(Op op) {
  return op == Op::matmul || op == Op::embed || op == Op::rms_norm || op == Op::rope || op == Op::activation ||
         op == Op::gated_activation || op == Op::add_bias;
}

inline bool same_bits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// The output elements that are outside their bounds, for the message of a failure.
inline std::string differences(std::span<const float> got, std::span<const float> want,
                               std::span<const double> bounds) {
  std::ostringstream text;
  int wrong = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double error = std::fabs(double{got[i]} - want[i]);
    if (error <= bounds[i] || (std::isnan(got[i]) && std::isnan(want[i]))) continue;
    if (++wrong <= 3) {
      text << "element " << i << ": " << got[i] << ", not " << want[i] << " +- " << bounds[i] << "; ";
    }
  }
  return wrong == 0 ? "" : std::to_string(wrong) + " of " + std::to_string(want.size()) + " wrong: " + text.str();
}

}  // namespace bise::test
