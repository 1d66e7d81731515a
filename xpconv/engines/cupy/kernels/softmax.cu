// Softmax and its logarithm along an axis of (outer, n, inner), and the cross-entropy of labels.
//
// Launch: the teams of teams.cuh for rows (inner is 1); `..._lines`, one thread for each line along another axis,
// neighbouring threads on neighbouring lines, in blocks of 256. `kept` is y unrounded, or null where y is that already.

// The largest number of a row that a team holds in part.
__device__ __forceinline__ A row_max(const Held<T> &held, const T *row, Index packs) {
  A peak = -infinity();
  auto see = [&](const Pack &x) { for (int k = 0; k < WIDTH; k++) peak = larger(peak, wide(x.v[k])); };
  each_pack(packs, [&](int p, Index) { see(held.v[p]); }, [&](Index at) { see(load(row + at)); });
  return team_max(peak);
}

__device__ __forceinline__ Values exps(const Pack &x, A peak) {
  Values e;
  for (int k = 0; k < WIDTH; k++) e.v[k] = exp(wide(x.v[k]) - peak);
  return e;
}

__device__ __forceinline__ void put(T *y, A *kept, Index at, const Values &value) {
  store(y + at, narrowed(value));
  if (kept) store(kept + at, value);
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS)
softmax(const T *x, T *y, A *kept, long long rows, long long n, bool logarithm) {
  FOR_EACH_TEAM(first, rows) {
    Index row = first + threadIdx.y, start = row * (Index)n, packs = row < rows ? (Index)n / WIDTH : 0;
    Held<T> held = hold(x + start, packs);
    Held<A> powers;
    A peak = row_max(held, x + start, packs), sum = 0;
    Sum beyond;
    auto add = [&](const Values &e) { for (int k = 0; k < WIDTH; k++) sum += e.v[k]; };
    each_pack(
        packs, [&](int p, Index) { add(powers.v[p] = exps(held.v[p], peak)); },
        [&](Index at) { A before = sum; sum = 0; add(exps(load(x + start + at), peak)); beyond.add(sum); sum = before; });
    A total = team_sum(sum + beyond.value()), share = 1 / total, shift = logarithm ? log(total) : (A)0;
    auto value = [&](const Pack &x, Values e) {
      for (int k = 0; k < WIDTH; k++) e.v[k] = logarithm ? wide(x.v[k]) - peak - shift : e.v[k] * share;
      return e;
    };
    each_pack(
        packs, [&](int p, Index at) { put(y, kept, start + at, value(held.v[p], powers.v[p])); },
        [&](Index at) {
          Pack more = load(x + start + at);
          put(y, kept, start + at, value(more, exps(more, peak)));
        });
  }
}

// dx = (dy - Σ dy y) y, or dy - exp(y) Σ dy for the logarithm.
__device__ __forceinline__ A softmax_slope(A y, A dy, A total, bool logarithm) {
  return logarithm ? dy - exp(y) * total : (dy - total) * y;
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS)
softmax_back(const A *kept, const T *dy, T *dx, long long rows, long long n, bool logarithm) {
  FOR_EACH_TEAM(first, rows) {
    Index row = first + threadIdx.y, start = row * (Index)n, packs = row < rows ? (Index)n / WIDTH : 0;
    Held<A> y = hold(kept + start, packs);
    Held<T> back = hold(dy + start, packs);
    Sum sum;
    auto add = [&](const Values &y, const Pack &dy) {
      A part = 0;
      for (int k = 0; k < WIDTH; k++) part += logarithm ? wide(dy.v[k]) : wide(dy.v[k]) * y.v[k];
      sum.add(part);
    };
    each_pack(packs, [&](int p, Index) { add(y.v[p], back.v[p]); },
              [&](Index at) { add(load(kept + start + at), load(dy + start + at)); });
    A total = team_sum(sum.value());
    auto write = [&](Values y, const Pack &dy, Index at) {
      for (int k = 0; k < WIDTH; k++) y.v[k] = softmax_slope(y.v[k], wide(dy.v[k]), total, logarithm);
      store(dx + start + at, narrowed(y));
    };
    each_pack(packs, [&](int p, Index at) { write(y.v[p], back.v[p], at); },
              [&](Index at) { write(load(kept + start + at), load(dy + start + at), at); });
  }
}

