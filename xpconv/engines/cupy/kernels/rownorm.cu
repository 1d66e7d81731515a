// Layer normalisation over the last axes: x (rows, n), each row by its own mean and variance.
//
// Launch: the teams of teams.cuh; `gradient_slabs`, teams whose blocks have a slab of rows each (`RowSlabs` in Python), and
// `parameter_sums`, for rows longer than a team holds, the slabs of slabs.cuh.

// A row of the table: x̂ = (x - mean - drift) · rstd.
enum { MEAN, DRIFT, RSTD, STATISTICS };

__device__ __forceinline__ A normal(T x, const A *of) { return ((wide(x) - of[MEAN]) - of[DRIFT]) * of[RSTD]; }

extern "C" __global__ void __launch_bounds__(MOST_THREADS)
normalise_rows(const T *x, const T *gamma, const T *beta, T *y, A *table, long long rows, long long n, double eps) {
  FOR_EACH_TEAM(start, rows) {
    Index row = start + threadIdx.y, packs = row < rows ? (Index)n / WIDTH : 0;
    const T *from = x + row * (Index)n;
    Held<T> held = hold(from, packs);
    A first = packs ? wide(*from) : (A)0;
    Sum sum, squares;
    auto add = [&](const Pack &x) {
      A part = 0;
      for (int k = 0; k < WIDTH; k++) part += wide(x.v[k]) - first;
      sum.add(part);
    };
    each_pack(packs, [&](int p, Index) { add(held.v[p]); }, [&](Index at) { add(load(from + at)); });
    A off = team_sum(sum.value()) / (A)n;
    auto add_square = [&](const Pack &x) {
      A part = 0;
      for (int k = 0; k < WIDTH; k++) {
        A rest = (wide(x.v[k]) - first) - off;
        part += rest * rest;
      }
      squares.add(part);
    };
    each_pack(packs, [&](int p, Index) { add_square(held.v[p]); }, [&](Index at) { add_square(load(from + at)); });
    A mean = first + off, virtual_off = mean - first, drift = (first - (mean - virtual_off)) + (off - virtual_off);
    const A of[STATISTICS] = {mean, drift, 1 / sqrt(team_sum(squares.value()) / (A)n + (A)eps)};
    auto write = [&](const Pack &x, Index at) {
      Values z, scale = load_or(gamma, at, 1), more = load_or(beta, at, 0);
      for (int k = 0; k < WIDTH; k++) z.v[k] = normal(x.v[k], of) * scale.v[k] + more.v[k];
      store(y + row * (Index)n + at, narrowed(z));
    };
    each_pack(packs, [&](int p, Index at) { write(held.v[p], at); }, [&](Index at) { write(load(from + at), at); });
    if (table && packs && threadIdx.x == 0)
      for (int i = 0; i < STATISTICS; i++) table[row * STATISTICS + i] = of[i];
  }
}

// dx = rstd (g - mean(g) - x̂ mean(g x̂)) with g = dy · gamma, of a row; see(p, k, dy, x̂) is told each number that is held.
// WHOLE: all are.
template <bool WHOLE, class See>
__device__ __forceinline__ void back_of_row(const T *x, const T *dy, const A *table, const T *gamma, T *dx, Index n,
                                            Index row, Index packs, See see) {
  const T *from = x + row * n, *back = dy + row * n;
  Held<T> held = hold(from, packs), held_back = hold(back, packs);
  A of[STATISTICS] = {};
  if (packs)
    for (int i = 0; i < STATISTICS; i++) of[i] = table[row * STATISTICS + i];
  Sum plain, weighted;
  auto add = [&](const Pack &x, const Pack &dy, Index at, auto see) {
    Values scale = load_or(gamma, at, 1);
    A one = 0, two = 0;
    for (int k = 0; k < WIDTH; k++) {
      A back = wide(dy.v[k]), z = normal(x.v[k], of), g = back * scale.v[k];
      one += g;
      two += g * z;
      see(k, back, z);
    }
    plain.add(one);
    weighted.add(two);
  };
  auto add_held = [&](int p, Index at) {
    add(held.v[p], held_back.v[p], at, [&](int k, A back, A z) { see(p, k, back, z); });
  };
  if constexpr (WHOLE) each_held(packs, add_held);
  else each_pack(packs, add_held, [&](Index at) { add(load(from + at), load(back + at), at, [](int, A, A) {}); });
  A one = team_sum(plain.value()) / (A)n, two = team_sum(weighted.value()) / (A)n;
  auto write = [&](const Pack &x, const Pack &dy, Index at) {
    Values scale = load_or(gamma, at, 1), result;
    for (int k = 0; k < WIDTH; k++)
      result.v[k] = (wide(dy.v[k]) * scale.v[k] - (one + normal(x.v[k], of) * two)) * of[RSTD];
    store(dx + row * n + at, narrowed(result));
  };
  auto write_held = [&](int p, Index at) { write(held.v[p], held_back.v[p], at); };
  if constexpr (WHOLE) each_held(packs, write_held);
  else each_pack(packs, write_held, [&](Index at) { write(load(from + at), load(back + at), at); });
}

