// Sums of columns, (rows, columns) -> (columns,), in an order that depends on the shape alone.
//
// Launch: the slabs of slabs.cuh; a second launch of blocks of (8, 32) threads, each with a column, adds up what the
// slabs have.

extern "C" __global__ void slab_sums(const T *x, A *parts, long long rows, long long columns, long long slab) {
  Index c = slab_column();
  Values sum = filled(0);
  if (c < columns)
    walk(
        slab_row(slab), slab_end(slab, rows), blockDim.y, [&](Index r) { return load(x + r * columns + c); },
        [&](const Pack &x, Index) {
          for (int k = 0; k < WIDTH; k++) sum.v[k] += wide(x.v[k]);
        });
  sum = column_sums(sum);
  if (c < columns && threadIdx.y == 0) store(parts + (Index)blockIdx.y * columns + c, sum);
}

struct Pair { Pack kept, back; };

// The same of dz, the gradient before an activation, from what was kept of it; dz is written on the way.
extern "C" __global__ void gradient_slab_sums(const T *kept, const T *dy, T *dz, A *parts, long long rows,
                                              long long columns, long long slab, int activation, bool from_output) {
  Index c = slab_column();
  Values sum = filled(0);
  if (c < columns)
    walk(
        slab_row(slab), slab_end(slab, rows), blockDim.y,
        [&](Index r) { return Pair{load(kept + r * columns + c), load(dy + r * columns + c)}; },
        [&](const Pair &pair, Index r) {
          Values value = widened(pair.kept), back = widened(pair.back);
          back = from_output ? back_from_output(activation, value, back)
                             : back_from_input(activation, value, back);
          store(dz + r * columns + c, narrowed(back));
          for (int k = 0; k < WIDTH; k++) sum.v[k] += back.v[k];
        });
  sum = column_sums(sum);
  if (c < columns && threadIdx.y == 0) store(parts + (Index)blockIdx.y * columns + c, sum);
}

// result = factor times the sum over the slabs.
extern "C" __global__ void settle(const A *parts, T *result, long long slabs, long long columns, double factor) {
  Index c = slab_column();
  Sum sum;
  if (c < columns)
    walk(
        threadIdx.y, (Index)slabs, blockDim.y, [&](Index s) { return parts[s * columns + c]; },
        [&](A part, Index) { sum.add(part); });
  A total = column_sums(filled(sum.value())).v[0];
  if (c < columns && threadIdx.y == 0) result[c] = narrow(total * (A)factor);
}
