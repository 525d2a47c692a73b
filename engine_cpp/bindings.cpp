// The Python face of the engine: arrays cross here, the GIL is released here, nothing is computed here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/complex.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <iterator>
#include <mutex>
#include <new>
#include <string_view>
#include <thread>

#include "arrays.hpp"
#include "docstrings.hpp"
#include "engine.hpp"
#include "philox.hpp"

namespace nb = nanobind;
using namespace nb::literals;
namespace docstrings = atheria::docstrings;
using atheria::amplitudes;
using atheria::as_field;
using atheria::as_numpy;
using atheria::as_tensor;
using atheria::Engine;
using atheria::FieldArray;

namespace {

void raise_if_interrupted() {
  const nb::gil_scoped_acquire acquired;
  if (PyErr_CheckSignals() != 0) throw nb::python_error();
}

// Lets Python handle signals between steps, but takes the GIL for it only now and then.
class InterruptCheck {
 public:
  void operator()() {
    const auto now = std::chrono::steady_clock::now();
    if (now < next_) return;
    raise_if_interrupted();
    next_ = std::chrono::steady_clock::now() + patience;
  }

  static constexpr auto patience = std::chrono::milliseconds(20);

 private:
  std::chrono::steady_clock::time_point next_ = std::chrono::steady_clock::now() + patience;
};

template <typename Work>
auto without_gil(Work work) {
  const nb::gil_scoped_release released;
  return work();
}

// A Python object that may be let go of by a thread that does not hold the GIL.
std::shared_ptr<nb::object> shared(nb::object object) {
  return {new nb::object(std::move(object)), [](nb::object* kept) {
            const nb::gil_scoped_acquire acquired;
            delete kept;
          }};
}

// recorder: None, or recorder(step) -> (replay, how).
atheria::Recorder bound(const nb::object& recorder) {
  if (recorder.is_none()) return {};
  return [record = shared(recorder)](const std::function<void()>& step) -> atheria::Recording {
    const nb::gil_scoped_acquire acquired;
    const auto [replay, how] = nb::cast<std::pair<nb::object, std::string>>(
        (*record)(nb::cpp_function([step] { without_gil(step); })));
    return {[kept = shared(replay)] {
              const nb::gil_scoped_acquire held;
              (*kept)();
            },
            how};
  };
}

// One thread at a time inside an engine, and the others run Python meanwhile.
class BoundEngine {
 public:
  BoundEngine(std::optional<std::int64_t> d_state, const std::string& device, int threads,
              const std::string& precision, const std::string& backend, const nb::object& recorder)
      : engine_(d_state, device, threads, precision, backend, bound(recorder)) {}

  template <typename Work>
  auto without_gil(Work work) {
    const nb::gil_scoped_release released;
    if (owner_ == std::this_thread::get_id()) {
      throw std::runtime_error("the engine is stepping; a signal handler or a callback cannot call it");
    }
    std::unique_lock lock(mutex_, std::defer_lock);
    while (!lock.try_lock_for(InterruptCheck::patience)) raise_if_interrupted();
    const Ownership ownership(owner_);
    return work(engine_);
  }

 private:
  class Ownership {
   public:
    explicit Ownership(std::atomic<std::thread::id>& owner) : owner_(owner) {
      owner_ = std::this_thread::get_id();
    }
    ~Ownership() { owner_ = std::thread::id(); }
    Ownership(const Ownership&) = delete;
    Ownership& operator=(const Ownership&) = delete;

   private:
    std::atomic<std::thread::id>& owner_;
  };

