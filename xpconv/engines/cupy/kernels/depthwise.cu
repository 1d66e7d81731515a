// Depthwise convolution, w (*kernel, 1, C · multiplier): products too narrow for a matrix, so each thread has sums.
//
// Launch: `outputs` and `inputs`, one thread for each WIDTH neighbouring channels of RUN neighbours along the last axis of
// what is written, which share the weights that are loaded, in blocks of 256; w.outs and w.sizes divide by runs there.
// `weight_slabs`, the slabs of slabs.cuh over runs of windows, for each SPAN neighbours of a row of the kernel: the grid is
// (tiles of channels · spans, slabs), so that blocks which read the same rows run at the same time. Where the multiplier is
// not 1, WIDTH is.

constexpr int RUN = 4, SPAN = 3;

// The sums of a run. Those of more than 128 terms are taken in blocks, for which there is room in threads of less than
// whole vectors alone.
struct RunOfSums {
  static constexpr bool LONG = WIDTH * sizeof(T) < 16;
  Values block[RUN], total[LONG ? RUN : 1];
  int terms = 0;
  __device__ __forceinline__ RunOfSums() {
    for (int u = 0; u < RUN; u++) block[u] = total[LONG ? u : 0] = filled(0);
  }
  __device__ __forceinline__ void add(int u, const Values &one, const Values &other) {
    for (int k = 0; k < WIDTH; k++) block[u].v[k] += one.v[k] * other.v[k];
  }
  __device__ __forceinline__ void counted(int more) {
    if constexpr (LONG) {
      if ((terms += more) < 64) return;
      for (int u = 0; u < RUN; u++) {
        for (int k = 0; k < WIDTH; k++) total[u].v[k] += block[u].v[k];
        block[u] = filled(0);
      }
      terms = 0;
    }
  }
  __device__ __forceinline__ Values values(int u) const {
    Values sum = block[u];
    if constexpr (LONG)
      for (int k = 0; k < WIDTH; k++) sum.v[k] += total[u].v[k];
    return sum;
  }
};

// Sums and what is added to them, where there is any.
__device__ __forceinline__ Values with(Values sums, const T *more, Index at) {
  if (more) {
    Values others = widened(load(more + at));
    for (int k = 0; k < WIDTH; k++) sums.v[k] += others.v[k];
  }
  return sums;
}

// Adds what SPAN taps see of a line of cells where windows are neighbours, and taps too: each cell from `cell` on, which is
// at `from` and may be none of the line's, is loaded once.
__device__ __forceinline__ void slide(RunOfSums &sum, const T *from, Index channels, int cell, int size, const T *weight,
                                      Index step) {
  Values by[SPAN];
  Waiting<T> held[RUN + SPAN - 1];
#pragma unroll
  for (int j = 0; j < RUN + SPAN - 1; j++)
    if ((unsigned)(cell + j) < (unsigned)size) held[j] = load_early(from + j * channels);
#pragma unroll
  for (int t = 0; t < SPAN; t++) by[t] = widened(load(weight + t * step));
#pragma unroll
  for (int j = 0; j < RUN + SPAN - 1; j++)
    if ((unsigned)(cell + j) < (unsigned)size) {
      Values x = widened(held[j]);
#pragma unroll
      for (int t = 0; t < SPAN; t++)
        if (j >= t && j - t < RUN) sum.add(j - t, x, by[t]);
    }
  sum.counted(SPAN);
}

