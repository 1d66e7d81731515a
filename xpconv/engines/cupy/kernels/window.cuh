// A sliding window over (N, *size, C), its axes filled up to three in front with windows of one cell.
struct Window {
  long long images, channels;
  int size[3], out[3], kernel[3], stride[3], dilation[3], before[3], after[3];
};

// Place i of a grid of n[0] · n[1] · n[2] cells along each axis; returns what is left of i, the image.
__device__ __forceinline__ Index unravel(Index i, const int *n, int *at) {
  for (int a = 2; a >= 0; a--) {
    at[a] = 0;
    if (n[a] > 1) { at[a] = (int)(i % n[a]); i /= n[a]; }
  }
  return i;
}

__device__ __forceinline__ Index ravel(Index image, const int *n, const int *at) {
  return ((image * n[0] + at[0]) * n[1] + at[1]) * n[2] + at[2];
}

// Cell `tap` (per axis) of the window at `out`, if it is a real one.
__device__ __forceinline__ bool cell_of(const Window &w, const int *out, const int *tap, int *cell) {
  for (int a = 0; a < 3; a++) {
    cell[a] = out[a] * w.stride[a] - w.before[a] + tap[a] * w.dilation[a];
    if (cell[a] < 0 || cell[a] >= w.size[a]) return false;
  }
  return true;
}

// The windows that may hold a cell of the input, first to last along each axis.
__device__ __forceinline__ void windows_over(const Window &w, const int *cell, int *first, int *last) {
  for (int a = 0; a < 3; a++) {
    int at = cell[a] + w.before[a], reach = at - w.dilation[a] * (w.kernel[a] - 1);
    first[a] = reach > 0 ? (reach + w.stride[a] - 1) / w.stride[a] : 0;
    last[a] = min(at / w.stride[a], w.out[a] - 1);
  }
}

// The kernel cell with which the window at `out` holds a cell of the input, row-major; -1 if it steps over it.
__device__ __forceinline__ int tap_of(const Window &w, const int *out, const int *cell) {
  int tap = 0;
  for (int a = 0; a < 3; a++) {
    int offset = cell[a] + w.before[a] - out[a] * w.stride[a];
    if (w.dilation[a] > 1) {
      if (offset % w.dilation[a]) return -1;
      offset /= w.dilation[a];
    }
    tap = tap * w.kernel[a] + offset;
  }
  return tap;
}

// Every kernel cell in row-major order: its number t, its place per axis, and the input cell if it is a real one.
#define FOR_EACH_TAP(w, out, t, tap, cell)                              \
  for (int tap[3] = {0, 0, 0}, t = 0; tap[0] < (w).kernel[0]; tap[0]++) \
    for (tap[1] = 0; tap[1] < (w).kernel[1]; tap[1]++)                  \
      for (tap[2] = 0; tap[2] < (w).kernel[2]; tap[2]++, t++)           \
        if (int cell[3]; cell_of(w, out, tap, cell))

// Every window that holds an input cell, in row-major order: its place per axis, and by which kernel cell t.
#define FOR_EACH_WINDOW(w, cell, out, t)                                                         \
  for (int out[3], first_[3], last_[3], once_ = (windows_over(w, cell, first_, last_), 1); once_; once_ = 0) \
    for (out[0] = first_[0]; out[0] <= last_[0]; out[0]++)                                       \
      for (out[1] = first_[1]; out[1] <= last_[1]; out[1]++)                                     \
        for (out[2] = first_[2]; out[2] <= last_[2]; out[2]++)                                   \
          if (int t = tap_of(w, out, cell); t >= 0)
