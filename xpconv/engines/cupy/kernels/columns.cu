// Convolution as matrix products: what is under the windows as rows of a matrix, and back.
//
// Launch: one thread for each WIDTH neighbouring channels (`to_columns`: of a row of kernel cells), in blocks of 256 and a
// grid of as many as it takes. Neighbouring threads have neighbouring channels, so reads and writes of a warp lie side by
// side.

// columns[row, group, tap, c] = x under `tap` of window first + row, 0 on padding; rows in row-major order (N, *out).
// w.packs are those of a group.
extern "C" __global__ void to_columns(const T *x, T *columns, long long first, long long items, const Divider groups,
                                      const Window w) {
  FOR_EACH(i, items) {
    Index pack, line, group, row = split(split(split(i, w.packs, pack), w.lines, line), groups, group), along;
    int out[3], cell[3];
    Index image = unravel((Index)first + row, w.outs, out), packs = (Index)w.packs.by, step = (Index)groups.by * packs;
    int t0 = (int)split(line, w.kernels[1], along);
    bool inside = cell_along(w, 0, out[0], t0, cell[0]);
    inside = cell_along(w, 1, out[1], (int)along, cell[1]) && inside;
    const T *from = x + (((image * w.size[0] + cell[0]) * w.size[1] + cell[1]) * w.size[2] * step + group * packs + pack) * WIDTH;
    T *to = columns + (((row * (Index)groups.by + group) * (Index)w.lines.by + line) * w.kernel[2] * packs + pack) * WIDTH;
    for (int t2 = 0; t2 < w.kernel[2]; t2 += TAPS_AHEAD) {
      Pack held[TAPS_AHEAD];
#pragma unroll
      for (int u = 0; u < TAPS_AHEAD; u++) {
        held[u] = narrowed(filled(0));
        if (t2 + u < w.kernel[2] && cell_along(w, 2, out[2], t2 + u, cell[2]) && inside)
          held[u] = load(from + cell[2] * step * WIDTH);
      }
#pragma unroll
      for (int u = 0; u < TAPS_AHEAD; u++)
        if (t2 + u < w.kernel[2]) store(to + (t2 + u) * packs * WIDTH, held[u]);
    }
  }
}

// dx[n, cell, c] = the sum of what every window that holds the cell has for it + bias[c] + residual[n, cell, c];
// columns are of whole images, `each` the packs of a group.
extern "C" __global__ void from_columns(const A *columns, const T *bias, const T *residual, T *dx, long long items,
                                        int groups, int taps, const Divider each, const Window w) {
  FOR_EACH(i, items) {
    Index pack, in_group;
    int cell[3];
    Index image = unravel(split(i, w.packs, pack), w.sizes, cell);
    Index group = split(pack, each, in_group), packs = (Index)each.by;
    Sums sums;
    each_window(
        w, image, cell,
        [&](Index row, int t) { return load(columns + (((row * groups + group) * taps + t) * packs + in_group) * WIDTH); },
        [&](const Values &share, int, const int *) { sums.add(share); });
    Values value = sums.values(), more = load_or(bias, pack * WIDTH, 0), beside = load_or(residual, i * WIDTH, 0);
    for (int k = 0; k < WIDTH; k++) value.v[k] = value.v[k] + more.v[k] + beside.v[k];
    store(dx + i * WIDTH, narrowed(value));
  }
}

// total[i] = (more ? total[i] : 0) + the sum over b of parts[b, i]: the blocks of a long sum, in order.
extern "C" __global__ void add_parts(const A *parts, A *total, long long count, long long n, bool more) {
  FOR_EACH(i, n) {
    Sum sum;
    for (Index b = 0; b < count; b++) sum.add(parts[b * n + i]);
    total[i] = more ? total[i] + sum.value() : sum.value();
  }
}
