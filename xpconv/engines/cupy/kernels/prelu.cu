// The rectifier with learnt slopes, one for each channel or one for all.
//
// Launch: `forward`, one thread for each WIDTH neighbouring elements, in blocks of 256; `back`, the slabs of slabs.cuh over
// (rows, channels), or over rows of WIDTH elements where there is one slope.

__device__ __forceinline__ Values slopes_of(const T *slope, Index c, bool one) {
  return one ? filled(wide(*slope)) : widened(load(slope + c));
}

extern "C" __global__ void forward(const T *x, const T *slope, T *y, long long items, bool one, const Divider packs) {
  FOR_EACH(i, items) {
    Index pack;
    split(i, packs, pack);
    Values value = widened(load(x + i * WIDTH)), tilt = slopes_of(slope, pack * WIDTH, one);
    for (int k = 0; k < WIDTH; k++) value.v[k] = value.v[k] > 0 ? value.v[k] : tilt.v[k] * value.v[k];
    store(y + i * WIDTH, narrowed(value));
  }
}

struct Two { Pack x, dy; };

// dx and each slab's Σ min(x, 0) dy; either may be null.
extern "C" __global__ void back(const T *x, const T *slope, const T *dy, T *dx, A *parts, long long rows,
                                long long columns, long long slab, bool one) {
  Index c = slab_column();
  Values sum = filled(0);
  if (c < columns) {
    Values tilt = slopes_of(slope, c, one);
    walk(
        slab_row(slab), slab_end(slab, rows), blockDim.y,
        [&](Index r) { return Two{load(x + r * columns + c), load(dy + r * columns + c)}; },
        [&](const Two &two, Index r) {
          Values value = widened(two.x), grad = widened(two.dy);
          for (int k = 0; k < WIDTH; k++) {
            sum.v[k] += smaller(value.v[k], (A)0) * grad.v[k];
            grad.v[k] = value.v[k] > 0 ? grad.v[k] : tilt.v[k] * grad.v[k];
          }
          if (dx) store(dx + r * columns + c, narrowed(grad));
        });
  }
  if (!parts) return;
  sum = column_sums(sum);
  if (c < columns && threadIdx.y == 0) store(parts + (Index)blockIdx.y * columns + c, sum);
}
