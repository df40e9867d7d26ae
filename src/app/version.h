// Facts of this build.
#pragma once

#include <string>
#include <vector>

namespace bise {

struct BuildInfo {
  std::string version, commit, compiler, build_type;
  std::vector<std::string> isa_levels;  // kernels built in, weakest first
  std::vector<std::string> backends;
};
BuildInfo build_info();

}  // namespace bise
