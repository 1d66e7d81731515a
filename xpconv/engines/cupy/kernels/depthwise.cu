// Depthwise convolution, w (*kernel, 1, C · multiplier): products too narrow for a matrix, so each thread has a sum.
//
// Launch: `outputs` and `inputs`, one thread for each WIDTH neighbouring channels of what is written, blocks of 256;
// `weight_slabs`, a block of (columns, 256 / columns) threads for up to 32 channels of a slab of windows and one kernel
// cell: the grid is (tiles of channels, slabs, cells).

// y = activation(sum * scale + shift + bias + residual); sums, where wanted, is what the activation was applied to.
extern "C" __global__ void outputs(const T *x, const T *weights, const A *scale, const A *shift, const T *bias,
                                   const T *residual, T *sums, T *y, int multiplier, int activation, const Window w) {
  Index channels = w.channels * multiplier, packs = channels / WIDTH, outs = (Index)w.out[0] * w.out[1] * w.out[2];
  FOR_EACH(i, w.images * outs * packs) {
    Index o = i % packs * WIDTH;
    int out[3];
    Index image = unravel(i / packs, w.out, out);
    Sum sum[WIDTH];
    FOR_EACH_TAP(w, out, t, tap, cell) {
      const T *from = x + ravel(image, w.size, cell) * w.channels;
      Pack weight = load(weights + t * channels + o);
      if (multiplier == 1) {
        Pack value = load(from + o);
        for (int k = 0; k < WIDTH; k++) sum[k].add(wide(value.v[k]) * wide(weight.v[k]));
      } else {
        for (int k = 0; k < WIDTH; k++) sum[k].add(wide(from[(o + k) / multiplier]) * wide(weight.v[k]));
      }
    }
    Pack before, result;
    for (int k = 0; k < WIDTH; k++) {
      A value = sum[k].value();
      if (scale) value = value * scale[o + k] + shift[o + k];
      if (bias) value += wide(bias[o + k]);
      if (residual) value += wide(residual[i * WIDTH + k]);
      before.v[k] = narrow(value);
      result.v[k] = narrow(activate(activation, value, 0, 0));
    }
    if (sums) store(sums + i * WIDTH, before);
    store(y + i * WIDTH, result);
  }
}

// dx = the sum over the windows that hold the cell, and over the channels that c was multiplied to, + bias + residual.
extern "C" __global__ void inputs(const T *dy, const T *weights, const T *bias, const T *residual, T *dx, int multiplier,
                                  const Window w) {
  Index channels = w.channels, packs = channels / WIDTH, cells = (Index)w.size[0] * w.size[1] * w.size[2];
  FOR_EACH(i, w.images * cells * packs) {
    Index c = i % packs * WIDTH;
    int cell[3];
    Index image = unravel(i / packs, w.size, cell);
    Sum sum[WIDTH];
    FOR_EACH_WINDOW(w, cell, out, t) {
      const T *from = dy + (ravel(image, w.out, out) * channels + c) * multiplier;
      const T *weight = weights + (t * channels + c) * multiplier;
      for (int k = 0; k < WIDTH; k++)
        for (int m = 0; m < multiplier; m++) sum[k].add(wide(from[k * multiplier + m]) * wide(weight[k * multiplier + m]));
    }
    Pack result;
    for (int k = 0; k < WIDTH; k++) {
      A value = sum[k].value();
      if (bias) value += wide(bias[c + k]);
      if (residual) value += wide(residual[i * WIDTH + k]);
      result.v[k] = narrow(value);
    }
    store(dx + i * WIDTH, result);
  }
}

// parts[slab, cell, o] = the slab's sum of x under the kernel cell times dy.
extern "C" __global__ void weight_slabs(const T *x, const T *dy, A *parts, int multiplier, long long slab,
                                        const Window w) {
  Index channels = w.channels * multiplier, rows = w.images * w.out[0] * w.out[1] * w.out[2];
  Index o = (Index)blockIdx.x * blockDim.x + threadIdx.x, end = min(rows, (Index)((blockIdx.y + 1) * slab));
  int tap[3];
  unravel((Index)blockIdx.z, w.kernel, tap);
  Sum sum;
  if (o < channels)
    for (Index row = blockIdx.y * slab + threadIdx.y; row < end; row += blockDim.y) {
      int out[3], cell[3];
      Index image = unravel(row, w.out, out);
      if (cell_of(w, out, tap, cell))
        sum.add(wide(x[ravel(image, w.size, cell) * w.channels + o / multiplier]) * wide(dy[row * channels + o]));
    }
  A total = column_sum(sum.value());
  if (o < channels && threadIdx.y == 0) parts[(blockIdx.y * (Index)gridDim.z + blockIdx.z) * channels + o] = total;
}