// y = activation(sum * scale + shift + bias + residual); sums, where wanted, is what the activation was applied to. Turned,
// the weights are read from the last to the first.
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
outputs(const T *x, const T *weights, const A *scale, const A *shift, const T *bias, const T *residual, T *sums, T *y,
        long long items, int multiplier, int activation, bool turned, const Window w) {
  Index channels = (Index)w.channels * multiplier, step = turned ? -channels : channels;
  const T *first = weights + (turned ? w.kernel[0] * w.kernel[1] * w.kernel[2] - 1 : 0) * channels;
  bool neighbours = w.stride[2] == 1 && w.dilation[2] == 1;
  bool plain = !scale && !bias && !residual && !sums && activation == NONE;  // nothing to ask for each output
  FOR_EACH(i, items) {
    Index pack;
    int out[3], cell[3];
    Index image = unravel(split(i, w.packs, pack), w.outs, out), o = pack * WIDTH;
    Index c = multiplier == 1 ? o : o / multiplier;
    out[2] *= RUN;
    RunOfSums sum;
    const T *weight = first + o;
    for (int t0 = 0; t0 < w.kernel[0]; t0++)
      for (int t1 = 0; t1 < w.kernel[1]; t1++, weight += w.kernel[2] * step) {
        if (!cell_along(w, 0, out[0], t0, cell[0]) || !cell_along(w, 1, out[1], t1, cell[1])) continue;
        const T *line = x + ((image * w.size[0] + cell[0]) * w.size[1] + cell[1]) * w.size[2] * (Index)w.channels + c;
        int t2 = 0, start = out[2] - w.before[2];
        if (neighbours)
          for (; t2 + SPAN <= w.kernel[2]; t2 += SPAN)
            slide(sum, line + (start + t2) * (Index)w.channels, (Index)w.channels, start + t2, w.size[2],
                  weight + t2 * step, step);
        for (; t2 < w.kernel[2]; t2++) {
          Values by = widened(load(weight + t2 * step));
          Waiting<T> held[RUN];
          bool real[RUN];
#pragma unroll
          for (int u = 0; u < RUN; u++) {
            real[u] = cell_along(w, 2, out[2] + u, t2, cell[2]);
            if (real[u]) held[u] = load_early(line + cell[2] * (Index)w.channels);
          }
#pragma unroll
          for (int u = 0; u < RUN; u++)
            if (real[u]) sum.add(u, widened(held[u]), by);
          sum.counted(1);
        }
      }
    Index at = ravel(image, w.out, out) * channels + o;
#pragma unroll
    for (int u = 0; u < RUN; u++, at += channels) {
      if (out[2] + u >= w.out[2]) break;
      Values value = sum.values(u);
      if (!plain) {
        value = with(with(scaled(value, scale, shift, o), bias, o), residual, at);
        if (sums) store(sums + at, narrowed(value));
        value = activate(activation, value);
      }
      store(y + at, narrowed(value));
    }
  }
}

// Adds what SPAN taps see of a line of windows two cells apart: each window is loaded and widened once. `reach` cells lie
// between the start of window 0 and the run's first cell, an ODD number of them or not.
template <bool ODD>
__device__ __forceinline__ void slide_by_twos(RunOfSums &sum, const T *line, Index channels, int reach, int windows,
                                              const T *weight) {
  constexpr int MOST = (RUN + SPAN - 1 + ODD) / 2;
  int first = ((reach + ODD) >> 1) - SPAN / 2;
  const T *from = line + first * channels;
  Waiting<T> held[MOST];
#pragma unroll
  for (int j = 0; j < MOST; j++, from += channels)
    if ((unsigned)(first + j) < (unsigned)windows) held[j] = load_early(from);
  Values by[SPAN];
#pragma unroll
  for (int t = 0; t < SPAN; t++) by[t] = widened(load(weight + t * channels));
#pragma unroll
  for (int j = 0; j < MOST; j++)
    if ((unsigned)(first + j) < (unsigned)windows) {
      Values back = widened(held[j]);
#pragma unroll
      for (int t = 0; t < SPAN; t++) {
        constexpr int BEHIND = SPAN / 2 * 2 - ODD;
        int u = 2 * j + t - BEHIND;
        if (u >= 0 && u < RUN) sum.add(u, back, by[t]);
      }
    }
  sum.counted(SPAN);
}

