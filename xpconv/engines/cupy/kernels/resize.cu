// Sampling of the spatial axes of (N, *size, C) on another grid, and its gradient, gathered.
//
// On each axis an output reads one or two neighbouring cells; which, and how they are weighted, are quotients of
// integers that are rounded once. Outputs in a row read cells in a row, so that those which read a cell are a run.
//
// Launch: one thread for each WIDTH neighbouring channels of an output (forward) or an input cell (backward), in blocks
// of 256.

enum Mode { NEAREST, NEAREST_EXACT, BILINEAR, CORNERS };

struct Grid {
  int size[3], out[3], mode;
  Divider packs, sizes[3], outs[3], below[3], apart[3];  // the last two by what `position` and `first_at` say
};

struct Reading { int low, high; A share; };  // share of `high`, 1 - share of `low`

// A quotient of numbers that seldom need 64 bits.
__device__ __forceinline__ long long ratio(long long n, const Divider &d) {
  return n <= 0x7fffffff ? over((int)n, d) : over(n, d);
}

// Where output i of an axis lies among its cells: at the fraction above / below.
__device__ __forceinline__ long long position(const Grid &g, int axis, int i) {
  long long n = g.size[axis], o = g.out[axis];
  switch (g.mode) {
    case NEAREST: return i * n;                                  // below is o
    case NEAREST_EXACT: return (2LL * i + 1) * n;                // 2 o
    case BILINEAR: return max((2LL * i + 1) * n - o, 0LL);       // 2 o
    default: return i * (n - 1);                                 // o - 1
  }
}

__device__ __forceinline__ Reading reading(const Grid &g, int axis, int i) {
  long long above = position(g, axis, i), below = g.below[axis].by, low = ratio(above, g.below[axis]);
  long long rest = g.mode >= BILINEAR ? above - low * below : 0;
  return {(int)low, rest ? min((int)low + 1, g.size[axis] - 1) : (int)low, rest ? (A)rest / (A)below : (A)0};
}

// The weight with which output i of an axis reads a cell.
__device__ __forceinline__ A weight(const Grid &g, int axis, int i, int cell) {
  Reading r = reading(g, axis, i);
  return (r.low == cell ? 1 - r.share : (A)0) + (r.high == cell ? r.share : (A)0);
}

__device__ __forceinline__ long long ceiling(long long a, const Divider &by) {
  return a > 0 ? ratio(a + by.by - 1, by) : 0;
}

// The first output of an axis that lies at cell q or beyond.
__device__ __forceinline__ int first_at(const Grid &g, int axis, int q) {
  long long n = g.size[axis], o = g.out[axis], first;
  if (q <= 0) return 0;
  if (q >= n) return (int)o;
  switch (g.mode) {
    case NEAREST: first = ceiling(q * o, g.apart[axis]); break;                        // apart is n
    case NEAREST_EXACT: first = ceiling(2 * q * o - n, g.apart[axis]); break;          // 2 n
    case BILINEAR: first = ceiling((2LL * q + 1) * o - n, g.apart[axis]); break;       // 2 n
    default: first = ceiling(q * max(o - 1, 1LL), g.apart[axis]);                      // n - 1
  }
  return (int)min(first, o);
}

extern "C" __global__ void sample(const T *x, T *y, long long items, const Grid g) {
  FOR_EACH(i, items) {
    Index pack;
    int at[3], cell[3];
    Index image = unravel(split(i, g.packs, pack), g.outs, at);
    Reading r[3];
    for (int a = 0; a < 3; a++) r[a] = reading(g, a, at[a]);
    Values sum = filled(0);
    for (int far = 0; far < (r[0].share == 0 ? 1 : 2); far++) {
      A shares[4], along = far ? r[0].share : 1 - r[0].share;
      Pack held[4];
      cell[0] = far ? r[0].high : r[0].low;
#pragma unroll
      for (int corner = 0; corner < 4; corner++) {
        cell[1] = corner / 2 ? r[1].high : r[1].low;
        cell[2] = corner % 2 ? r[2].high : r[2].low;
        shares[corner] = along * (corner / 2 ? r[1].share : 1 - r[1].share) * (corner % 2 ? r[2].share : 1 - r[2].share);
        if (shares[corner] != 0) held[corner] = load(x + (ravel(image, g.size, cell) * (Index)g.packs.by + pack) * WIDTH);
      }
#pragma unroll
      for (int corner = 0; corner < 4; corner++)
        if (shares[corner] != 0)
          for (int k = 0; k < WIDTH; k++) sum.v[k] += shares[corner] * wide(held[corner].v[k]);
    }
    store(y + i * WIDTH, narrowed(sum));
  }
}

extern "C" __global__ void sample_back(const T *dy, T *dx, long long items, const Grid g) {
  int wide_by = g.mode >= BILINEAR ? 1 : 0;  // cells that an output reads beyond the one it lies at
  FOR_EACH(i, items) {
    Index pack;
    int cell[3], first[3], end[3], at[3];
    Index image = unravel(split(i, g.packs, pack), g.sizes, cell);
    for (int a = 0; a < 3; a++) {
      first[a] = first_at(g, a, cell[a] - wide_by);
      end[a] = first_at(g, a, cell[a] + 1);
    }
    Sums sums;
    for (at[0] = first[0]; at[0] < end[0]; at[0]++) {
      A along0 = weight(g, 0, at[0], cell[0]);
      if (along0 == 0) continue;
      for (at[1] = first[1]; at[1] < end[1]; at[1]++) {
        A along1 = along0 * weight(g, 1, at[1], cell[1]);
        if (along1 == 0) continue;
        for (at[2] = first[2]; at[2] < end[2]; at[2]++) {
          A share = along1 * weight(g, 2, at[2], cell[2]);
          if (share == 0) continue;
          Values back = widened(load(dy + (ravel(image, g.out, at) * (Index)g.packs.by + pack) * WIDTH));
          for (int k = 0; k < WIDTH; k++) back.v[k] *= share;
          sums.add(back);
        }
      }
    }
    store(dx + i * WIDTH, narrowed(sums.values()));
  }
}