extern "C" __global__ void __launch_bounds__(MOST_THREADS)
gradient_rows(const T *x, const T *dy, const A *table, const T *gamma, T *dx, long long rows, long long n) {
  FOR_EACH_TEAM(start, rows) {
    Index row = start + threadIdx.y, packs = row < rows ? (Index)n / WIDTH : 0;
    back_of_row<false>(x, dy, table, gamma, dx, (Index)n, row, packs, [](int, int, A, A) {});
  }
}

// The same of `slab` rows to a block, which its threads hold whole: they keep to their columns, and
// parts[block, 0 and 1, column] = the sums of dy · x̂ and of dy over the block's rows.
extern "C" __global__ void __launch_bounds__(MOST_THREADS)
gradient_slabs(const T *x, const T *dy, const A *table, const T *gamma, T *dx, A *parts, long long rows, long long n,
               long long slab) {
  Held<A> weighted, plain;
  for (int p = 0; p < HELD; p++) weighted.v[p] = plain.v[p] = filled(0);
  Index end = (Index)min(rows, (blockIdx.x + 1) * slab), all = (Index)n / WIDTH;
  for (Index start = (Index)(blockIdx.x * slab); start < end; start += blockDim.y) {
    Index row = start + threadIdx.y;
    back_of_row<true>(x, dy, table, gamma, dx, (Index)n, row, row < end ? all : 0, [&](int p, int k, A back, A z) {
      weighted.v[p].v[k] += back * z;
      plain.v[p].v[k] += back;
    });
  }
  parts += (Index)blockIdx.x * 2 * (Index)n;
#pragma unroll
  for (int p = 0; p < HELD; p++) {
    if ((Index)p * blockDim.x >= all) break;  // for all threads alike
    Index at = (threadIdx.x + (Index)p * blockDim.x) * WIDTH;
    Values one = weighted.v[p], two = plain.v[p];
    if (blockDim.y > 1) {
      one = column_sums(one);
      two = column_sums(two);
    }
    if (threadIdx.y || !in_row(p, all)) continue;
    store(parts + at, one);
    store(parts + (Index)n + at, two);
  }
}

struct Two { Pack x, dy; A of[STATISTICS]; };

// parts[slab, 0 and 1, column] = the slab's sums of dy · x̂ and of dy.
extern "C" __global__ void parameter_sums(const T *x, const T *dy, const A *table, A *parts, long long rows, long long n,
                                          long long slab) {
  Index c = slab_column();
  Values weighted = filled(0), plain = filled(0);
  if (c < n)
    walk(
        slab_row(slab), slab_end(slab, rows), blockDim.y,
        [&](Index r) {
          Two two = {load(x + r * (Index)n + c), load(dy + r * (Index)n + c)};
          for (int i = 0; i < STATISTICS; i++) two.of[i] = table[r * STATISTICS + i];
          return two;
        },
        [&](const Two &two, Index) {
          for (int k = 0; k < WIDTH; k++) {
            A back = wide(two.dy.v[k]);
            weighted.v[k] += back * normal(two.x.v[k], two.of);
            plain.v[k] += back;
          }
        });
  weighted = column_sums(weighted);
  plain = column_sums(plain);
  if (c >= n || threadIdx.y) return;
  store(parts + (Index)blockIdx.y * 2 * (Index)n + c, weighted);
  store(parts + ((Index)blockIdx.y * 2 + 1) * (Index)n + c, plain);
}