// Adds what a line of windows two cells apart has for a run, whose first cell is `reach` cells behind the start of window 0:
// under each tap every other cell has one, the same for all runs of the line, and those of neighbours are neighbours.
__device__ __forceinline__ void every_other(RunOfSums &sum, const T *line, Index channels, int reach, int windows, int taps,
                                            const T *weight) {
  for (; taps >= SPAN; taps -= SPAN, reach -= SPAN, weight += SPAN * channels) {
    if (reach & 1) slide_by_twos<true>(sum, line, channels, reach, windows, weight);
    else slide_by_twos<false>(sum, line, channels, reach, windows, weight);
  }
  for (int t = 0; t < taps; t++, weight += channels) {
    bool odd = (reach - t) & 1;
    int window = (reach - t + odd) >> 1;
    const T *from = line + window * channels;
    Waiting<T> held[RUN / 2];
#pragma unroll
    for (int u = 0; u < RUN / 2; u++, from += channels)
      if ((unsigned)(window + u) < (unsigned)windows) held[u] = load_early(from);
    Values by = widened(load(weight));
#pragma unroll
    for (int u = 0; u < RUN / 2; u++)
      if ((unsigned)(window + u) < (unsigned)windows) {
        Values back = widened(held[u]);
        if (odd) sum.add(2 * u + 1, back, by);
        else sum.add(2 * u, back, by);
      }
    sum.counted(1);
  }
}

// dx = the sum over the windows that hold the cell, and over the channels that c was multiplied to, + bias + residual. Along
// the last axis places are stepped from tap to tap and from cell to cell, since windows are `stride` apart, and to find
// each of them would take a division.
extern "C" __global__ void inputs(const T *dy, const T *weights, const T *bias, const T *residual, T *dx, long long items,
                                  int multiplier, const Window w) {
  Index channels = (Index)w.channels, wider = channels * multiplier;
  int stride = w.stride[2], windows = over(w.dilation[2], w.steps[2]), cells = w.dilation[2] - windows * stride;
  bool by_twos = stride == 2 && w.dilation[2] == 1 && multiplier == 1;
  FOR_EACH(i, items) {
    Index pack;
    int cell[3], out[3];
    Index image = unravel(split(i, w.packs, pack), w.sizes, cell), c = pack * WIDTH;
    cell[2] *= RUN;
    int reach = cell[2] + w.before[2], last = over(reach, w.steps[2]), beyond = reach - last * stride;
    RunOfSums sum;
    const T *weight = weights + c * multiplier;
    for (int t0 = 0; t0 < w.kernel[0]; t0++)
      for (int t1 = 0; t1 < w.kernel[1]; t1++, weight += w.kernel[2] * wider) {
        if (!window_along(w, 0, cell[0], t0, out[0]) || !window_along(w, 1, cell[1], t1, out[1])) continue;
        const T *line = dy + ((image * w.out[0] + out[0]) * w.out[1] + out[1]) * w.out[2] * wider + c * multiplier;
        if (by_twos) {
          every_other(sum, line, channels, reach, w.out[2], w.kernel[2], weight);
          continue;
        }
        // Of the run's first cell under tap t2: the last window that begins there or before, and by how many cells before.
        int window = last, rest = beyond;
        for (int t2 = 0; t2 < w.kernel[2]; t2++) {
          int next = rest ? stride - rest : 0, at[RUN];  // the first cell of the run where a window begins
          bool real[RUN];
          out[2] = window + (rest ? 1 : 0);
#pragma unroll
          for (int u = 0; u < RUN; u++) {
            real[u] = u == next && (unsigned)out[2] < (unsigned)w.out[2];
            at[u] = out[2];
            if (u == next) {
              next += stride;
              out[2]++;
            }
          }
          for (int m = 0; m < multiplier; m++) {
            Values by = widened(load(weight + t2 * wider + m));
            Waiting<T> held[RUN];
#pragma unroll
            for (int u = 0; u < RUN; u++)
              if (real[u]) held[u] = load_early(line + at[u] * wider + m);
#pragma unroll
            for (int u = 0; u < RUN; u++)
              if (real[u]) sum.add(u, widened(held[u]), by);
            sum.counted(1);
          }
          window -= windows;
          rest -= cells;
          if (rest < 0) {
            rest += stride;
            window--;
          }
        }
      }
    Index at = ravel(image, w.size, cell) * channels + c;
#pragma unroll
    for (int u = 0; u < RUN; u++, at += channels)
      if (cell[2] + u < w.size[2]) store(dx + at, narrowed(with(with(sum.values(u), bias, c), residual, at)));
  }
}

