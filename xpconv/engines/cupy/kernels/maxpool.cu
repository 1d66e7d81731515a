// Max pooling. Gradients are gathered: each cell of the input looks at the windows that hold it, so that nothing is
// added by two threads and the order of every sum is fixed.
//
// Launch: one thread for each WIDTH neighbouring channels of an output (forward) or an input cell (backward), in
// blocks of 256. `Rank` holds the number of the winning kernel cell: a byte where all numbers fit into one.

// y = the largest real cell, nan if one is; ranks and flat places in the plane of the first such cell, where wanted.
template <class Rank>
__device__ void largest(const T *x, T *y, Rank *ranks, long long *places, const Window &w) {
  Index packs = w.channels / WIDTH, outs = (Index)w.out[0] * w.out[1] * w.out[2];
  FOR_EACH(i, w.images * outs * packs) {
    Index c = i % packs * WIDTH;
    int out[3];
    Index image = unravel(i / packs, w.out, out);
    A best[WIDTH];
    PackOf<Rank> rank;
    PackOf<long long> place;
    bool found = false;
    FOR_EACH_TAP(w, out, t, tap, cell) {
      Pack value = load(x + ravel(image, w.size, cell) * w.channels + c);
      for (int k = 0; k < WIDTH; k++) {
        A v = wide(value.v[k]);
        if (!found || v > best[k] || (v != v && best[k] == best[k])) {
          best[k] = v;
          rank.v[k] = (Rank)t;
          place.v[k] = ((long long)cell[0] * w.size[1] + cell[1]) * w.size[2] + cell[2];
        }
      }
      found = true;
    }
    Pack result;
    for (int k = 0; k < WIDTH; k++) result.v[k] = narrow(best[k]);
    store(y + i * WIDTH, result);
    if (ranks) store(ranks + i * WIDTH, rank);
    if (places) store(places + i * WIDTH, place);
  }
}

extern "C" __global__ void largest_by_byte(const T *x, T *y, unsigned char *ranks, long long *places, const Window w) {
  largest(x, y, ranks, places, w);
}
extern "C" __global__ void largest_by_int(const T *x, T *y, int *ranks, long long *places, const Window w) {
  largest(x, y, ranks, places, w);
}

// dx = the sum of dy over the windows that the cell has won.
template <class Rank>
__device__ void back_to_winners(const Rank *ranks, const T *dy, T *dx, const Window &w) {
  Index packs = w.channels / WIDTH, cells = (Index)w.size[0] * w.size[1] * w.size[2];
  FOR_EACH(i, w.images * cells * packs) {
    Index c = i % packs * WIDTH;
    int cell[3];
    Index image = unravel(i / packs, w.size, cell);
    Sum sum[WIDTH];
    FOR_EACH_WINDOW(w, cell, out, t) {
      Index at = ravel(image, w.out, out) * w.channels + c;
      PackOf<Rank> rank = load(ranks + at);
      Pack back = load(dy + at);
      for (int k = 0; k < WIDTH; k++)
        if (rank.v[k] == (Rank)t) sum[k].add(wide(back.v[k]));
    }
    Pack result;
    for (int k = 0; k < WIDTH; k++) result.v[k] = narrow(sum[k].value());
    store(dx + i * WIDTH, result);
  }
}

extern "C" __global__ void back_by_byte(const unsigned char *ranks, const T *dy, T *dx, const Window w) {
  back_to_winners(ranks, dy, dx, w);
}
extern "C" __global__ void back_by_int(const int *ranks, const T *dy, T *dx, const Window w) {
  back_to_winners(ranks, dy, dx, w);
}

// The same where every maximum of a window has won: each cell that equals it, or is nan where it is.
extern "C" __global__ void back_to_all(const T *x, const T *y, const T *dy, T *dx, const Window w) {
  Index cells = (Index)w.size[0] * w.size[1] * w.size[2];
  FOR_EACH(i, w.images * cells * w.channels) {
    Index c = i % w.channels;
    int cell[3];
    Index image = unravel(i / w.channels, w.size, cell);
    A value = wide(x[i]);
    Sum sum;
    FOR_EACH_WINDOW(w, cell, out, t) {
      Index at = ravel(image, w.out, out) * w.channels + c;
      A best = wide(y[at]);
      if (value == best || value != value) sum.add(wide(dy[at]));
    }
    dx[i] = narrow(sum.value());
  }
}