// losses[row] = log Σ exp(z) - Σ target · z with z = logits - peak; nan for a label that is no class. The target is
// `sure` of the label and `other` of every class.
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
cross_entropy(const T *logits, const long long *labels, A *losses, A *peaks, A *sums, long long rows, long long n,
              double sure, double other) {
  FOR_EACH_TEAM(first, rows) {
    Index row = first + threadIdx.y, start = row * (Index)n, packs = row < rows ? (Index)n / WIDTH : 0;
    Held<T> held = hold(logits + start, packs);
    A peak = row_max(held, logits + start, packs);
    Sum sum, all;
    auto add = [&](const Pack &x) {
      A powers = 0, plain = 0;
      for (int k = 0; k < WIDTH; k++) {
        A z = wide(x.v[k]) - peak;
        powers += exp(z);
        plain += z;
      }
      sum.add(powers);
      if (other) all.add(plain);
    };
    each_pack(packs, [&](int p, Index) { add(held.v[p]); }, [&](Index at) { add(load(logits + start + at)); });
    A total = team_sum(sum.value()), spread = other ? team_sum(all.value()) : (A)0;
    if (threadIdx.x || row >= rows) continue;
    long long label = labels[row];
    bool known = label >= 0 && label < n;
    A z = wide(logits[start + (known ? (Index)label : 0)]) - peak;
    losses[row] = known ? log(total) - (A)sure * z - (A)other * spread : not_a_number();
    peaks[row] = peak;
    sums[row] = total;
  }
}

// dlogits = (softmax - target) · dy, where dy is of the row, or `factor` of the only one.
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
cross_entropy_back(const T *logits, const long long *labels, const A *peaks, const A *sums, const T *dy, T *dx,
                   long long rows, long long n, double sure, double other, bool each, double factor) {
  FOR_EACH_TEAM(first, rows) {
    Index row = first + threadIdx.y, start = row * (Index)n, packs = (Index)n / WIDTH;
    if (row >= rows) continue;
    Held<T> held = hold(logits + start, packs);
    long long label = labels[row];
    A peak = peaks[row], share = 1 / sums[row], by = each ? wide(dy[row]) : wide(dy[0]) * (A)factor;
    if (label < 0 || label >= n) by = not_a_number();
    auto write = [&](const Pack &x, Index at) {
      Values grad = exps(x, peak);
      for (int k = 0; k < WIDTH; k++)
        grad.v[k] = (grad.v[k] * share - (A)other - (at + k == label ? (A)sure : (A)0)) * by;
      store(dx + start + at, narrowed(grad));
    };
    each_pack(packs, [&](int p, Index at) { write(held.v[p], at); },
              [&](Index at) { write(load(logits + start + at), at); });
  }
}

extern "C" __global__ void softmax_lines(const T *x, T *y, A *kept, long long outer, long long n, long long inner,
                                         bool logarithm) {
  FOR_EACH(line, outer * inner) {
    Index start = line / (Index)inner * (Index)(n * inner) + line % (Index)inner;
    auto at = [&](Index j) { return start + j * (Index)inner; };
    auto get = [&](Index j) { return x[at(j)]; };
    A peak = -infinity();
    walk(0, (Index)n, 1, get, [&](T x, Index) { peak = larger(peak, wide(x)); });
    Sum sum;
    walk(0, (Index)n, 1, get, [&](T x, Index) { sum.add(exp(wide(x) - peak)); });
    A total = sum.value(), share = 1 / total, shift = logarithm ? log(total) : (A)0;
    walk(0, (Index)n, 1, get, [&](T x, Index j) {
      A z = wide(x) - peak, value = logarithm ? z - shift : exp(z) * share;
      y[at(j)] = narrow(value);
      if (kept) kept[at(j)] = value;
    });
  }
}

struct Both { A y; T dy; };

extern "C" __global__ void softmax_back_lines(const A *kept, const T *dy, T *dx, long long outer, long long n,
                                              long long inner, bool logarithm) {
  FOR_EACH(line, outer * inner) {
    Index start = line / (Index)inner * (Index)(n * inner) + line % (Index)inner;
    auto at = [&](Index j) { return start + j * (Index)inner; };
    auto get = [&](Index j) { return Both{kept[at(j)], dy[at(j)]}; };
    Sum sum;
    walk(0, (Index)n, 1, get, [&](const Both &b, Index) { sum.add(logarithm ? wide(b.dy) : wide(b.dy) * b.y); });
    A total = sum.value();
    walk(0, (Index)n, 1, get,
         [&](const Both &b, Index j) { dx[at(j)] = narrow(softmax_slope(b.y, wide(b.dy), total, logarithm)); });
  }
}
