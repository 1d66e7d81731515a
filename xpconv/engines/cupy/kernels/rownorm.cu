// Layer normalisation over the last axes: x (rows, n), each row by its own mean and variance.
//
// Launch: one block for each row, of 32 to 256 threads; a row is read again from cache. `parameter_sums`: a block of
// (columns, 256 / columns) threads for up to 32 columns of a slab of rows, the grid (tiles of columns, slabs).

// table[row] = mean, drift and rstd: x̂ = (x - mean - drift) · rstd.
extern "C" __global__ void normalise_rows(const T *x, const T *gamma, const T *beta, T *y, A *table, long long rows,
                                          long long n, double eps) {
  for (Index row = blockIdx.x; row < rows; row += gridDim.x) {
    const T *from = x + row * n;
    A first = wide(from[0]);
    Sum sum, squares;
    for (Index i = threadIdx.x; i < n; i += blockDim.x) sum.add(wide(from[i]) - first);
    A off = block_sum(sum.value()) / (A)n;
    for (Index i = threadIdx.x; i < n; i += blockDim.x) {
      A rest = (wide(from[i]) - first) - off;
      squares.add(rest * rest);
    }
    A rstd = 1 / sqrt(block_sum(squares.value()) / (A)n + (A)eps);
    A mean = first + off, virtual_off = mean - first, drift = (first - (mean - virtual_off)) + (off - virtual_off);
    for (Index i = threadIdx.x; i < n; i += blockDim.x) {
      A z = ((wide(from[i]) - mean) - drift) * rstd;
      if (gamma) z *= wide(gamma[i]);
      if (beta) z += wide(beta[i]);
      y[row * n + i] = narrow(z);
    }
    if (table && threadIdx.x == 0) {
      table[row * 3] = mean;
      table[row * 3 + 1] = drift;
      table[row * 3 + 2] = rstd;
    }
  }
}

// dx = rstd (g - mean(g) - x̂ mean(g x̂)) with g = dy · gamma.
extern "C" __global__ void gradient_rows(const T *x, const T *dy, const A *table, const T *gamma, T *dx, long long rows,
                                         long long n) {
  for (Index row = blockIdx.x; row < rows; row += gridDim.x) {
    const T *from = x + row * n, *back = dy + row * n;
    A mean = table[row * 3], drift = table[row * 3 + 1], rstd = table[row * 3 + 2];
    Sum plain, weighted;
    for (Index i = threadIdx.x; i < n; i += blockDim.x) {
      A g = wide(back[i]) * (gamma ? wide(gamma[i]) : (A)1);
      plain.add(g);
      weighted.add(g * (((wide(from[i]) - mean) - drift) * rstd));
    }
    A one = block_sum(plain.value()) / (A)n, two = block_sum(weighted.value()) / (A)n;
    for (Index i = threadIdx.x; i < n; i += blockDim.x) {
      A g = wide(back[i]) * (gamma ? wide(gamma[i]) : (A)1), hat = ((wide(from[i]) - mean) - drift) * rstd;
      dx[row * n + i] = narrow((g - (one + hat * two)) * rstd);
    }
  }
}

// parts[slab, 0 and 1, column] = the slab's sums of dy · x̂ and of dy.
extern "C" __global__ void parameter_sums(const T *x, const T *dy, const A *table, A *parts, long long rows, long long n,
                                          long long slab) {
  Index c = (Index)blockIdx.x * blockDim.x + threadIdx.x, end = min((Index)rows, (Index)((blockIdx.y + 1) * slab));
  Sum weighted, plain;
  if (c < n)
    for (Index r = blockIdx.y * slab + threadIdx.y; r < end; r += blockDim.y) {
      A back = wide(dy[r * n + c]);
      weighted.add(back * (((wide(x[r * n + c]) - table[r * 3]) - table[r * 3 + 1]) * table[r * 3 + 2]));
      plain.add(back);
    }
  A one = column_sum(weighted.value()), two = column_sum(plain.value());
  if (c >= n || threadIdx.y) return;
  parts[(blockIdx.y * 2) * n + c] = one;
  parts[(blockIdx.y * 2 + 1) * n + c] = two;
}
