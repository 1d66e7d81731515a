// Convolution as matrix products: what is under the windows as rows of a matrix, and back.
//
// Launch: one thread for each WIDTH neighbouring channels, in blocks of 256 and a grid of as many as it takes.
// Neighbouring threads have neighbouring channels, so reads and writes of a warp lie side by side.

// columns[row, group, tap, c] = x under `tap` of window first + row, 0 on padding; rows in row-major order (N, *out).
extern "C" __global__ void to_columns(const T *x, T *columns, long long first, long long rows, int groups,
                                      const Window w) {
  Index packs = w.channels / groups / WIDTH, taps = w.kernel[0] * w.kernel[1] * w.kernel[2];
  FOR_EACH(i, rows * groups * taps * packs) {
    Index pack = i % packs, t = i / packs % taps, group = i / (packs * taps) % groups, row = i / (packs * taps * groups);
    int out[3], tap[3], cell[3];
    Index image = unravel(first + row, w.out, out);
    unravel(t, w.kernel, tap);
    Pack value;
    for (int k = 0; k < WIDTH; k++) value.v[k] = narrow(0);
    if (cell_of(w, out, tap, cell))
      value = load(x + ravel(image, w.size, cell) * w.channels + (group * packs + pack) * WIDTH);
    store(columns + i * WIDTH, value);
  }
}

// dx[n, cell, c] = the sum of what every window that holds the cell has for it + bias[c] + residual[n, cell, c];
// columns are of whole images.
extern "C" __global__ void from_columns(const A *columns, const T *bias, const T *residual, T *dx, int groups,
                                        const Window w) {
  Index channels = w.channels, each = channels / groups, taps = w.kernel[0] * w.kernel[1] * w.kernel[2];
  Index cells = (Index)w.size[0] * w.size[1] * w.size[2];
  FOR_EACH(i, w.images * cells * channels) {
    Index c = i % channels, group = c / each;
    int cell[3];
    Index image = unravel(i / channels, w.size, cell);
    Sum sum;
    FOR_EACH_WINDOW(w, cell, out, t) {
      Index row = ravel(image, w.out, out);
      sum.add(columns[((row * groups + group) * taps + t) * each + c % each]);
    }
    A value = sum.value();
    if (bias) value += wide(bias[c]);
    if (residual) value += wide(residual[i]);
    dx[i] = narrow(value);
  }
}

// total[i] = (more ? total[i] : 0) + the sum over b of parts[b, i]: the blocks of a long sum, in order.
extern "C" __global__ void add_parts(const A *parts, A *total, long long count, long long n, bool more) {
  FOR_EACH(i, n) {
    Sum sum;
    for (Index b = 0; b < count; b++) sum.add(parts[b * n + i]);
    total[i] = more ? total[i] + sum.value() : sum.value();
  }
}
