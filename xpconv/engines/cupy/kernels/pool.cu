// Average and Lp pooling; gradients gathered as those of max pooling are.
//
// Launch: one thread for each WIDTH neighbouring channels of an output (forward) or an input cell (backward), in blocks of
// 256.

// Steps of d cells from a to b.
__device__ __forceinline__ int steps_between(int a, int b, int d) {
  int n = max(b - a, 0);
  return d == 1 ? n : (n + d - 1) / d;
}

// 1 by the divisor; by 0, by the number of cells of the window at `out` that count: from `lowest` to before `end` along
// each axis.
__device__ __forceinline__ A share_of_a_cell(const Window &w, const int *out, A divisor, bool with_padding) {
  if (divisor != 0) return 1 / divisor;
  long long count = 1;
  for (int a = 0; a < 3; a++) {
    int start = out[a] * w.stride[a] - w.before[a], d = w.dilation[a];
    int lowest = with_padding ? -w.before[a] : 0, end = w.size[a] + (with_padding ? w.after[a] : 0);
    int skipped = steps_between(start, lowest, d), reached = steps_between(start, end, d);
    count *= min(reached, w.kernel[a]) - min(skipped, w.kernel[a]);
  }
  return 1 / (A)count;
}

// divisor 0: the number of cells that count.
extern "C" __global__ void average(const T *x, T *y, long long items, double divisor, bool with_padding, const Window w) {
  FOR_EACH(i, items) {
    Index pack;
    int out[3];
    Index image = unravel(split(i, w.packs, pack), w.outs, out);
    Sums sums;
    each_cell(
        w, image, out, [&](Index row) { return load_early(x + (row * (Index)w.packs.by + pack) * WIDTH); },
        [&](const Pack &value, int) { sums.add(widened(value)); });
    A share = share_of_a_cell(w, out, (A)divisor, with_padding);
    Values value = sums.values();
    for (int k = 0; k < WIDTH; k++) value.v[k] *= share;
    store(y + i * WIDTH, narrowed(value));
  }
}

extern "C" __global__ void average_back(const T *dy, T *dx, long long items, double divisor, bool with_padding,
                                        const Window w) {
  FOR_EACH(i, items) {
    Index pack;
    int cell[3];
    Index image = unravel(split(i, w.packs, pack), w.sizes, cell);
    Sums sums;
    each_window(
        w, image, cell, [&](Index row, int) { return load_early(dy + (row * (Index)w.packs.by + pack) * WIDTH); },
        [&](const Pack &back, int, const int *out) {
          Values value = widened(back);
          A share = share_of_a_cell(w, out, (A)divisor, with_padding);
          for (int k = 0; k < WIDTH; k++) value.v[k] *= share;
          sums.add(value);
        });
    store(dx + i * WIDTH, narrowed(sums.values()));
  }
}

__device__ __forceinline__ A power(A x, A p) { return p == 1 ? x : p == 2 ? x * x : pow(x, p); }

// y = (Σ |x|^p)^(1/p), the magnitudes taken by their largest so that no power overflows; `kept` is y unrounded.
extern "C" __global__ void lp_norm(const T *x, T *y, A *kept, long long items, double exponent, const Window w) {
  A p = (A)exponent;
  FOR_EACH(i, items) {
    Index pack;
    int out[3];
    Index image = unravel(split(i, w.packs, pack), w.outs, out);
    Values scale = filled(0);
    auto get = [&](Index row) { return load_early(x + (row * (Index)w.packs.by + pack) * WIDTH); };
    each_cell(w, image, out, get, [&](const Pack &value, int) {
      for (int k = 0; k < WIDTH; k++) scale.v[k] = larger(scale.v[k], fabs(wide(value.v[k])));
    });
    for (int k = 0; k < WIDTH; k++)
      if (scale.v[k] == 0) scale.v[k] = 1;
    Sums sums;
    each_cell(w, image, out, get, [&](const Pack &value, int) {
      for (int k = 0; k < WIDTH; k++) sums.block.v[k] += power(fabs(wide(value.v[k])) / scale.v[k], p);
      sums.counted();
    });
    Values result = sums.values();
    for (int k = 0; k < WIDTH; k++)
      result.v[k] = scale.v[k] * (p == 2 ? sqrt(result.v[k]) : pow(result.v[k], 1 / p));
    store(y + i * WIDTH, narrowed(result));
    if (kept) store(kept + i * WIDTH, result);
  }
}

struct Reached { Values y; Waiting<T> back; };

// dx = Σ dy sign(x) (|x| / y)^(p - 1), 0 where x or y is.
extern "C" __global__ void lp_norm_back(const T *x, const A *kept, const T *dy, T *dx, long long items, double exponent,
                                        const Window w) {
  A p = (A)exponent;
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
          return Reached{load(kept + at), load_early(dy + at)};
        },
        [&](const Reached &one, int, const int *) {
          Values back = widened(one.back);
          for (int k = 0; k < WIDTH; k++) {
            A y = one.y.v[k], ratio = y == 0 ? (A)0 : power(fabs(value.v[k]) / y, p - 1);
            sums.block.v[k] += back.v[k] * (p == 1 ? (A)1 : ratio);
          }
          sums.counted();
        });
    Values result = sums.values();
    for (int k = 0; k < WIDTH; k++) {
      A v = value.v[k];
      result.v[k] = v == 0 ? (A)0 : v < 0 ? -result.v[k] : v > 0 ? result.v[k] : v;
    }
    store(dx + i * WIDTH, narrowed(result));
  }
}
