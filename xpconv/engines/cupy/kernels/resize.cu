// Sampling of the spatial axes of (N, *size, C) on another grid, and its gradient, gathered.
//
// On each axis an output reads one or two neighbouring cells; which, and how they are weighted, are quotients of
// integers that are rounded once. Outputs in a row read cells in a row, so that those which read a cell are a run.
//
// Launch: one thread for each WIDTH neighbouring channels of an output (forward) or an input cell (backward), in blocks
// of 256.

enum Mode { NEAREST, NEAREST_EXACT, BILINEAR, CORNERS };

struct Grid {
  long long images, channels;
  int size[3], out[3], mode;
};

struct Reading { int low, high; A share; };  // share of `high`, 1 - share of `low`

// Where output i of an axis lies among its cells: at the fraction above / below.
__device__ __forceinline__ void position(const Grid &g, int axis, int i, long long &above, long long &below) {
  long long n = g.size[axis], o = g.out[axis];
  switch (g.mode) {
    case NEAREST: above = i * n; below = o; break;
    case NEAREST_EXACT: above = (2LL * i + 1) * n; below = 2 * o; break;
    case BILINEAR: above = max((2LL * i + 1) * n - o, 0LL); below = 2 * o; break;
    default: above = i * (n - 1); below = max(o - 1, 1LL);
  }
}

__device__ __forceinline__ Reading reading(const Grid &g, int axis, int i) {
  long long above, below;
  position(g, axis, i, above, below);
  int low = (int)(above / below);
  long long rest = g.mode >= BILINEAR ? above % below : 0;
  return {low, rest ? min(low + 1, g.size[axis] - 1) : low, (A)rest / (A)below};
}

// The weight with which output i of an axis reads a cell.
__device__ __forceinline__ A weight(const Grid &g, int axis, int i, int cell) {
  Reading r = reading(g, axis, i);
  return (r.low == cell ? 1 - r.share : (A)0) + (r.high == cell ? r.share : (A)0);
}

__device__ __forceinline__ long long ceiling(long long a, long long b) { return a > 0 ? (a + b - 1) / b : 0; }

// The first output of an axis that lies at cell q or beyond.
__device__ __forceinline__ int first_at(const Grid &g, int axis, int q) {
  long long n = g.size[axis], o = g.out[axis], first;
  if (q <= 0) return 0;
  if (q >= n) return (int)o;
  switch (g.mode) {
    case NEAREST: first = ceiling(q * o, n); break;
    case NEAREST_EXACT: first = ceiling(2 * q * o - n, 2 * n); break;
    case BILINEAR: first = ceiling((2LL * q + 1) * o - n, 2 * n); break;
    default: first = ceiling(q * max(o - 1, 1LL), n - 1);
  }
  return (int)min(first, o);
}

extern "C" __global__ void sample(const T *x, T *y, const Grid g) {
  Index packs = g.channels / WIDTH, outs = (Index)g.out[0] * g.out[1] * g.out[2];
  FOR_EACH(i, g.images * outs * packs) {
    int at[3], cell[3];
    Index image = unravel(i / packs, g.out, at);
    Reading r[3];
    for (int a = 0; a < 3; a++) r[a] = reading(g, a, at[a]);
    A sum[WIDTH] = {};
    for (int corner = 0; corner < 8; corner++) {
      A share = 1;
      bool reads = true;
      for (int a = 0; a < 3; a++) {
        bool upper = corner >> a & 1;
        cell[a] = upper ? r[a].high : r[a].low;
        share *= upper ? r[a].share : 1 - r[a].share;
        reads = reads && !(upper && r[a].share == 0);
      }
      if (!reads) continue;
      Pack value = load(x + ravel(image, g.size, cell) * g.channels + i % packs * WIDTH);
      for (int k = 0; k < WIDTH; k++) sum[k] += share * wide(value.v[k]);
    }
    Pack result;
    for (int k = 0; k < WIDTH; k++) result.v[k] = narrow(sum[k]);
    store(y + i * WIDTH, result);
  }
}

extern "C" __global__ void sample_back(const T *dy, T *dx, const Grid g) {
  Index packs = g.channels / WIDTH, cells = (Index)g.size[0] * g.size[1] * g.size[2];
  int wide_by = g.mode >= BILINEAR ? 1 : 0;  // cells that an output reads beyond the one it lies at
  FOR_EACH(i, g.images * cells * packs) {
    int cell[3], first[3], end[3], at[3];
    Index image = unravel(i / packs, g.size, cell);
    for (int a = 0; a < 3; a++) {
      first[a] = first_at(g, a, cell[a] - wide_by);
      end[a] = first_at(g, a, cell[a] + 1);
    }
    Sum sum[WIDTH];
    for (at[0] = first[0]; at[0] < end[0]; at[0]++) {
      A along0 = weight(g, 0, at[0], cell[0]);
      if (along0 == 0) continue;
      for (at[1] = first[1]; at[1] < end[1]; at[1]++) {
        A along1 = along0 * weight(g, 1, at[1], cell[1]);
        if (along1 == 0) continue;
        for (at[2] = first[2]; at[2] < end[2]; at[2]++) {
          A share = along1 * weight(g, 2, at[2], cell[2]);
          if (share == 0) continue;
          Pack back = load(dy + ravel(image, g.out, at) * g.channels + i % packs * WIDTH);
          for (int k = 0; k < WIDTH; k++) sum[k].add(share * wide(back.v[k]));
        }
      }
    }
    Pack result;
    for (int k = 0; k < WIDTH; k++) result.v[k] = narrow(sum[k].value());
    store(dx + i * WIDTH, result);
  }
}