  Engine engine_;
  std::timed_mutex mutex_;
  std::atomic<std::thread::id> owner_;
};

using Sides = std::optional<std::pair<std::int64_t, std::int64_t>>;  // height, width

std::optional<atheria::Size> size_of(const Sides& sides) {
  if (!sides) return {};
  return atheria::Size{sides->first, sides->second};
}

void add_condition(atheria::Stop& stop, const std::string& name) {
  if (name == "extinction") {
    stop.extinction = true;
  } else if (name == "fixed_point") {
    stop.fixed_point = true;
  } else if (name == "blow_up") {
    stop.blow_up = true;
  } else {
    throw std::invalid_argument("`stop` may hold extinction, fixed_point and blow_up, got '" + name + "'");
  }
}

nb::dict to_dict(const atheria::Observables& observables) {
  nb::dict result;
  for (const auto& [name, member] : atheria::Observables::entries) {
    result[nb::str(name.data(), name.size())] = observables.*member;
  }
  return result;
}

nb::list to_list(const std::vector<atheria::Observables>& universes) {
  nb::list result;
  for (const auto& observables : universes) result.append(to_dict(observables));
  return result;
}

nb::dict to_dict(const atheria::Info& info) {
  nb::dict result;
  result["backend"] = info.backend;
  result["why"] = info.why;
  result["device"] = info.device;
  result["precision"] = info.precision;
  result["threads"] = info.threads;
  result["d_state"] = info.d_state;
  result["stride"] = info.stride;
  result["has_memory"] = info.has_memory;
  result["local"] = info.receptive_radius.has_value();
  result["receptive_radius"] = info.receptive_radius;
  result["vacuum_stable"] = info.vacuum_stable;
  result["gamma"] = info.physics.gamma;
  result["epsilon"] = info.physics.epsilon;
  result["fire_rate"] = info.physics.fire_rate;
  result["harmonic"] = info.physics.harmonic.level;
  result["normalise"] = std::string(name_of(info.physics.normalise));
  result["boundary"] = std::string(name_of(info.physics.boundary));
  result["noise"] = info.noise.name;
  result["noise_level"] = info.noise.level;
  result["universe"] = info.universe.empty() ? nb::none() : nb::cast(info.universe);
  result["evaluated_cells"] = info.evaluated_cells;
  return result;
}

constexpr const char* not_arrays[] = {"kind", "step_count", "noise", "noise_level", "seed"};

nb::dict to_dict(const Engine::Snapshot& snapshot) {
  const auto parts = without_gil([&] { return snapshot.universe->parts(); });
  nb::dict result;
  result["kind"] = snapshot.universe->kind();
  result["step_count"] = parts.step_count;
  result["noise"] = snapshot.noise.name;
  result["noise_level"] = snapshot.noise.level;
  result["seed"] = snapshot.seed;
  for (const auto& [name, array] : parts.arrays) {
    result[name.c_str()] = array.scalar_type() == at::kFloat ? nb::cast(as_numpy<const float>(array))
                                                             : nb::cast(as_numpy<const std::int64_t>(array));
  }
  return result;
}

Engine::Snapshot to_snapshot(const nb::dict& state) {
  const auto get = [&]<typename Value>(const char* name, Value value) {
    if (!state.contains(name) || !nb::try_cast(state[name], value)) {
      throw std::invalid_argument(std::string("the snapshot has no `") + name + "`; it is damaged");
    }
    return value;
  };
  atheria::Parts parts{get("step_count", std::int64_t{}), {}};
  for (const auto& [name, array] : state) {
    const auto key = nb::cast<std::string>(name);
    if (std::find(std::begin(not_arrays), std::end(not_arrays), key) == std::end(not_arrays)) {
      parts.arrays.emplace_back(key, atheria::as_part(array, key));
    }
  }
  const atheria::Noise noise{get("noise", std::string()), get("noise_level", double{})};
  return Engine::Snapshot::of(get("kind", std::string()), parts, noise, get("seed", std::uint64_t{}));
}

constexpr const char* too_little_memory =
    "there is too little memory for this: a smaller `grid` or fewer `universes` need less; an unbounded "
    "universe, which has no `grid`, needs as much as its matter";

}  // namespace

