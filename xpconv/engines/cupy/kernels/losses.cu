// Losses of each element and their gradients by both arrays.
//
// Launch: one thread for each WIDTH neighbouring elements, in blocks of 256; `slab_sums`, the slabs of slabs.cuh over rows
// of WIDTH elements, of which `settle` adds up what the slabs have.

enum Loss { SQUARE, BINARY_CROSS_ENTROPY };

__device__ __forceinline__ Values losses_of(int which, const Pack &y, const Pack &target) {
  Values loss;
  for (int k = 0; k < WIDTH; k++) {
    A v = wide(y.v[k]), t = wide(target.v[k]);
    if (which == SQUARE) loss.v[k] = (v - t) * (v - t);
    else loss.v[k] = larger(v, (A)0) - v * t + log1p(exp(-fabs(v)));  // v is a logit; nothing overflows
  }
  return loss;
}
__device__ __forceinline__ A slope(int which, A y, A target) {
  return which == SQUARE ? 2 * (y - target) : sigmoid(y) - target;
}
__device__ __forceinline__ A slope_of_target(int which, A y, A target) {
  return which == SQUARE ? 2 * (target - y) : -y;
}

extern "C" __global__ void each(const T *y, const T *target, T *losses, long long items, int which) {
  FOR_EACH(i, items) store(losses + i * WIDTH, narrowed(losses_of(which, load(y + i * WIDTH), load(target + i * WIDTH))));
}

struct Two { Pack y, target; };

extern "C" __global__ void slab_sums(const T *y, const T *target, A *parts, long long rows, long long slab, int which) {
  Values sum = filled(0);
  walk(
      slab_row(slab), slab_end(slab, rows), blockDim.y,
      [&](Index r) { return Two{load(y + r * WIDTH), load(target + r * WIDTH)}; },
      [&](const Two &two, Index) {
        Values loss = losses_of(which, two.y, two.target);
        for (int k = 0; k < WIDTH; k++) sum.v[k] += loss.v[k];
      });
  sum = column_sums(sum);
  if (threadIdx.y == 0) store(parts + (Index)blockIdx.y * WIDTH, sum);
}

// Both gradients, either of which may be null; dy is of the element, or `factor` of the only one.
extern "C" __global__ void back(const T *y, const T *target, const T *dy, T *to_y, T *to_target, long long items,
                                int which, bool each, double factor) {
  FOR_EACH(i, items) {
    Values v = widened(load(y + i * WIDTH)), t = widened(load(target + i * WIDTH)), one, other;
    Values share = each ? widened(load(dy + i * WIDTH)) : filled(wide(dy[0]) * (A)factor);
    for (int k = 0; k < WIDTH; k++) {
      one.v[k] = slope(which, v.v[k], t.v[k]) * share.v[k];
      other.v[k] = slope_of_target(which, v.v[k], t.v[k]) * share.v[k];
    }
    if (to_y) store(to_y + i * WIDTH, narrowed(one));
    if (to_target) store(to_target + i * WIDTH, narrowed(other));
  }
}