// parts[slab, cell, o] = the slab's sum of x under the kernel cell times dy; in `rows` of runs and `spans` of kernel cells.
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
weight_slabs(const T *x, const T *dy, A *parts, int multiplier, int spans, long long rows, long long slab, const Window w) {
  Index channels = (Index)w.channels * multiplier, end = slab_end(slab, rows);
  Index o = ((Index)(blockIdx.x / spans) * blockDim.x + threadIdx.x) * WIDTH, c = multiplier == 1 ? o : o / multiplier;
  int span = blockIdx.x % spans, along = (w.kernel[2] + SPAN - 1) / SPAN, first = span % along * SPAN;
  int t0 = span / along / w.kernel[1], t1 = span / along % w.kernel[1];
  bool neighbours = w.stride[2] == 1 && w.dilation[2] == 1;
  Values sum[SPAN];
  for (int t = 0; t < SPAN; t++) sum[t] = filled(0);
  if (o < channels)
    for (Index row = slab_row(slab); row < end; row += blockDim.y) {
      int out[3], cell[3];
      Index image = unravel(row, w.outs, out);
      if (!cell_along(w, 0, out[0], t0, cell[0]) || !cell_along(w, 1, out[1], t1, cell[1])) continue;
      out[2] *= RUN;
      int start = out[2] * w.stride[2] - w.before[2] + first * w.dilation[2], windows = w.out[2] - out[2];
      const T *line = x + ((image * w.size[0] + cell[0]) * w.size[1] + cell[1]) * w.size[2] * (Index)w.channels + c;
      const T *from = dy + ravel(image, w.out, out) * channels + o;
      Waiting<T> back[RUN];
#pragma unroll
      for (int u = 0; u < RUN; u++, from += channels)
        if (u < windows) back[u] = load_early(from);
      auto add = [&](int t, const Values &x, const Values &by) {
        for (int k = 0; k < WIDTH; k++) sum[t].v[k] += x.v[k] * by.v[k];
      };
      Values by[RUN];
      if (neighbours) {
        Waiting<T> held[RUN + SPAN - 1];
        const T *at = line + start * (Index)w.channels;
#pragma unroll
        for (int j = 0; j < RUN + SPAN - 1; j++, at += (Index)w.channels)
          if ((unsigned)(start + j) < (unsigned)w.size[2]) held[j] = load_early(at);
#pragma unroll
        for (int j = 0; j < RUN + SPAN - 1; j++) {
          if (j < RUN) by[j] = widened(back[j]);
          if ((unsigned)(start + j) < (unsigned)w.size[2]) {
            Values seen = widened(held[j]);
#pragma unroll
            for (int t = 0; t < SPAN; t++)
              if (j >= t && j - t < RUN && j - t < windows) add(t, seen, by[j - t]);
          }
        }
      } else {
#pragma unroll
        for (int t = 0; t < SPAN; t++) {
          Waiting<T> held[RUN];
          bool real[RUN];
#pragma unroll
          for (int u = 0; u < RUN; u++) {
            int at = start + u * w.stride[2] + t * w.dilation[2];
            real[u] = u < windows && (unsigned)at < (unsigned)w.size[2];
            if (real[u]) held[u] = load_early(line + at * (Index)w.channels);
          }
#pragma unroll
          for (int u = 0; u < RUN; u++)
            if (real[u]) add(t, widened(held[u]), widened(back[u]));
        }
      }
    }
  int taps = w.kernel[0] * w.kernel[1] * w.kernel[2], cell = (t0 * w.kernel[1] + t1) * w.kernel[2] + first;
#pragma unroll
  for (int t = 0; t < SPAN; t++) {
    Values total = column_sums(sum[t]);
    if (o < channels && threadIdx.y == 0 && first + t < w.kernel[2])
      store(parts + ((Index)blockIdx.y * taps + cell + t) * channels + o, total);
  }
}
