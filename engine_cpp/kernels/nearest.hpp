// Sums over nearest neighbours. Part of kernels_of.hpp.

// A column's factors.
struct ColumnFactors {
  explicit ColumnFactors(const NearestSums::Column& of)
      : above(splat(of.above)), here(splat(of.here)), below(splat(of.below)) {}

  Vector above, here, below;
};

// A sum's factors.
struct SumFactors {
  explicit SumFactors(const NearestSums::Sum& of)
      : left(splat(of.left)), right(splat(of.right)), constant(splat(of.constant)), middle(of.middle) {}

  Vector left, right, constant;
  ColumnFactors middle;
};

// The rows above, at and below a cell.
struct ThreeRows {
  const float *above, *here, *below;

  Vector column(const ColumnFactors& of, std::int64_t x) const {
    return of.above * load(above + x) + of.here * load(here + x) + of.below * load(below + x);
  }
};

enum class Sides : std::uint8_t { none, alike, apart };

// A group's factors, and its sums in some vectors of a row, which stay in registers. Of `count` sums the last
// `middles` see the column that the cell is in.
template <Sides sides, std::int64_t count, std::int64_t middles>
struct NearestRow {
  explicit NearestRow(const NearestSums::Group& group)
      : of_left(group.left), of_right(group.right), first(group.sums[0]), second(group.sums[count - 1]) {}

  // Writes the sums of `vectors` vectors from cell x on, which are a ring or lie between the columns `before`
  // and `after`. Returns the last one of their own.
  template <std::int64_t vectors, bool is_ring>
  Vector sum(const ThreeRows& rows, std::int64_t x, Vector before, Vector after, float* const* outs) const {
    Vector left[vectors];
    Vector right[vectors];
    Vector last{};
    if constexpr (sides != Sides::none) {
      Vector a[vectors];
      Vector b[vectors];
#pragma GCC unroll 4
      for (std::int64_t v = 0; v < vectors; ++v) {
        a[v] = rows.column(of_left, x + v * lanes);
        b[v] = sides == Sides::alike ? a[v] : rows.column(of_right, x + v * lanes);
      }
      last = a[vectors - 1];
#pragma GCC unroll 4
      for (std::int64_t v = 0; v < vectors; ++v) {
        left[v] = moved_right(v > 0 ? a[v - 1] : is_ring ? last : before, a[v]);
        right[v] = moved_left(b[v], v + 1 < vectors ? b[v + 1] : is_ring ? b[0] : after);
      }
    }
#pragma GCC unroll 2
    for (std::int64_t s = 0; s < count; ++s) {
      const auto& of = s == 0 ? first : second;
#pragma GCC unroll 4
      for (std::int64_t v = 0; v < vectors; ++v) {
        Vector sum = of.constant;
        if (s >= count - middles) sum += rows.column(of.middle, x + v * lanes);
        if constexpr (sides != Sides::none) {
          sum += of.left * left[v];
          sum += of.right * right[v];
        }
        store(outs[s] + x + v * lanes, sum);
      }
    }
    return last;
  }

  const ColumnFactors of_left, of_right;
  const SumFactors first, second;
};

template <Sides sides, std::int64_t count, std::int64_t middles>
inline void sum_nearest_of(const NearestSums& task, const NearestSums::Group& group) {
  constexpr std::int64_t at_once = lanes == 16 ? 4 : 2;  // as many as registers hold
  const NearestRow<sides, count, middles> of(group);
  const auto& in = task.in;
  const auto width = in.width;
  const bool is_ring = width == at_once * lanes && in.to_right == 0;
  for (std::int64_t p = 0; p < group.planes; ++p) {
    const float* const plane = in.planes[group.sources[p]];
    float* outs[count];
    for (std::int64_t s = 0; s < count; ++s) outs[s] = task.out[group.results[p * count + s]];
    for (std::int64_t y = 0; y < in.height; ++y) {
      const auto row = [&](std::int64_t r) {
        return in.rows[r] == Surroundings::nothing ? in.zeros : plane + in.rows[r];
      };
      const ThreeRows rows{row(y), row(y + 1), row(y + 2)};
      if (is_ring) {
        of.template sum<at_once, true>(rows, 0, Vector{}, Vector{}, outs);
      } else {
        const auto column = [&](const ColumnFactors& factors, std::int64_t from, std::int64_t x) {
          return sides == Sides::none || from == Surroundings::nothing ? Vector{} : rows.column(factors, x);
        };
        Vector before = column(of.of_left, in.to_left, in.to_left - (lanes - 1));
        const auto after = [&](std::int64_t end) {
          const auto x = end < width ? end : in.to_right;
          return column(of.of_right, x, x);
        };
        std::int64_t x = 0;
        for (; x + at_once * lanes <= width; x += at_once * lanes) {
          before = of.template sum<at_once, false>(rows, x, before, after(x + at_once * lanes), outs);
        }
        for (; x < width; x += lanes) {
          before = of.template sum<1, false>(rows, x, before, after(x + lanes), outs);
        }
      }
      for (std::int64_t s = 0; s < count; ++s) outs[s] += width;
    }
  }
}

void sum_nearest(const NearestSums& task) {
  for (std::int64_t g = 0; g < task.group_count; ++g) {
    const auto& group = task.groups[g];
    if (!group.has_sides) {
      sum_nearest_of<Sides::none, 1, 1>(task, group);
    } else if (!group.is_alike) {
      sum_nearest_of<Sides::apart, 1, 1>(task, group);
    } else if (group.count == 1 && group.middles == 0) {
      sum_nearest_of<Sides::alike, 1, 0>(task, group);
    } else if (group.count == 1) {
      sum_nearest_of<Sides::alike, 1, 1>(task, group);
    } else if (group.middles == 0) {
      sum_nearest_of<Sides::alike, 2, 0>(task, group);
    } else if (group.middles == 1) {
      sum_nearest_of<Sides::alike, 2, 1>(task, group);
    } else {
      sum_nearest_of<Sides::alike, 2, 2>(task, group);
    }
  }
}
