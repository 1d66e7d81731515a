// Softmax and its logarithm along an axis of (outer, n, inner), and the cross-entropy of labels.
//
// Launch: where inner is 1, one block of 32 to 256 threads for each row; else one thread for each line, neighbouring
// threads on neighbouring lines, in blocks of 256. `kept` is y unrounded, or null where y is that already.

// A line's numbers, as its thread or its block of threads walks them.
struct Line {
  Index start, step, n, first, by;
};

// The lines of a launch; `cooperating`: the threads of a block share one.
#define FOR_EACH_LINE(line, outer, length, inner, cooperating)                                                       \
  for (Index item_ = (cooperating) ? (Index)blockIdx.x : first_item(); item_ < (outer) * (inner);                    \
       item_ += (cooperating) ? (Index)gridDim.x : all_threads())                                                    \
    if (Line line = {(Index)(item_ / (inner) * (length) * (inner) + item_ % (inner)), (Index)(inner), (Index)(length), \
                     (cooperating) ? (Index)threadIdx.x : (Index)0, (cooperating) ? (Index)blockDim.x : (Index)1};   \
        true)

#define FOR_EACH_ON(line, i) \
  for (Index i = line.start + line.first * line.step, j_ = line.first; j_ < line.n; j_ += line.by, i += line.by * line.step)

__device__ A line_max(const T *x, const Line &line, bool together) {
  A peak = -infinity();
  FOR_EACH_ON(line, i) peak = larger(peak, wide(x[i]));
  return together ? block_max(peak) : peak;
}

__device__ A line_sum(const Sum &sum, bool together) { return together ? block_sum(sum.value()) : sum.value(); }

extern "C" __global__ void softmax(const T *x, T *y, A *kept, long long outer, long long n, long long inner,
                                   bool logarithm) {
  bool together = inner == 1;
  FOR_EACH_LINE(line, outer, n, inner, together) {
    A peak = line_max(x, line, together);
    Sum sum;
    FOR_EACH_ON(line, i) sum.add(exp(wide(x[i]) - peak));
    A total = line_sum(sum, together), shift = logarithm ? log(total) : (A)0;
    FOR_EACH_ON(line, i) {
      A z = wide(x[i]) - peak, value = logarithm ? z - shift : exp(z) / total;
      y[i] = narrow(value);
      if (kept) kept[i] = value;
    }
  }
}

// dx = (dy - Σ dy y) y, or dy - exp(y) Σ dy for the logarithm.
extern "C" __global__ void softmax_back(const A *kept, const T *dy, T *dx, long long outer, long long n, long long inner,
                                        bool logarithm) {
  bool together = inner == 1;
  FOR_EACH_LINE(line, outer, n, inner, together) {
    Sum sum;
    FOR_EACH_ON(line, i) sum.add(logarithm ? wide(dy[i]) : wide(dy[i]) * kept[i]);
    A total = line_sum(sum, together);
    FOR_EACH_ON(line, i) {
      A y = kept[i], back = wide(dy[i]);
      dx[i] = narrow(logarithm ? back - exp(y) * total : (back - total) * y);
    }
  }
}

// losses[row] = log Σ exp(z) - Σ target · z with z = logits - peak; nan for a label that is no class.
extern "C" __global__ void cross_entropy(const T *logits, const long long *labels, A *losses, A *peaks, A *sums,
                                         long long rows, long long n, double smoothing) {
  FOR_EACH_LINE(line, rows, n, 1, true) {
    Index row = line.start / n;
    long long label = labels[row];
    bool known = label >= 0 && label < n;
    A peak = line_max(logits, line, true);
    Sum sum, all;
    FOR_EACH_ON(line, i) {
      A z = wide(logits[i]) - peak;
      sum.add(exp(z));
      if (smoothing) all.add(z);
    }
    A total = block_sum(sum.value()), spread = smoothing ? block_sum(all.value()) : (A)0;
    if (threadIdx.x == 0) {
      A z = wide(logits[line.start + (known ? (Index)label : 0)]) - peak;
      A loss = log(total) - (A)(1 - smoothing) * z - (smoothing ? (A)(smoothing / n) * spread : (A)0);
      losses[row] = known ? loss : not_a_number();
      peaks[row] = peak;
      sums[row] = total;
    }
  }
}

// dlogits = (softmax - target) · dy, where dy is of the row, or `factor` of the only one.
extern "C" __global__ void cross_entropy_back(const T *logits, const long long *labels, const A *peaks, const A *sums,
                                              const T *dy, T *dx, long long rows, long long n, double smoothing,
                                              bool each, double factor) {
  FOR_EACH(i, rows * n) {
    Index row = i / n;
    long long label = labels[row];
    A grad = exp(wide(logits[i]) - peaks[row]) / sums[row];
    if (label == i % n) grad -= (A)(1 - smoothing);
    if (smoothing) grad -= (A)(smoothing / n);
    A share = each ? wide(dy[row]) : wide(dy[0]) * (A)factor;
    dx[i] = narrow(label >= 0 && label < n ? grad * share : not_a_number());
  }
}
