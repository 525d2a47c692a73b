// What Python's users read of the engine's methods, in Google's style.
#pragma once

namespace atheria::docstrings {

inline constexpr const char* set_state = R"(Starts universes on a grid, at step 0, from a field.

The grid and the number of universes become the field's.

Args:
    state: float32, C-contiguous, (B, 2*d_state, H, W): real parts of all components, then imaginary ones;
        a NumPy array or a tensor on the CPU. H and W must be multiples of the law's stride.

Raises:
    TypeError: It is no such array.
    ValueError: It does not suit the law, or is not finite.
    RuntimeError: No law has been loaded.)";

inline constexpr const char* state = R"(A copy of the field on a grid.

Args:
    before_noise: Whether to return what is measured: the field before the noise of the last step.

Returns:
    float32, (B, 2*d_state, H, W).

Raises:
    RuntimeError: There is no universe, or it is unbounded.)";

inline constexpr const char* reset = R"(Starts universes at step 0 from an initial state that is drawn.

Args:
    kind: soup (each cell is occupied with probability `density`), random (each cell is), particles (`count`
        single cells), gaussian (one state under a bell of standard deviation `width` cells) or zeros.
    seed: Key of the random numbers, of these and of the steps: 0 to 2^64 - 1.
    grid: (height, width), each 1 to 65536 and a multiple of the law's stride; None for unbounded universes.
    universes: How many, 1 to 2^24.
    density: 0 to 1.
    count: At least 1, at most the cells of the grid.
    width: Above 0.
    extent: (height, width) of the grid on which unbounded universes are drawn, its first cell at (0, 0); None
        for the law's training grid, or else (64, 64).

Raises:
    ValueError: An argument is out of its range, or the law cannot run there.
    MemoryError: The field does not fit.)";

inline constexpr const char* set_cells = R"(Starts an unbounded universe at step 0 from cells.

The other unbounded universes of the engine keep their cells, and start anew, too.

Args:
    coordinates: int64, (n, 2), as (x, y): each cell once, within 2^62 of the origin.
    amplitudes: complex64, (n, d_state), finite.
    universe: Which of the universes that `reset` has made; 0 where there is none yet.

Raises:
    TypeError: Those are no such arrays.
    ValueError: A cell is there twice, or the law cannot run unbounded.)";

inline constexpr const char* set_noise = R"(Applies a channel of noise after every step.

Args:
    name: One of the noise channels of `atheria.noise`, as phase_flip; none ends it.
    level: Its rate, 0 to 1.

Raises:
    ValueError: There is no such channel, or the level is out of its range.)";

inline constexpr const char* add_particle = R"(Puts amplitudes into one cell, in place of what it held.

Args:
    x: Column; on the grid where there is one.
    y: Row.
    amplitudes: d_state complex numbers, finite.
    universe: Which one.

Raises:
    ValueError: The cell is not on the grid, or the amplitudes are others.)";

inline constexpr const char* add_particles = R"(Puts amplitudes into cells, in place of what they held.

Args:
    coordinates: int64, (n, 2), as (x, y), on the grid where there is one; of a cell that is there twice, the
        last counts.
    amplitudes: complex64, (n, d_state), finite.
    universe: Which one.

Raises:
    TypeError: Those are no such arrays.
    ValueError: A cell is not on the grid, or the amplitudes are others.)";

inline constexpr const char* state_at = R"(The amplitudes of one cell.

Args:
    x: Column: wraps around a torus, vacuum outside another grid.
    y: Row.
    universe: Which one.

Returns:
    complex64, (d_state,).)";

inline constexpr const char* cells = R"(The occupied cells, row by row.

Args:
    universe: Which one.
    before_noise: As of `state`.

Returns:
    Coordinates, int64 (n, 2), as (x, y); and amplitudes, complex64 (n, d_state).)";

inline constexpr const char* window = R"(The field of the cells from (x, y) on.

Args:
    x: Column, within 2^62 of the origin: wraps around a torus, vacuum outside another grid.
    y: Row.
    width: Cells across, 1 to 65536.
    height: Cells down, 1 to 65536.
    universe: Which one.

Returns:
    float32, (2*d_state, height, width).)";

inline constexpr const char* step_native =
    R"(Steps, in C++ and without the GIL; Ctrl-C ends it between two steps.

Args:
    steps: How many, at least 0.

Returns:
    The number of occupied cells of all universes.

Raises:
    OverflowError: The field stops being finite; the one before is kept.
    RuntimeError: There is no law or no universe.)";

inline constexpr const char* rollout = R"(Steps, and observes at the start, now and then, and at the end.

Args:
    steps: How many at most, at least 0.
    observe_every: Steps from one observation to the next, at least 1.
    stop: What ends it early: extinction (no cell is occupied), fixed_point (a step has changed nothing) and
        blow_up (which keeps the last finite field in place of raising OverflowError).

Returns:
    Of each observation: step, and universes, a list of `observables`.

Raises:
    OverflowError: The field stops being finite, and `stop` has no blow_up.
    ValueError: An argument is out of its range.)";

inline constexpr const char* profile =
    R"(Steps, and says where the time of a step goes: of a compiled law on a grid.

Args:
    steps: Over how many the time is taken, at least 1.

Returns:
    Of each part of the law in its order, of the step around the law, and of what is in none of them: what;
    seconds, of one step of the thread that steps, while the others are at their shares of the same part; and
    operations, multiplications and additions of one step, of convolutions by their definition.

Raises:
    ValueError: The law runs on libtorch, or the universe is unbounded.)";

inline constexpr const char* observables = R"(The observables of each universe, before noise.

Returns:
    Of each universe by name: energy; occupancy, a share of the grid, or the number of occupied cells where it
    is unbounded; position_entropy; ipr; centre_x, centre_y and radius_of_gyration, in cells, circular means on
    a torus.)";

inline constexpr const char* snapshot =
    R"(A copy of the universe: field, memory, step count, noise and seed. See `atheria_core.save_snapshot`.)";

inline constexpr const char* restore = R"(Brings a universe back, bit for bit.

Args:
    snapshot: Of an engine whose law has the same `d_state`, stride and memory.

Raises:
    ValueError: It does not suit this engine's law.)";

}  // namespace atheria::docstrings
