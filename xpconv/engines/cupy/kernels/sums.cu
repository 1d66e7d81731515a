// Sums of columns, (rows, columns) -> (columns,), in an order that depends on the shape alone.
//
// Launch: a block of (columns, 256 / columns) threads takes up to 32 columns of a slab of rows: each thread every
// (256 / columns)th row, then the threads of a column are added up. The grid is (tiles of columns, slabs); a second
// launch with one slab adds up what the slabs have.

__device__ __forceinline__ Index column() { return (Index)blockIdx.x * blockDim.x + threadIdx.x; }

extern "C" __global__ void slab_sums(const T *x, A *parts, long long rows, long long columns, long long slab) {
  Index c = column(), end = min((Index)rows, (Index)((blockIdx.y + 1) * slab));
  Sum sum;
  if (c < columns)
    for (Index r = blockIdx.y * slab + threadIdx.y; r < end; r += blockDim.y) sum.add(wide(x[r * columns + c]));
  A total = column_sum(sum.value());
  if (c < columns && threadIdx.y == 0) parts[blockIdx.y * columns + c] = total;
}

// The same of dz, the gradient before an activation, from what was kept of it; dz is written on the way.
extern "C" __global__ void gradient_slab_sums(const T *kept, const T *dy, T *dz, A *parts, long long rows,
                                              long long columns, long long slab, int activation, bool from_output) {
  Index c = column(), end = min((Index)rows, (Index)((blockIdx.y + 1) * slab));
  Sum sum;
  if (c < columns)
    for (Index r = blockIdx.y * slab + threadIdx.y; r < end; r += blockDim.y) {
      Index i = r * columns + c;
      A value = wide(kept[i]), back = wide(dy[i]);
      back = from_output ? back_from_output(activation, value, back) : back_from_input(activation, value, back, 0, 0);
      dz[i] = narrow(back);
      sum.add(back);
    }
  A total = column_sum(sum.value());
  if (c < columns && threadIdx.y == 0) parts[blockIdx.y * columns + c] = total;
}

// result = factor times the sum over the slabs.
extern "C" __global__ void settle(const A *parts, T *result, long long slabs, long long columns, double factor) {
  Index c = column();
  Sum sum;
  if (c < columns)
    for (Index s = threadIdx.y; s < slabs; s += blockDim.y) sum.add(parts[s * columns + c]);
  A total = column_sum(sum.value());
  if (c < columns && threadIdx.y == 0) result[c] = narrow(total * (A)factor);
}
