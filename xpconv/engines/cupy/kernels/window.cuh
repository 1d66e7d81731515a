// A sliding window over (N, *size, C), its axes filled up to three in front with windows of one cell.
struct Window {
  long long images, channels;
  int size[3], out[3], kernel[3], stride[3], dilation[3], before[3], after[3];
  Divider packs, sizes[3], outs[3], kernels[3], steps[3];  // by packs of channels, size, out, kernel and stride
  Divider lines;                                           // by rows of kernel cells
};

// Place i of a grid along each axis; returns what is left of i, the image.
__device__ __forceinline__ Index unravel(Index i, const Divider *grid, int *at) {
  for (int a = 2; a >= 0; a--) {
    at[a] = 0;
    if (grid[a].shift) {  // more than one
      Index rest;
      i = split(i, grid[a], rest);
      at[a] = (int)rest;
    }
  }
  return i;
}

__device__ __forceinline__ Index ravel(Index image, const int *n, const int *at) {
  return ((image * n[0] + at[0]) * n[1] + at[1]) * n[2] + at[2];
}

// The input cell along one axis under a kernel cell of the window at `out`; whether it is a real one.
__device__ __forceinline__ bool cell_along(const Window &w, int axis, int out, int tap, int &cell) {
  cell = out * w.stride[axis] - w.before[axis] + tap * w.dilation[axis];
  return (unsigned)cell < (unsigned)w.size[axis];
}

// The window along one axis that has an input cell under a kernel cell; whether there is one.
__device__ __forceinline__ bool window_along(const Window &w, int axis, int cell, int tap, int &out) {
  int offset = cell + w.before[axis] - tap * w.dilation[axis];
  out = over(offset, w.steps[axis]);
  return offset >= 0 && out * w.stride[axis] == offset && out < w.out[axis];
}

enum { TAPS_AHEAD = 4 };  // cells whose loads are under way at a time

// Calls take(get(row), t) for every real cell under the window at `out` of an image, in row-major order: its row in
// (N · cells, C), and its number t in the kernel.
template <class Get, class Take>
__device__ __forceinline__ void each_cell(const Window &w, Index image, const int *out, Get get, Take take) {
  for (int t0 = 0, c0, t = 0; t0 < w.kernel[0]; t0++)
    for (int t1 = 0, c1; t1 < w.kernel[1]; t1++, t += w.kernel[2]) {
      if (!cell_along(w, 0, out[0], t0, c0) || !cell_along(w, 1, out[1], t1, c1)) continue;
      Index line = ((image * w.size[0] + c0) * w.size[1] + c1) * w.size[2];
      for (int t2 = 0; t2 < w.kernel[2]; t2 += TAPS_AHEAD) {
        decltype(get(line)) held[TAPS_AHEAD];
        bool real[TAPS_AHEAD];
#pragma unroll
        for (int u = 0; u < TAPS_AHEAD; u++) {
          int c2;
          real[u] = t2 + u < w.kernel[2] && cell_along(w, 2, out[2], t2 + u, c2);
          if (real[u]) held[u] = get(line + c2);
        }
#pragma unroll
        for (int u = 0; u < TAPS_AHEAD; u++)
          if (real[u]) take(held[u], t + t2 + u);
      }
    }
}

// The windows that may hold a cell of the input, first to last along an axis.
__device__ __forceinline__ void windows_over(const Window &w, int axis, int cell, int &first, int &last) {
  int at = cell + w.before[axis], reach = at - w.dilation[axis] * (w.kernel[axis] - 1);
  first = reach > 0 ? over(reach + w.stride[axis] - 1, w.steps[axis]) : 0;
  last = min(over(at, w.steps[axis]), w.out[axis] - 1);
}

// The kernel cell along an axis with which a window holds a cell of the input; -1 if it steps over it.
__device__ __forceinline__ int tap_along(const Window &w, int axis, int out, int cell) {
  int offset = cell + w.before[axis] - out * w.stride[axis];
  if (w.dilation[axis] == 1) return offset;
  return offset % w.dilation[axis] ? -1 : offset / w.dilation[axis];
}

enum { WINDOWS_AHEAD = 2 };

// Calls take(get(row, t), t, at) for every window `at` that holds an input cell, in row-major order: its row in
// (N · windows, C), and by which kernel cell t.
template <class Get, class Take>
__device__ __forceinline__ void each_window(const Window &w, Index image, const int *cell, Get get, Take take) {
  int first[3], last[3], at[3];
  for (int a = 0; a < 3; a++) windows_over(w, a, cell[a], first[a], last[a]);
  for (at[0] = first[0]; at[0] <= last[0]; at[0]++)
    for (at[1] = first[1]; at[1] <= last[1]; at[1]++) {
      int t0 = tap_along(w, 0, at[0], cell[0]), t1 = tap_along(w, 1, at[1], cell[1]);
      if (t0 < 0 || t1 < 0) continue;
      Index line = ((image * w.out[0] + at[0]) * w.out[1] + at[1]) * w.out[2];
      int t = (t0 * w.kernel[1] + t1) * w.kernel[2];
      for (int o = first[2]; o <= last[2]; o += WINDOWS_AHEAD) {
        int t2[WINDOWS_AHEAD];
        decltype(get(line, t)) held[WINDOWS_AHEAD];
#pragma unroll
        for (int u = 0; u < WINDOWS_AHEAD; u++) {
          t2[u] = o + u <= last[2] ? tap_along(w, 2, o + u, cell[2]) : -1;
          if (t2[u] >= 0) held[u] = get(line + o + u, t + t2[u]);
        }
#pragma unroll
        for (int u = 0; u < WINDOWS_AHEAD; u++) {
          at[2] = o + u;
          if (t2[u] >= 0) take(held[u], t + t2[u], at);
        }
      }
    }
}
