// Numbers in messages.
#pragma once

#include <sstream>
#include <string>

namespace atheria {

// As 0.0012 or 3.5e-07, with so many digits that count.
inline std::string short_number(double x, int digits = 6) {
  std::ostringstream text;
  text.precision(digits);
  text << x;
  return text.str();
}

}  // namespace atheria
