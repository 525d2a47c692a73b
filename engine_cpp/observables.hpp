// Scalars of a universe; atheria/observables.py gives the formulas and computes the same.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <string_view>
#include <utility>
#include <vector>

namespace atheria {

struct Observables {
  double energy = 0;            // N = sum_x rho(x)
  double occupancy = 0;         // share of cells with rho > 0
  double position_entropy = 0;  // -sum p ln p, p = rho / N
  double ipr = 0;               // sum p^2
  double centre_x = 0;          // centre of mass, in cells
  double centre_y = 0;
  double radius_of_gyration = 0;  // in cells, about the centre

  using Entry = std::pair<std::string_view, double Observables::*>;
  static constexpr std::array<Entry, 7> entries{{{"energy", &Observables::energy},
                                                 {"occupancy", &Observables::occupancy},
                                                 {"position_entropy", &Observables::position_entropy},
                                                 {"ipr", &Observables::ipr},
                                                 {"centre_x", &Observables::centre_x},
                                                 {"centre_y", &Observables::centre_y},
                                                 {"radius_of_gyration", &Observables::radius_of_gyration}}};
};

// One entry per universe. psi: (B, 2d, H, W). On a torus centre and radius are circular; the centre is the
// middle of an axis along which the matter has none.
std::vector<Observables> observe(const at::Tensor& psi, bool torus);

}  // namespace atheria
