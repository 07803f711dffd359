// Which query of a window lies in which lane of which vector. Included once for each instruction set, inside its
// namespace.
//
// A vector holds queries of one row or, where two rows of a window fit it, of several whole rows. Biases lie as vectors
// over those lanes too, one for each offset of a key: (vectors in a row, side, window) for each head.

#ifndef CONVATTN_NAMESPACE
#include "by_itself.h"
#include "simd.inl.h"
#include "matmul.inl.h"
#endif

struct QueryLanes {
  // The number of vectors is a multiple of `together`.
  QueryLanes(int64_t window, int64_t together)
      : window(window),
        side(2 * window - 1),
        rows_in_vector(2 * window <= LANES ? std::min<int64_t>(LANES / window, window) : 1),
        vectors_in_row(rows_in_vector > 1 ? 1 : (window + LANES - 1) / LANES),
        vectors(round_up((window + rows_in_vector - 1) / rows_in_vector * vectors_in_row, together)),
        offsets(vectors_in_row * side * window) {}

  // Call visit(lane of a vector of biases, the entry of the table that belongs there) for one head.
  template <class Visit>
  void for_each_offset(const Visit& visit) const {
    for (int64_t i = 0; i < offsets * LANES; ++i) {
      const int64_t lane = i % LANES, key_x = i / LANES % window, rest = i / LANES / window;
      const int64_t y = rest % side - row_of(lane), x = key_x - column_of(rest / side, lane) + window - 1;
      if (y >= 0 && x >= 0 && row_of(lane) < rows_in_vector) visit(i, y * side + x);
    }
  }

  // Of the first key for a vector of queries. Vectors that only fill up have no bias of their own.
  int64_t first_offset(int64_t vector) const {
    const int64_t y = std::min(vector / vectors_in_row * rows_in_vector, window - 1);
    return (vector % vectors_in_row * side + window - 1 - y) * window;
  }

  // Which token a lane of a vector holds as a query; −1 for none.
  int64_t query_in(int64_t vector, int64_t lane) const {
    const int64_t y = vector / vectors_in_row * rows_in_vector + row_of(lane);
    const int64_t x = column_of(vector % vectors_in_row, lane);
    return row_of(lane) < rows_in_vector && y < window && x < window ? y * window + x : -1;
  }

  // The query in a lane, relative to the first row of its vector.
  int64_t row_of(int64_t lane) const { return rows_in_vector > 1 ? lane / window : 0; }
  int64_t column_of(int64_t vector, int64_t lane) const {
    return rows_in_vector > 1 ? lane % window : vector * LANES + lane;
  }

  const int64_t window, side, rows_in_vector, vectors_in_row, vectors, offsets;
};
