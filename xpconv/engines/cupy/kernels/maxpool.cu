// Max pooling. Gradients are gathered: each cell of the input looks at the windows that hold it, so that nothing is
// added by two threads and the order of every sum is fixed.
//
// Launch: one thread for each WIDTH neighbouring channels of an output (forward) or an input cell (backward), in
// blocks of 256. `Rank` holds the number of the winning kernel cell: a byte where all numbers fit into one.

// The flat place in its plane of a kernel cell of the window at `out`.
__device__ __forceinline__ long long place_of(const Window &w, const int *out, int t) {
  int tap[3], cell[3];
  unravel((Index)t, w.kernels, tap);
  for (int a = 0; a < 3; a++) cell_along(w, a, out[a], tap[a], cell[a]);
  return ((long long)cell[0] * w.size[1] + cell[1]) * w.size[2] + cell[2];
}

// y = the largest real cell, nan if one is; ranks and flat places in the plane of the first such cell, where wanted.
template <class Rank>
__device__ void largest(const T *x, T *y, Rank *ranks, long long *places, long long items, const Window &w) {
  FOR_EACH(i, items) {
    Index pack;
    int out[3];
    Index image = unravel(split(i, w.packs, pack), w.outs, out);
    Values best;
    PackOf<int> rank;
    bool found = false;
    each_cell(
        w, image, out, [&](Index row) { return load_early(x + (row * (Index)w.packs.by + pack) * WIDTH); },
        [&](const Pack &value, int t) {
          for (int k = 0; k < WIDTH; k++) {
            A v = wide(value.v[k]);
            bool more = !found || v > best.v[k] || (v != v && best.v[k] == best.v[k]);
            best.v[k] = more ? v : best.v[k];
            rank.v[k] = more ? t : rank.v[k];
          }
          found = true;
        });
    store(y + i * WIDTH, narrowed(best));
    if (ranks) {
      PackOf<Rank> kept;
      for (int k = 0; k < WIDTH; k++) kept.v[k] = (Rank)rank.v[k];
      store(ranks + i * WIDTH, kept);
    }
    if (places)
      for (int k = 0; k < WIDTH; k++) places[i * WIDTH + k] = place_of(w, out, rank.v[k]);
  }
}

extern "C" __global__ void largest_by_byte(const T *x, T *y, unsigned char *ranks, long long *places, long long items,
                                           const Window w) {
  largest(x, y, ranks, places, items, w);
}
extern "C" __global__ void largest_by_int(const T *x, T *y, int *ranks, long long *places, long long items,
                                          const Window w) {
  largest(x, y, ranks, places, items, w);
}

template <class Rank> struct Candidate { PackOf<Rank> rank; Waiting<T> back; };

// dx = the sum of dy over the windows that the cell has won.
template <class Rank>
__device__ void back_to_winners(const Rank *ranks, const T *dy, T *dx, long long items, const Window &w) {
  FOR_EACH(i, items) {
    Index pack;
    int cell[3];
    Index image = unravel(split(i, w.packs, pack), w.sizes, cell);
    Sums sums;
    each_window(
        w, image, cell,
        [&](Index row, int) {
          Index at = (row * (Index)w.packs.by + pack) * WIDTH;
          return Candidate<Rank>{load(ranks + at), load_early(dy + at)};
        },
        [&](const Candidate<Rank> &one, int t, const int *) {
          Values back = widened(one.back);
          for (int k = 0; k < WIDTH; k++)
            if (one.rank.v[k] == (Rank)t) sums.block.v[k] += back.v[k];
          sums.counted();
        });
    store(dx + i * WIDTH, narrowed(sums.values()));
  }
}

extern "C" __global__ void back_by_byte(const unsigned char *ranks, const T *dy, T *dx, long long items,
                                        const Window w) {
  back_to_winners(ranks, dy, dx, items, w);
}
extern "C" __global__ void back_by_int(const int *ranks, const T *dy, T *dx, long long items, const Window w) {
  back_to_winners(ranks, dy, dx, items, w);
}

struct Equal { Waiting<T> best, back; };

// The same where every maximum of a window has won: each cell that equals it, or is nan where it is.
extern "C" __global__ void back_to_all(const T *x, const T *y, const T *dy, T *dx, long long items, const Window w) {
  FOR_EACH(i, items) {
    Index pack;
    int cell[3];
    Index image = unravel(split(i, w.packs, pack), w.sizes, cell);
    Values value = widened(load(x + i * WIDTH));
    Sums sums;
    each_window(
        w, image, cell,
        [&](Index row, int) {
          Index at = (row * (Index)w.packs.by + pack) * WIDTH;
          return Equal{load_early(y + at), load_early(dy + at)};
        },
        [&](const Equal &one, int, const int *) {
          Values best = widened(one.best), back = widened(one.back);
          for (int k = 0; k < WIDTH; k++)
            if (value.v[k] == best.v[k] || value.v[k] != value.v[k]) sums.block.v[k] += back.v[k];
          sums.counted();
        });
    store(dx + i * WIDTH, narrowed(sums.values()));
  }
}
