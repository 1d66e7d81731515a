// Average and Lp pooling; gradients gathered as those of max pooling are.
//
// Launch: averages, one thread for each WIDTH neighbouring channels of an output (forward) or an input cell (backward);
// Lp pooling, for each channel; in blocks of 256.

// Cells of the window at `out` that count: from `lowest` to before `end` along each axis.
__device__ __forceinline__ A counted(const Window &w, const int *out, bool with_padding) {
  long long count = 1;
  for (int a = 0; a < 3; a++) {
    int start = out[a] * w.stride[a] - w.before[a], d = w.dilation[a];
    int lowest = with_padding ? -w.before[a] : 0, end = w.size[a] + (with_padding ? w.after[a] : 0);
    int skipped = lowest > start ? (lowest - start + d - 1) / d : 0, reached = end > start ? (end - start + d - 1) / d : 0;
    count *= min(reached, w.kernel[a]) - min(skipped, w.kernel[a]);
  }
  return (A)count;
}

// divisor 0: the number of cells that count.
extern "C" __global__ void average(const T *x, T *y, double divisor, bool with_padding, const Window w) {
  Index packs = w.channels / WIDTH, outs = (Index)w.out[0] * w.out[1] * w.out[2];
  FOR_EACH(i, w.images * outs * packs) {
    Index c = i % packs * WIDTH;
    int out[3];
    Index image = unravel(i / packs, w.out, out);
    Sum sum[WIDTH];
    FOR_EACH_TAP(w, out, t, tap, cell) {
      Pack value = load(x + ravel(image, w.size, cell) * w.channels + c);
      for (int k = 0; k < WIDTH; k++) sum[k].add(wide(value.v[k]));
    }
    A by = divisor ? (A)divisor : counted(w, out, with_padding);
    Pack result;
    for (int k = 0; k < WIDTH; k++) result.v[k] = narrow(sum[k].value() / by);
    store(y + i * WIDTH, result);
  }
}

extern "C" __global__ void average_back(const T *dy, T *dx, double divisor, bool with_padding, const Window w) {
  Index packs = w.channels / WIDTH, cells = (Index)w.size[0] * w.size[1] * w.size[2];
  FOR_EACH(i, w.images * cells * packs) {
    Index c = i % packs * WIDTH;
    int cell[3];
    Index image = unravel(i / packs, w.size, cell);
    Sum sum[WIDTH];
    FOR_EACH_WINDOW(w, cell, out, t) {
      Pack back = load(dy + ravel(image, w.out, out) * w.channels + c);
      A by = divisor ? (A)divisor : counted(w, out, with_padding);
      for (int k = 0; k < WIDTH; k++) sum[k].add(wide(back.v[k]) / by);
    }
    Pack result;
    for (int k = 0; k < WIDTH; k++) result.v[k] = narrow(sum[k].value());
    store(dx + i * WIDTH, result);
  }
}

__device__ __forceinline__ A power(A x, A p) { return p == 1 ? x : p == 2 ? x * x : pow(x, p); }

// y = (Σ |x|^p)^(1/p), the magnitudes taken by their largest so that no power overflows; `kept` is y unrounded.
extern "C" __global__ void lp_norm(const T *x, T *y, A *kept, double exponent, const Window w) {
  Index outs = (Index)w.out[0] * w.out[1] * w.out[2];
  A p = (A)exponent;
  FOR_EACH(i, w.images * outs * w.channels) {
    Index c = i % w.channels;
    int out[3];
    Index image = unravel(i / w.channels, w.out, out);
    A scale = 0;
    FOR_EACH_TAP(w, out, t, tap, cell) scale = larger(scale, fabs(wide(x[ravel(image, w.size, cell) * w.channels + c])));
    if (scale == 0) scale = 1;
    Sum sum;
    FOR_EACH_TAP(w, out, t, tap, cell)
      sum.add(power(fabs(wide(x[ravel(image, w.size, cell) * w.channels + c])) / scale, p));
    A result = scale * (p == 2 ? sqrt(sum.value()) : pow(sum.value(), 1 / p));
    y[i] = narrow(result);
    if (kept) kept[i] = result;
  }
}

// dx = Σ dy sign(x) (|x| / y)^(p - 1), 0 where x or y is.
extern "C" __global__ void lp_norm_back(const T *x, const A *kept, const T *dy, T *dx, double exponent, const Window w) {
  Index cells = (Index)w.size[0] * w.size[1] * w.size[2];
  A p = (A)exponent;
  FOR_EACH(i, w.images * cells * w.channels) {
    Index c = i % w.channels;
    int cell[3];
    Index image = unravel(i / w.channels, w.size, cell);
    A value = wide(x[i]), size = fabs(value);
    Sum sum;
    if (value != 0)
      FOR_EACH_WINDOW(w, cell, out, t) {
        Index at = ravel(image, w.out, out) * w.channels + c;
        A y = kept[at], ratio = y == 0 ? (A)0 : power(size / y, p - 1);
        sum.add(wide(dy[at]) * (p == 1 ? (A)1 : ratio));
      }
    dx[i] = narrow(value < 0 ? -sum.value() : sum.value());
  }
}
