// Depthwise convolution, w (*kernel, 1, C · multiplier): products too narrow for a matrix, so each thread has sums.
//
// Launch: `outputs` and `inputs`, one thread for each WIDTH neighbouring channels of RUN neighbours along the last axis of
// what is written, which share the weights that are loaded, in blocks of 256; w.outs and w.sizes divide by runs there.
// `weight_slabs`, the slabs of slabs.cuh over windows, for each RUN neighbours of a row of the kernel: the grid is (tiles
// of channels · runs, slabs), so that blocks which read the same rows run at the same time. Where the multiplier is not 1,
// WIDTH is.

constexpr int RUN = 4;

// The sums of a run, in blocks of 64 terms.
struct RunOfSums {
  Values total[RUN], block[RUN];
  int terms = 0;
  __device__ __forceinline__ RunOfSums() {
    for (int u = 0; u < RUN; u++) total[u] = block[u] = filled(0);
  }
  __device__ __forceinline__ void add(int u, const Pack &one, const Values &other) {
    for (int k = 0; k < WIDTH; k++) block[u].v[k] += wide(one.v[k]) * other.v[k];
  }
  __device__ __forceinline__ void counted() {
    if (++terms < 64) return;
    for (int u = 0; u < RUN; u++) {
      for (int k = 0; k < WIDTH; k++) total[u].v[k] += block[u].v[k];
      block[u] = filled(0);
    }
    terms = 0;
  }
  __device__ __forceinline__ Values plus(int u, const Values &one, const Values &other) const {
    Values sum;
    for (int k = 0; k < WIDTH; k++) sum.v[k] = total[u].v[k] + block[u].v[k] + one.v[k] + other.v[k];
    return sum;
  }
};

// y = activation(sum + bias + residual); sums, where wanted, is what the activation was applied to.
extern "C" __global__ void outputs(const T *x, const T *weights, const T *bias, const T *residual, T *sums, T *y,
                                   long long items, int multiplier, int activation, const Window w) {
  Index channels = (Index)w.channels * multiplier;
  FOR_EACH(i, items) {
    Index pack;
    int out[3], cell[3];
    Index image = unravel(split(i, w.packs, pack), w.outs, out), o = pack * WIDTH;
    Index c = multiplier == 1 ? o : o / multiplier;
    out[2] *= RUN;
    RunOfSums sum;
    const T *weight = weights + o;
    for (int t0 = 0; t0 < w.kernel[0]; t0++)
      for (int t1 = 0; t1 < w.kernel[1]; t1++, weight += w.kernel[2] * channels) {
        if (!cell_along(w, 0, out[0], t0, cell[0]) || !cell_along(w, 1, out[1], t1, cell[1])) continue;
        const T *line = x + ((image * w.size[0] + cell[0]) * w.size[1] + cell[1]) * w.size[2] * (Index)w.channels + c;
        for (int t2 = 0; t2 < w.kernel[2]; t2++) {
          Values by = widened(load(weight + t2 * channels));
          Pack held[RUN];
          bool real[RUN];
#pragma unroll
          for (int u = 0; u < RUN; u++) {
            real[u] = cell_along(w, 2, out[2] + u, t2, cell[2]);
            if (real[u]) held[u] = load(line + cell[2] * (Index)w.channels);
          }
#pragma unroll
          for (int u = 0; u < RUN; u++)
            if (real[u]) sum.add(u, held[u], by);
          sum.counted();
        }
      }
    Values more = load_or(bias, o, 0);
    Index at = ravel(image, w.out, out) * channels + o;
#pragma unroll
    for (int u = 0; u < RUN; u++, at += channels) {
      if (out[2] + u >= w.out[2]) break;
      Values value = sum.plus(u, more, load_or(residual, at, 0));
      if (sums) store(sums + at, narrowed(value));
      store(y + at, narrowed(activate(activation, value)));
    }
  }
}