NB_MODULE(_core, m) {
  nb::set_leak_warnings(false);  // an engine that is alive at exit, as in a notebook, is no fault
  m.doc() = "Atheria's native engine. Use it through the package `atheria_core`.";

  nb::register_exception_translator([](const std::exception_ptr& thrown, void*) {
    try {
      std::rethrow_exception(thrown);
    } catch (const c10::Error& error) {
      const std::string_view what = error.what_without_backtrace();
      if (what.find("can't allocate memory") != what.npos || what.find("out of memory") != what.npos) {
        PyErr_SetString(PyExc_MemoryError, too_little_memory);
      } else {
        PyErr_SetString(PyExc_RuntimeError, error.what_without_backtrace());
      }
    } catch (const std::bad_alloc&) {
      PyErr_SetString(PyExc_MemoryError, too_little_memory);
    }
  });

  m.def(
      "words",
      [](std::uint64_t seed, std::int64_t universes, std::int64_t height, std::int64_t width,
         std::int64_t first_universe, std::int64_t step, std::int64_t first_word, std::int64_t count) {
        return as_numpy<std::int64_t>(without_gil([&] {
          return atheria::words(seed, {universes, height, width, first_universe}, step, first_word, count);
        }));
      },
      "seed"_a, "universes"_a, "height"_a, "width"_a, "first_universe"_a, "step"_a, "first_word"_a, "count"_a,
      "Words of every cell at one step, as `atheria.philox.words`: (count, B, H, W).");

  m.def(
      "unitary_noise",
      [](const FieldArray& psi, bool inverse, const std::string& name, double level, std::uint64_t seed,
         std::int64_t step, std::int64_t first_universe) {
        const auto field = as_tensor(psi);
        return as_numpy<float>(without_gil(
            [&] { return atheria::Noise{name, level}.apply(field, seed, step, first_universe, inverse); }));
      },
      "psi"_a, "inverse"_a, "name"_a, "level"_a, "seed"_a, "step"_a, "first_universe"_a,
      "A channel that acts by unitaries, or its inverse at the same random numbers: (B, 2d, H, W).");

  nb::class_<Engine::Snapshot>(m, "Snapshot",
                               "A whole universe, kept by Engine.snapshot(); it can be pickled, and see "
                               "`atheria_core.save_snapshot`.")
      .def(
          "__getstate__", [](const Engine::Snapshot& snapshot) { return to_dict(snapshot); },
          nb::sig("def __getstate__(self) -> dict[str, typing.Any]"))
      .def(
          "__setstate__",
          [](Engine::Snapshot& snapshot, const nb::dict& state) {
            new (&snapshot) Engine::Snapshot(to_snapshot(state));
          },
          nb::sig("def __setstate__(self, state: dict[str, typing.Any]) -> None"));

  nb::class_<BoundEngine>(m, "Engine")
      .def(nb::init<std::optional<std::int64_t>, const std::string&, int, const std::string&,
                    const std::string&, const nb::object&>(),
           "d_state"_a = nb::none(), "device"_a = "cpu", "threads"_a = 0, "precision"_a = "fp32",
           "backend"_a = "fastest", "recorder"_a = nb::none(),
           nb::sig("def __init__(self, d_state: int | None = None, device: str = 'cpu', threads: int = 0, "
                   "precision: str = 'fp32', backend: str = 'fastest', recorder: "
                   "collections.abc.Callable[[collections.abc.Callable[[], None]], "
                   "tuple[collections.abc.Callable[[], None], str]] | None = None) -> None"))
      .def(
          "_load_model",
          [](BoundEngine& self, const std::string& path, std::optional<std::int64_t> d_state,
             std::optional<std::int64_t> receptive_radius, const Sides& training_grid, double gamma,
             double epsilon, double fire_rate, const std::string& normalise, const std::string& boundary,
             double harmonic) {
            const atheria::Physics physics{gamma,
                                           epsilon,
                                           fire_rate,
                                           atheria::parse_normalise(normalise),
                                           atheria::parse_boundary(boundary),
                                           {harmonic}};
            const Engine::Description description{d_state, receptive_radius, size_of(training_grid)};
            self.without_gil([&](Engine& engine) { engine.load_model(path, description, physics); });
          },
          "path"_a, nb::kw_only(), "d_state"_a.none(), "receptive_radius"_a.none(), "training_grid"_a.none(),
          "gamma"_a, "epsilon"_a, "fire_rate"_a, "normalise"_a, "boundary"_a, "harmonic"_a)
      .def(
          "set_state",
          [](BoundEngine& self, nb::object state) {
            const auto psi = as_field(state);
            self.without_gil([&](Engine& engine) { engine.set_state(psi); });
          },
          "state"_a, nb::sig("def set_state(self, state: object) -> None"), docstrings::set_state)
      .def(
          "state",
          [](BoundEngine& self, bool before_noise) {
            return as_numpy<float>(self.without_gil([&](Engine& engine) {
              return engine.universe().psi(before_noise).to(at::kCPU, false, /*copy=*/true);
            }));
          },
          "before_noise"_a = false, docstrings::state)
      .def(
          "reset",
          [](BoundEngine& self, const std::string& kind, std::uint64_t seed, const Sides& grid,
             std::int64_t universes, double density, std::int64_t count, double width, const Sides& extent) {
            const atheria::InitialState initial{kind, density, count, width};
            self.without_gil([&](Engine& engine) {
              engine.reset(initial, seed, size_of(grid), universes, size_of(extent));
            });
          },
          "kind"_a, "seed"_a, "grid"_a = nb::none(), "universes"_a = 1, nb::kw_only(), "density"_a = 0.5,
          "count"_a = 16, "width"_a = 4.0, "extent"_a = nb::none(), docstrings::reset)
      .def(
          "set_cells",
          [](BoundEngine& self, nb::object coordinates, nb::object amplitudes, std::int64_t universe) {
            const auto places = atheria::as_coordinates(coordinates);
            const auto psi = atheria::as_amplitudes(amplitudes, places.size(0));
            self.without_gil([&](Engine& engine) { engine.set_cells(places, psi, universe); });
          },
          "coordinates"_a, "amplitudes"_a, "universe"_a = 0,
          nb::sig("def set_cells(self, coordinates: object, amplitudes: object, universe: int = 0) -> None"),
          docstrings::set_cells)
      .def(
          "set_noise",
          [](BoundEngine& self, const std::string& name, double level) {
            self.without_gil([&](Engine& engine) { engine.set_noise({name, level}); });
          },
          "name"_a, "level"_a = 0.0, docstrings::set_noise)
      .def(
          "add_particle",
          [](BoundEngine& self, std::int64_t x, std::int64_t y,
             const std::vector<std::complex<float>>& amplitudes, std::int64_t universe) {
            const auto place = at::tensor({x, y}, at::kLong).unsqueeze(0);
            const auto psi = atheria::as_numbers(amplitudes);
            self.without_gil([&](Engine& engine) { engine.add_particles(place, psi, universe); });
          },
          "x"_a, "y"_a, "amplitudes"_a, "universe"_a = 0, docstrings::add_particle)
      .def(
          "add_particles",
          [](BoundEngine& self, nb::object coordinates, nb::object amplitudes, std::int64_t universe) {
            const auto places = atheria::as_coordinates(coordinates);
            const auto psi = atheria::as_amplitudes(amplitudes, places.size(0));
            self.without_gil([&](Engine& engine) { engine.add_particles(places, psi, universe); });
          },
          "coordinates"_a, "amplitudes"_a, "universe"_a = 0,
          nb::sig("def add_particles(self, coordinates: object, amplitudes: object, universe: int = 0) -> "
                  "None"),
          docstrings::add_particles)
      .def(
          "state_at",
          [](BoundEngine& self, std::int64_t x, std::int64_t y, std::int64_t universe) {
            const auto cell =
                self.without_gil([&](Engine& engine) { return engine.window({x, y, 1, 1}, universe); });
            return as_numpy<std::complex<float>>(amplitudes(cell.flatten()));
          },
          "x"_a, "y"_a, "universe"_a = 0, docstrings::state_at)
      .def(
          "cells",
          [](BoundEngine& self, std::int64_t universe, bool before_noise) {
            const auto [coordinates, field] =
                self.without_gil([&](Engine& engine) { return engine.cells(universe, before_noise); });
            return nb::make_tuple(as_numpy<std::int64_t>(coordinates),
                                  as_numpy<std::complex<float>>(amplitudes(field)));
          },
          "universe"_a = 0, "before_noise"_a = false,
          nb::sig("def cells(self, universe: int = 0, before_noise: bool = False) -> "
                  "tuple[NDArray[numpy.int64], NDArray[numpy.complex64]]"),
          docstrings::cells)
      .def(
          "window",
          [](BoundEngine& self, std::int64_t x, std::int64_t y, std::int64_t width, std::int64_t height,
             std::int64_t universe) {
            return as_numpy<float>(self.without_gil(
                [&](Engine& engine) { return engine.window({x, y, width, height}, universe); }));
          },
          "x"_a, "y"_a, "width"_a, "height"_a, "universe"_a = 0, docstrings::window)
      .def(
          "step_native",
          [](BoundEngine& self, std::int64_t steps) {
            return self.without_gil([&](Engine& engine) { return engine.step(steps, InterruptCheck()); });
          },
          "steps"_a = 1, docstrings::step_native)
      .def(
          "rollout",
          [](BoundEngine& self, std::int64_t steps, std::int64_t observe_every,
             const std::vector<std::string>& stop) {
            atheria::Stop conditions;
            for (const auto& name : stop) {
              add_condition(conditions, name);
            }
            const auto observations = self.without_gil([&](Engine& engine) {
              return engine.rollout(steps, observe_every, conditions, InterruptCheck());
            });
            nb::list result;
            for (const auto& [step, universes] : observations) {
              nb::dict entry;
              entry["step"] = step;
              entry["universes"] = to_list(universes);
              result.append(entry);
            }
            return result;
          },
          "steps"_a, "observe_every"_a, "stop"_a = std::vector<std::string>{},
          nb::sig("def rollout(self, steps: int, observe_every: int, stop: Sequence[str] = ()) -> "
                  "list[dict[str, typing.Any]]"),
          docstrings::rollout)
      .def(
          "profile",
          [](BoundEngine& self, std::int64_t steps) {
            const auto parts =
                self.without_gil([&](Engine& engine) { return engine.profile(steps, InterruptCheck()); });
            nb::list result;
            for (const auto& [what, seconds, operations] : parts) {
              nb::dict entry;
              entry["what"] = what;
              entry["seconds"] = seconds;
              entry["operations"] = operations;
              result.append(entry);
            }
            return result;
          },
          "steps"_a = 100, nb::sig("def profile(self, steps: int = 100) -> list[dict[str, typing.Any]]"),
          docstrings::profile)
      .def(
          "observables",
          [](BoundEngine& self) {
            return to_list(self.without_gil([](Engine& engine) { return engine.observables(); }));
          },
          nb::sig("def observables(self) -> list[dict[str, float]]"), docstrings::observables)
      .def(
          "snapshot",
          [](BoundEngine& self) {
            return self.without_gil([](Engine& engine) { return engine.snapshot(); });
          },
          docstrings::snapshot)
      .def(
          "restore",
          [](BoundEngine& self, const Engine::Snapshot& snapshot) {
            self.without_gil([&](Engine& engine) { engine.restore(snapshot); });
          },
          "snapshot"_a, docstrings::restore)
      .def_prop_ro(
          "step_count",
          [](BoundEngine& self) {
            return self.without_gil(
                [](Engine& engine) { return engine.has_state() ? engine.universe().step_count() : 0; });
          },
          "Steps since the universe was started.")
      .def_prop_rw(
          "seed",
          [](BoundEngine& self) { return self.without_gil([](Engine& engine) { return engine.seed(); }); },
          [](BoundEngine& self, std::uint64_t seed) {
            self.without_gil([&](Engine& engine) { engine.set_seed(seed); });
          },
          "Key of the random numbers: update mask and noise.")
      .def_prop_ro(
          "has_state",
          [](BoundEngine& self) {
            return self.without_gil([](Engine& engine) { return engine.has_state(); });
          },
          "Whether a universe has been started.")
      .def(
          "_info",
          [](BoundEngine& self) {
            return to_dict(self.without_gil([](Engine& engine) { return engine.info(); }));
          },
          nb::sig("def _info(self) -> dict[str, typing.Any]"));
}
