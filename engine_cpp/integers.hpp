// Whole numbers, as indices and in units.
#pragma once

#include <cstddef>
#include <cstdint>

namespace atheria {

// An index that is known not to be negative.
inline std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

inline std::int64_t ceil_div(std::int64_t count, std::int64_t unit) { return (count + unit - 1) / unit; }
inline std::int64_t rounded_up(std::int64_t x, std::int64_t unit) { return ceil_div(x, unit) * unit; }

}  // namespace atheria