// dx = the sum over the windows that hold the cell, and over the channels that c was multiplied to, + bias + residual.
extern "C" __global__ void inputs(const T *dy, const T *weights, const T *bias, const T *residual, T *dx, long long items,
                                  int multiplier, const Window w) {
  Index channels = (Index)w.channels, wider = channels * multiplier;
  FOR_EACH(i, items) {
    Index pack;
    int cell[3], out[3];
    Index image = unravel(split(i, w.packs, pack), w.sizes, cell), c = pack * WIDTH;
    cell[2] *= RUN;
    RunOfSums sum;
    const T *weight = weights + c * multiplier;
    for (int t0 = 0; t0 < w.kernel[0]; t0++)
      for (int t1 = 0; t1 < w.kernel[1]; t1++, weight += w.kernel[2] * wider) {
        if (!window_along(w, 0, cell[0], t0, out[0]) || !window_along(w, 1, cell[1], t1, out[1])) continue;
        const T *line = dy + ((image * w.out[0] + out[0]) * w.out[1] + out[1]) * w.out[2] * wider + c * multiplier;
        for (int t2 = 0; t2 < w.kernel[2]; t2++)
          for (int m = 0; m < multiplier; m++) {
            Values by = widened(load(weight + t2 * wider + m));
            Pack held[RUN];
            bool real[RUN];
#pragma unroll
            for (int u = 0; u < RUN; u++) {
              real[u] = window_along(w, 2, cell[2] + u, t2, out[2]);
              if (real[u]) held[u] = load(line + out[2] * wider + m);
            }
#pragma unroll
            for (int u = 0; u < RUN; u++)
              if (real[u]) sum.add(u, held[u], by);
            sum.counted();
          }
      }
    Values more = load_or(bias, c, 0);
    Index at = ravel(image, w.size, cell) * channels + c;
#pragma unroll
    for (int u = 0; u < RUN; u++, at += channels)
      if (cell[2] + u < w.size[2]) store(dx + at, narrowed(sum.plus(u, more, load_or(residual, at, 0))));
  }
}

// parts[slab, cell, o] = the slab's sum of x under the kernel cell times dy; `runs` of kernel cells.
extern "C" __global__ void weight_slabs(const T *x, const T *dy, A *parts, int multiplier, int runs, long long rows,
                                        long long slab, const Window w) {
  Index channels = (Index)w.channels * multiplier, end = slab_end(slab, rows);
  Index o = ((Index)(blockIdx.x / runs) * blockDim.x + threadIdx.x) * WIDTH, c = multiplier == 1 ? o : o / multiplier;
  int run = blockIdx.x % runs, along = (w.kernel[2] + RUN - 1) / RUN, first = run % along * RUN;
  int t0 = run / along / w.kernel[1], t1 = run / along % w.kernel[1];
  Values sum[RUN];
  for (int u = 0; u < RUN; u++) sum[u] = filled(0);
  if (o < channels)
    for (Index row = slab_row(slab); row < end; row += blockDim.y) {
      int out[3], cell[3];
      Index image = unravel(row, w.outs, out);
      if (!cell_along(w, 0, out[0], t0, cell[0]) || !cell_along(w, 1, out[1], t1, cell[1])) continue;
      const T *line = x + ((image * w.size[0] + cell[0]) * w.size[1] + cell[1]) * w.size[2] * (Index)w.channels + c;
      Pack held[RUN], back = load(dy + row * channels + o);
      bool real[RUN];
#pragma unroll
      for (int u = 0; u < RUN; u++) {
        real[u] = first + u < w.kernel[2] && cell_along(w, 2, out[2], first + u, cell[2]);
        if (real[u]) held[u] = load(line + cell[2] * (Index)w.channels);
      }
      Values by = widened(back);
#pragma unroll
      for (int u = 0; u < RUN; u++)
        if (real[u])
          for (int k = 0; k < WIDTH; k++) sum[u].v[k] += wide(held[u].v[k]) * by.v[k];
    }
  int taps = w.kernel[0] * w.kernel[1] * w.kernel[2], t = (t0 * w.kernel[1] + t1) * w.kernel[2] + first;
#pragma unroll
  for (int u = 0; u < RUN; u++) {
    Values total = column_sums(sum[u]);
    if (o < channels && threadIdx.y == 0 && first + u < w.kernel[2])
      store(parts + ((Index)blockIdx.y * taps + t + u) * channels + o, total);
  }
}
