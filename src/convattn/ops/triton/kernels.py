"""Window attention as Triton kernels, forward and backward, straight from and to feature maps.

The tokens of a window are numbered row by row, and the token of pixel (y, x) has the place y(2w − 1) + x. The
relative position bias of a key for a query then lies in column key's place − query's place + 2w(w − 1) of the
table: short slices of it, read where they are needed.

The running softmax and the backward pass that recomputes the scores are those of Dao et al.,
"FlashAttention", NeurIPS 2022. Keys of a window that reaches beyond the map are reflected into it; queries
beyond the map are left out.

A map is passed with its strides, (pointer, image, channel, row, column), and ``size`` is (images, heads,
height, width). Tiles of maps are channels × tokens.
"""

# mypy: ignore-errors
# ruff: noqa: N803
import triton
import triton.language as tl

__all__ = ["backward_bias", "backward_keys", "backward_queries", "forward"]

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def forward(
    q,
    k,
    v,
    table,
    out,
    lse,
    scale,
    size,
    WINDOW: tl.constexpr,
    DEPTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A tile of queries against all keys of its window; keeps the log-sum-exp of their scores."""
    first, head, image, top, left = _locate(size, WINDOW, QUERIES)
    if first >= _queries_end(top, size, WINDOW):
        return
    q_place, row, column, _q_within, true = _tokens(first, top, left, size, WINDOW, QUERIES)
    query = tl.trans(_load(q, image, head, row, column, DEPTH, CHANNELS))

    peak = tl.full([QUERIES], float("-inf"), tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    result = tl.zeros([QUERIES, CHANNELS], tl.float32)
    for start in range(0, WINDOW * WINDOW, KEYS):
        key, value, k_place, within = _keys(
            k, v, image, head, start, top, left, size, WINDOW, DEPTH, CHANNELS, KEYS
        )
        bias = tl.load(_bias(table, head, q_place[:, None], k_place[None, :], WINDOW))
        scores = tl.dot(query, key, input_precision=PRECISION) * scale + bias
        scores = tl.where(within[None, :], scores, float("-inf"))

        new_peak = tl.maximum(peak, tl.max(scores, 1))
        weights = tl.exp2(scores * LOG2_E - new_peak[:, None] * LOG2_E)
        shrink = tl.exp2((peak - new_peak) * LOG2_E)
        total = total * shrink + tl.sum(weights, 1)
        result = result * shrink[:, None]
        result = tl.dot(weights.to(value.dtype), tl.trans(value), result, input_precision=PRECISION)
        peak = new_peak

    _store(out, tl.trans(result / total[:, None]), image, head, row, column, true, DEPTH, CHANNELS)
    tl.store(lse + _pixel(image, head, row, column, size), peak + tl.log(total), mask=true)


@triton.jit
def backward_queries(
    q,
    k,
    v,
    table,
    out,
    lse,
    out_grad,
    delta,
    q_grad,
    scale,
    size,
    WINDOW: tl.constexpr,
    DEPTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradient of a tile of queries; keeps delta, each query's result times that result's gradient."""
    first, head, image, top, left = _locate(size, WINDOW, QUERIES)
    if first >= _queries_end(top, size, WINDOW):
        return
    q_place, row, column, _q_within, true = _tokens(first, top, left, size, WINDOW, QUERIES)
    query = tl.trans(_load(q, image, head, row, column, DEPTH, CHANNELS))
    result = _load(out, image, head, row, column, DEPTH, CHANNELS)
    result_grad = _load(out_grad, image, head, row, column, DEPTH, CHANNELS)
    product = tl.sum(result.to(tl.float32) * result_grad.to(tl.float32), 0)
    pixel = _pixel(image, head, row, column, size)
    tl.store(delta + pixel, product, mask=true)
    normalizer = tl.load(lse + pixel)
    result_grad = tl.trans(result_grad)

    query_grad = tl.zeros([QUERIES, CHANNELS], tl.float32)
    for start in range(0, WINDOW * WINDOW, KEYS):
        key, value, k_place, within = _keys(
            k, v, image, head, start, top, left, size, WINDOW, DEPTH, CHANNELS, KEYS
        )
        bias = tl.load(_bias(table, head, q_place[:, None], k_place[None, :], WINDOW))
        weights = _weights(query, key, scale, bias, normalizer[:, None], within[None, :], PRECISION)
        scores_grad = weights * (tl.dot(result_grad, value, input_precision=PRECISION) - product[:, None])
        query_grad = tl.dot(scores_grad.to(key.dtype), tl.trans(key), query_grad, input_precision=PRECISION)

    _store(q_grad, tl.trans(query_grad * scale), image, head, row, column, true, DEPTH, CHANNELS)


@triton.jit
def backward_keys(
    q,
    k,
    v,
    table,
    lse,
    out_grad,
    delta,
    k_grad,
    v_grad,
    scale,
    size,
    WINDOW: tl.constexpr,
    DEPTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The gradients of a tile of keys and values, into maps of whole windows: each reflection has its own."""
    first, head, image, top, left = _locate(size, WINDOW, KEYS)
    k_place, row, column, within, _k_true = _tokens(first, top, left, size, WINDOW, KEYS)
    key = tl.trans(_load(k, image, head, row, column, DEPTH, CHANNELS))
    value = tl.trans(_load(v, image, head, row, column, DEPTH, CHANNELS))

    # Scores are keys × queries here, so that they are factors from the left without a transposition.
    key_grad = tl.zeros([KEYS, CHANNELS], tl.float32)
    value_grad = tl.zeros([KEYS, CHANNELS], tl.float32)
    for start in range(0, _queries_end(top, size, WINDOW), QUERIES):
        q_place, q_row, q_column, _q_within, true = _tokens(start, top, left, size, WINDOW, QUERIES)
        query, result_grad, normalizer, product = _queries(
            q, out_grad, lse, delta, image, head, q_row, q_column, size, DEPTH, CHANNELS
        )
        bias = tl.load(_bias(table, head, q_place[None, :], k_place[:, None], WINDOW))
        weights = _weights(key, query, scale, bias, normalizer[None, :], true[None, :], PRECISION)
        factor = weights.to(result_grad.dtype)
        value_grad = tl.dot(factor, tl.trans(result_grad), value_grad, input_precision=PRECISION)
        scores_grad = weights * (tl.dot(value, result_grad, input_precision=PRECISION) - product[None, :])
        key_grad = tl.dot(scores_grad.to(query.dtype), tl.trans(query), key_grad, input_precision=PRECISION)

    token = first + tl.arange(0, KEYS)
    row, column = top + token // WINDOW, left + token % WINDOW
    _store(k_grad, tl.trans(key_grad * scale), image, head, row, column, within, DEPTH, CHANNELS)
    _store(v_grad, tl.trans(value_grad), image, head, row, column, within, DEPTH, CHANNELS)


@triton.jit
def backward_bias(
    q,
    k,
    v,
    table,
    lse,
    out_grad,
    delta,
    table_grad,
    scale,
    size,
    WINDOW: tl.constexpr,
    DEPTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The scores' gradients of a tile of queries by one of keys, summed over windows before they are added.

    All windows share the tile's biases, which are read once.
    """
    tiles: tl.constexpr = tl.cdiv(WINDOW * WINDOW, QUERIES)
    key_tiles: tl.constexpr = tl.cdiv(WINDOW * WINDOW, KEYS)
    index = tl.program_id(0)
    q_first, index = index % tiles * QUERIES, index // tiles
    k_first, index = index % key_tiles * KEYS, index // key_tiles
    head, part = index % size[1], index // size[1]
    parts = tl.num_programs(0) // (tiles * key_tiles * size[1])

    q_place, _q_row, _q_column, _q_within, _q_true = _tokens(q_first, 0, 0, size, WINDOW, QUERIES)
    k_place, _k_row, _k_column, within, _true = _tokens(k_first, 0, 0, size, WINDOW, KEYS)
    bias = tl.load(_bias(table, head, q_place[:, None], k_place[None, :], WINDOW))

    bias_grad = tl.zeros([QUERIES, KEYS], tl.float32)
    for window in range(part, _windows(size, WINDOW), parts):
        image, top, left = _corner(window, size, WINDOW)
        _place, q_row, q_column, _within, true = _tokens(q_first, top, left, size, WINDOW, QUERIES)
        query, result_grad, normalizer, product = _queries(
            q, out_grad, lse, delta, image, head, q_row, q_column, size, DEPTH, CHANNELS
        )
        query, result_grad = tl.trans(query), tl.trans(result_grad)
        key, value, _place, _within = _keys(
            k, v, image, head, k_first, top, left, size, WINDOW, DEPTH, CHANNELS, KEYS
        )
        known = true[:, None] & within[None, :]
        weights = _weights(query, key, scale, bias, normalizer[:, None], known, PRECISION)
        bias_grad += weights * (tl.dot(result_grad, value, input_precision=PRECISION) - product[:, None])

    slots = _bias(table_grad, head, q_place[:, None], k_place[None, :], WINDOW)
    tl.atomic_add(slots, bias_grad, sem="relaxed")


@triton.jit
def _keys(
    k,
    v,
    image,
    head,
    first,
    top,
    left,
    size,
    WINDOW: tl.constexpr,
    DEPTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    KEYS: tl.constexpr,
):
    """A tile of keys, that of their values, their places, and which of them lie within the window."""
    place, row, column, within, _true = _tokens(first, top, left, size, WINDOW, KEYS)
    key = _load(k, image, head, row, column, DEPTH, CHANNELS)
    return key, _load(v, image, head, row, column, DEPTH, CHANNELS), place, within


@triton.jit
def _queries(
    q, out_grad, lse, delta, image, head, row, column, size, DEPTH: tl.constexpr, CHANNELS: tl.constexpr
):
    """A tile of queries, that of their results' gradients, and what the forward pass kept of each query."""
    pixel = _pixel(image, head, row, column, size)
    query = _load(q, image, head, row, column, DEPTH, CHANNELS)
    result_grad = _load(out_grad, image, head, row, column, DEPTH, CHANNELS)
    return query, result_grad, tl.load(lse + pixel), tl.load(delta + pixel)


@triton.jit
def _weights(rows, columns, scale, bias, normalizer, known, PRECISION: tl.constexpr):
    """The softmax of scores whose log-sum-exp is known; zero for tokens that are none."""
    scores = tl.dot(rows, columns, input_precision=PRECISION) * scale + bias
    return tl.where(known, tl.exp2(scores * LOG2_E - normalizer * LOG2_E), 0.0)


@triton.jit
def _bias(table, head, q_place, k_place, WINDOW: tl.constexpr):
    """Where the biases of keys for queries lie."""
    table += head * (2 * WINDOW - 1) * (2 * WINDOW - 1) + 2 * WINDOW * (WINDOW - 1)
    return table + (k_place - q_place)


@triton.jit
def _locate(size, WINDOW: tl.constexpr, TOKENS: tl.constexpr):
    """The first token of a program's tile, its head, its image and the upper left corner of its window."""
    tiles: tl.constexpr = tl.cdiv(WINDOW * WINDOW, TOKENS)
    index = tl.program_id(0)
    first, index = index % tiles * TOKENS, index // tiles
    image, top, left = _corner(index // size[1], size, WINDOW)
    return first, index % size[1], image, top, left


@triton.jit
def _windows(size, WINDOW: tl.constexpr):
    """How many there are in all images."""
    return size[0] * tl.cdiv(size[2], WINDOW) * tl.cdiv(size[3], WINDOW)


@triton.jit
def _corner(window, size, WINDOW: tl.constexpr):
    """The image, the top and the left of a window."""
    rows, columns = tl.cdiv(size[2], WINDOW), tl.cdiv(size[3], WINDOW)
    return window // (rows * columns), window // columns % rows * WINDOW, window % columns * WINDOW


@triton.jit
def _queries_end(top, size, WINDOW: tl.constexpr):
    """How many tokens of a window lie before the map's last row ends."""
    return tl.minimum(size[2] - top, WINDOW) * WINDOW


@triton.jit
def _tokens(first, top, left, size, WINDOW: tl.constexpr, TOKENS: tl.constexpr):
    """Places, rows and columns of tokens, which of them lie within the window, and which within the map.

    All rows and columns are reflected into the map, so that reading needs no mask.
    """
    token = first + tl.arange(0, TOKENS)
    within = token < WINDOW * WINDOW
    token = tl.minimum(token, WINDOW * WINDOW - 1)
    y, x = token // WINDOW, token % WINDOW
    true = within & (top + y < size[2]) & (left + x < size[3])
    return y * (2 * WINDOW - 1) + x, _reflect(top + y, size[2]), _reflect(left + x, size[3]), within, true


@triton.jit
def _reflect(index, size):
    """As :func:`convattn.ops.reflect_pad`: back and forth between the borders."""
    period = tl.maximum(2 * size - 2, 1)
    index = index % period
    return tl.minimum(index, period - index)


@triton.jit
def _pixel(image, head, row, column, size):
    """Where a number for each head and pixel lies."""
    plane = (image * size[1] + head).to(tl.int64)
    return (plane * size[2] + row) * size[3] + column


@triton.jit
def _load(x, image, head, row, column, DEPTH: tl.constexpr, CHANNELS: tl.constexpr):
    pointers, there = _pointers(x, image, head, row, column, DEPTH, CHANNELS)
    return tl.load(pointers, mask=there, other=0.0)


@triton.jit
def _store(x, tile, image, head, row, column, true, DEPTH: tl.constexpr, CHANNELS: tl.constexpr):
    pointers, there = _pointers(x, image, head, row, column, DEPTH, CHANNELS)
    tl.store(pointers, tile.to(x[0].dtype.element_ty), mask=there & true[None, :])


@triton.jit
def _pointers(x, image, head, row, column, DEPTH: tl.constexpr, CHANNELS: tl.constexpr):
    """Where a head's channels of some pixels lie, and which of the channels there are."""
    channel = tl.arange(0, CHANNELS)
    pixel = image.to(tl.int64) * x[1] + row.to(tl.int64) * x[3] + column.to(tl.int64) * x[4]
    plane = (head * DEPTH + channel).to(tl.int64) * x[2]
    return x[0] + plane[:, None] + pixel[None, :], (channel < DEPTH)[:, None]
