// The rectifier with learnt slopes, one for each channel or one for all, over (rows, slopes).
//
// Launch: `forward`, one thread for each WIDTH neighbouring elements, in blocks of 256; `back`, the slabs of rows and the
// grid of sums.cu, of which `settle` adds up what the slabs have.

extern "C" __global__ void forward(const T *x, const T *slope, T *y, long long n, long long slopes) {
  Index channels = slopes;
  FOR_EACH(i, n / WIDTH) {
    Pack value = load(x + i * WIDTH);
    for (int k = 0; k < WIDTH; k++) {
      A v = wide(value.v[k]);
      value.v[k] = narrow(v > 0 ? v : wide(slope[(i * WIDTH + k) % channels]) * v);
    }
    store(y + i * WIDTH, value);
  }
}

// dx and each slab's Σ min(x, 0) dy; either may be null.
extern "C" __global__ void back(const T *x, const T *slope, const T *dy, T *dx, A *parts, long long rows,
                                long long slopes, long long slab) {
  Index c = (Index)blockIdx.x * blockDim.x + threadIdx.x, end = min((Index)rows, (Index)((blockIdx.y + 1) * slab));
  Sum sum;
  if (c < slopes) {
    A tilt = wide(slope[c]);
    for (Index r = blockIdx.y * slab + threadIdx.y; r < end; r += blockDim.y) {
      Index i = r * slopes + c;
      A value = wide(x[i]), grad = wide(dy[i]);
      if (dx) dx[i] = narrow(value > 0 ? grad : tilt * grad);
      if (parts) sum.add(smaller(value, (A)0) * grad);
    }
  }
  if (!parts) return;
  A total = column_sum(sum.value());
  if (c < slopes && threadIdx.y == 0) parts[blockIdx.y * slopes + c] = total;
}
