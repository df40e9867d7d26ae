// Numbers for people: sizes with units, fixed decimals, counts with separators.
#pragma once

#include <cstdint>
#include <string>

namespace bise {

std::string format_bytes(uint64_t bytes);              // "98.4 MB", decimal units
std::string format_fixed(double value, int decimals);  // "12.3"
std::string format_count(uint64_t count);              // "134,515,008"

}  // namespace bise
