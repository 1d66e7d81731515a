// Padding of the spatial axes of (N, *size, C), and its gradient, in which a cell gathers from all its copies.
//
// Launch: one thread for each WIDTH neighbouring channels of a padded cell (forward) or an input cell (backward), in
// blocks of 256.

enum Mode { CONSTANT, EDGE, WRAP, REFLECT };

struct Borders {
  int size[3], out[3], before[3], mode;
  Divider packs, sizes[3], outs[3];
};

__device__ __forceinline__ int modulo(int a, int n) { return (a % n + n) % n; }

// The cell of an axis that place `at` of the padded axis copies; -1: none.
__device__ __forceinline__ int source(const Borders &b, int axis, int at) {
  int n = b.size[axis], cell = at - b.before[axis];
  if (cell >= 0 && cell < n) return cell;
  if (b.mode == CONSTANT) return -1;
  if (b.mode == EDGE) return cell < 0 ? 0 : n - 1;
  if (b.mode == WRAP) return modulo(cell, n);
  if (n == 1) return 0;
  cell = modulo(cell, 2 * n - 2);
  return cell < n ? cell : 2 * n - 2 - cell;
}

// The first place after `at` (-1: from the start) that copies a cell of an axis; out[axis] or more: there is none.
__device__ __forceinline__ int copy_after(const Borders &b, int axis, int cell, int at) {
  int n = b.size[axis], own = cell + b.before[axis], next = at + 1;
  if (n == 1 && b.mode != CONSTANT) return next;
  if (b.mode == WRAP) return next + modulo(own - next, n);
  if (b.mode == REFLECT) {
    int period = 2 * n - 2, mirrored = b.before[axis] - cell;
    return next + min(modulo(own - next, period), modulo(mirrored - next, period));
  }
  bool before = b.mode == EDGE && cell == 0, after = b.mode == EDGE && cell == n - 1;
  if (next <= own) return before ? next : own;
  return after ? next : b.out[axis];
}

#define FOR_EACH_COPY(b, axis, cell, at) \
  for (at[axis] = -1; (at[axis] = copy_after(b, axis, cell[axis], at[axis])) < b.out[axis];)

extern "C" __global__ void pad(const T *x, T *y, long long items, double value, const Borders b) {
  FOR_EACH(i, items) {
    Index c;
    int at[3], cell[3];
    Index image = unravel(split(i, b.packs, c), b.outs, at);
    bool real = true;
    for (int a = 0; a < 3; a++) {
      cell[a] = source(b, a, at[a]);
      real = real && cell[a] >= 0;
    }
    Pack pack = narrowed(filled((A)value));
    if (real) pack = load(x + (ravel(image, b.size, cell) * (Index)b.packs.by + c) * WIDTH);
    store(y + i * WIDTH, pack);
  }
}

extern "C" __global__ void pad_back(const T *dy, T *dx, long long items, const Borders b) {
  FOR_EACH(i, items) {
    Index c;
    int cell[3], at[3];
    Index image = unravel(split(i, b.packs, c), b.sizes, cell);
    Sums sums;
    FOR_EACH_COPY(b, 0, cell, at) FOR_EACH_COPY(b, 1, cell, at) FOR_EACH_COPY(b, 2, cell, at)
      sums.add(widened(load(dy + (ravel(image, b.out, at) * (Index)b.packs.by + c) * WIDTH)));
    store(dx + i * WIDTH, narrowed(sums.values()));
  }
}
