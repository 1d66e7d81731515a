// Losses of each element and their gradients by both arrays.
//
// Launch: one thread for each element, in blocks of 256; `slab_sums`, the slabs of rows of one column and the grid of
// sums.cu, of which `settle` adds up what the slabs have.

enum Loss { SQUARE, BINARY_CROSS_ENTROPY };

__device__ __forceinline__ A loss_of(int which, A y, A target) {
  if (which == SQUARE) return (y - target) * (y - target);
  return larger(y, (A)0) - y * target + log1p(exp(-fabs(y)));  // y is a logit; nothing overflows
}
__device__ __forceinline__ A slope(int which, A y, A target) {
  return which == SQUARE ? 2 * (y - target) : sigmoid(y) - target;
}
__device__ __forceinline__ A slope_of_target(int which, A y, A target) {
  return which == SQUARE ? 2 * (target - y) : -y;
}

extern "C" __global__ void each(const T *y, const T *target, T *losses, long long n, int which) {
  FOR_EACH(i, n) losses[i] = narrow(loss_of(which, wide(y[i]), wide(target[i])));
}

extern "C" __global__ void slab_sums(const T *y, const T *target, A *parts, long long n, long long slab, int which) {
  Index end = min((Index)n, (Index)((blockIdx.y + 1) * slab));
  Sum sum;
  for (Index i = blockIdx.y * slab + threadIdx.y; i < end; i += blockDim.y)
    sum.add(loss_of(which, wide(y[i]), wide(target[i])));
  A total = column_sum(sum.value());
  if (threadIdx.y == 0) parts[blockIdx.y] = total;
}

// Both gradients, either of which may be null; dy is of the element, or `factor` of the only one.
extern "C" __global__ void back(const T *y, const T *target, const T *dy, T *to_y, T *to_target, long long n, int which,
                                bool each, double factor) {
  FOR_EACH(i, n) {
    A v = wide(y[i]), t = wide(target[i]), share = each ? wide(dy[i]) : wide(dy[0]) * (A)factor;
    if (to_y) to_y[i] = narrow(slope(which, v, t) * share);
    if (to_target) to_target[i] = narrow(slope_of_target(which, v, t) * share);
  }
}
