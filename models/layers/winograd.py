# Convolutions for inference on the CPU with 4/9 of the multiplications: Winograd's F(2x2, 3x3)
# (Lavin and Gray, arXiv 1509.09308) for 3x3, four 2x2 kernels on the small image for "double the
# size, then 3x3". Norm and SiLU before a convolution are fused with its padding: one pass. The
# larger F(4x4, 3x3) would be faster, but loses a digit that parity with the original needs.
import math

import numpy as np
import torch
import torch.nn.functional as F
from numba import config, njit, prange, set_num_threads, types
from numba.extending import overload
from torch import Tensor, nn

from runtime.kernels import WarmUp, compile_ahead, kernel
from runtime.precision import choose_dtype

BLOCK = 512  # tiles at a time: their transforms stay in the cache
LEAST_CHANNELS, LEAST_PIXELS = 32, 256
LOG2E = np.float32(-math.log2(math.e))
_nodes = -0.5 + 0.5 * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
P = tuple(np.polynomial.polynomial.polyfit(_nodes, 2**_nodes, 6).astype(np.float32))
P0, P1, P2, P3, P4, P5, P6 = P
ZERO, ONE, MOST = np.float32(0), np.float32(1), np.float32(80)


def usable(x: Tensor, conv: nn.Conv2d) -> bool:
    """Whether this file's path is the faster one: inference of wide layers on the CPU."""
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and not torch.is_grad_enabled()
        and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS
        and x.shape[-2] * x.shape[-1] >= LEAST_PIXELS
    )


def norm_silu_conv(
    x: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d, residual: Tensor | None = None
) -> Tensor:
    """conv(silu(norm(x))) + residual, [B,C,H,W] channels-last; conv is 3x3 with padding 1."""
    rows = channels_last(x)
    padded = normalised(rows, norm)
    added = None if residual is None else channels_last(residual)
    return convolved(padded, rows.shape[1:3], conv, added).permute(0, 3, 1, 2)


def upsample_conv(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """The 3x3 convolution (padding 1) of x [B,C,H,W] doubled by nearest neighbour: [B,C',2H,2W].

    Each of the four pixels that a pixel becomes sees a 2x2 neighbourhood only.
    """
    B, _, H, W = x.shape
    padded = F.pad(x, (1, 1, 1, 1))
    out = torch.empty(
        (B, conv.out_channels, 2 * H, 2 * W),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )
    for row in (0, 1):
        for column in (0, 1):
            part = padded[:, :, row : row + H + 1, column : column + W + 1]
            kernel = prepared(conv, f"up{row}{column}")
            out[:, :, row::2, column::2] = F.conv2d(part, kernel, conv.bias)
    return out


def channels_last(x: Tensor) -> np.ndarray:
    """[B,C,H,W] as an array [B,H,W,C], without a copy where its memory is like that already.

    Every path here begins with this; from then on numba has torch's number of threads, or torch
    would have numba's, their OpenMP being one.
    """
    set_num_threads(min(torch.get_num_threads(), config.NUMBA_NUM_THREADS))
    return array(x.permute(0, 2, 3, 1).contiguous())


def array(x: Tensor) -> np.ndarray:
    """A tensor's memory as an array; bfloat16 as uint16."""
    return (x.view(torch.uint16) if x.dtype == torch.bfloat16 else x).numpy()


def prepared(conv: nn.Conv2d, kind: str) -> Tensor:
    """The convolution's weight in another form; a frozen one's is computed anew only when it
    changed (of one in training that cannot be known: fused optimizers change weights unseen)."""
    weight = conv.weight
    if weight.requires_grad:
        conv.__dict__.pop("_prepared", None)
        return in_form(weight.detach(), kind)
    stamp = weight.data_ptr(), weight._version
    forms = conv.__dict__.setdefault("_prepared", {})
    if forms.get(kind, (None,))[0] != stamp:
        forms[kind] = stamp, in_form(weight.detach(), kind)
    return forms[kind][1]


def in_form(weight: Tensor, kind: str) -> Tensor:
    """A weight [K,C,3,3] for `convolved` ("winograd") or for `upsample_conv` ("up00" to "up11")."""
    return winograd_weight(weight) if kind == "winograd" else folded(weight, kind)


def forget(module: nn.Module) -> None:
    """Drop what `prepared` keeps below a module, whose weights may have changed unseen."""
    for layer in module.modules():
        layer.__dict__.pop("_prepared", None)


def winograd_weight(weight: Tensor) -> Tensor:
    """[K,C,3,3] -> [16,C,K]."""
    G = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], dtype=torch.float64)
    u = torch.einsum("ai,kcij,bj->abck", G, weight.double(), G)
    return u.flatten(0, 1).to(weight.dtype).contiguous()


def folded(weight: Tensor, kind: str) -> Tensor:
    """[K,C,3,3] -> [K,C,2,2] for the pixel at row, column (kind "up01": 0, 1) of a doubled one."""
    w = weight.double()
    for axis, place in ((2, kind[2]), (3, kind[3])):
        first, middle, last = w.unbind(axis)
        pair = (first, middle + last) if place == "0" else (first + middle, last)
        w = torch.stack(pair, axis)
    return w.to(weight.dtype).contiguous(memory_format=torch.channels_last)


def norm_silu(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """silu(norm(x)) of x [B,C,H,W], float32 or bfloat16 on the CPU, channels-last; differentiable.

    One pass after the sums, and two in the backward pass: less than half of what torch's take.
    """
    return _NormSiLU.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        rows = channels_last(x)
        B, H, W, C = rows.shape
        moments = _moments(rows.reshape(B, H * W, C))
        mean, rstd = statistics(*moments, H * W, groups, eps)
        scale, shift = affine(mean, rstd, weight, bias)
        out = torch.empty(B, H, W, C, dtype=x.dtype)
        _normalise(rows, scale, shift, array(out), 0)
        ctx.save_for_backward(x, weight)
        ctx.groups, ctx.mean, ctx.rstd, ctx.affine = groups, mean, rstd, (scale, shift)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        x, weight = ctx.saved_tensors
        B, C, H, W = x.shape
        mean, rstd, groups = ctx.mean, ctx.rstd, ctx.groups
        gamma = weight.detach().double().numpy()
        rows, slopes = (channels_last(t).reshape(B, H * W, C) for t in (x, gradient.to(x.dtype)))
        inner = rows, slopes, *ctx.affine
        sums, products = _slope_moments(*inner)
        by_weight = rstd * (products - mean * sums)  # sums of d x^, where x^ is the normed x

        def shared(values: np.ndarray) -> np.ndarray:
            """Means over each group's channels and pixels, for each of its channels."""
            means = values.reshape(B, groups, -1).mean(2) / (H * W)
            return np.repeat(means, C // groups, 1)

        constant, by_x = shared(gamma * sums), shared(gamma * by_weight)
        constant = rstd * (by_x * rstd * mean - constant)
        out = torch.empty(B, H, W, C, dtype=x.dtype)
        flat = array(out).reshape(B, H * W, C)
        _slope(*inner, np.float32(-by_x * rstd**2), np.float32(constant), flat)
        own = (torch.from_numpy(t.sum(0)).to(weight.dtype) for t in (by_weight, sums))
        return out.permute(0, 3, 1, 2), *own, None, None


def normalised(x: np.ndarray, norm: nn.GroupNorm) -> np.ndarray:
    """silu(norm(x)) of x [B,H,W,C] with a border of zeros, even tiles: [B,H+2(+1),W+2(+1),C]."""
    B, H, W, C = x.shape
    moments = _moments(x.reshape(B, H * W, C))
    mean, rstd = statistics(*moments, H * W, norm.num_groups, norm.eps)
    scale, shift = affine(mean, rstd, norm.weight, norm.bias)
    out = np.zeros((B, H + 2 + H % 2, W + 2 + W % 2, C), x.dtype)
    _normalise(x, scale, shift, out, 1)
    return out


def affine(
    mean: np.ndarray, rstd: np.ndarray, weight: Tensor, bias: Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """The norm as x scale + shift, float32 [B,C] each, from the `statistics`."""
    scale = rstd * weight.detach().float().numpy()
    shift = bias.detach().float().numpy() - mean * scale
    return scale.astype(np.float32), shift.astype(np.float32)


def statistics(
    sums: np.ndarray, squares: np.ndarray, pixels: int, groups: int, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 1 / deviation of each channel's group, float64 [B,C] each."""
    B, C = sums.shape
    mean = sums.reshape(B, groups, -1).mean(2) / pixels
    variance = squares.reshape(B, groups, -1).mean(2) / pixels - mean**2
    rstd = 1 / np.sqrt(np.maximum(variance, 0) + eps)
    return tuple(np.repeat(t, C // groups, 1) for t in (mean, rstd))


def convolved(
    padded: np.ndarray, size: tuple[int, int], conv: nn.Conv2d, residual: np.ndarray | None
) -> Tensor:
    """3x3 convolution of a padded [B,H',W',C] -> [B,H,W,K], plus bias and residual."""
    B, _, _, C = padded.shape
    (H, W), K = size, conv.out_channels
    weight = prepared(conv, "winograd")
    bias = np.zeros(K, np.float32) if conv.bias is None else conv.bias.detach().float().numpy()
    columns = -(-W // 2)
    tiles = -(-H // 2) * columns
    out = torch.empty(B, H, W, K, dtype=weight.dtype)
    block = min(BLOCK, tiles)
    spread = torch.zeros(16, block, C, dtype=weight.dtype)
    product = torch.empty(16, block, K, dtype=weight.dtype)
    nothing = np.empty((0, 0, 0), padded.dtype)
    for b in range(B):
        added = nothing if residual is None else residual[b]
        for start in range(0, tiles, block):
            count = min(block, tiles - start)
            _spread(padded[b], start, count, columns, array(spread))
            torch.bmm(spread, weight, out=product)
            place = start, count, columns
            _gather(array(product), *place, bias, added, residual is not None, array(out[b]))
    return out


@njit(inline="always")
def _sigmoid(v):
    """1 / (1 + exp(-v)), without a library call, so that loops vectorise."""
    t = min(abs(v), MOST) * LOG2E
    n = np.int32(t)
    f = t - np.float32(n)
    e = P0 + f * (P1 + f * (P2 + f * (P3 + f * (P4 + f * (P5 + f * P6)))))
    e = e * np.int32((n + np.int32(127)) << np.int32(23)).view(np.float32)
    # e = exp(-|v|): the sigmoid is 1 / (1 + e) or e / (1 + e)
    return (ONE if v >= ZERO else e) / (ONE + e)


@njit(inline="always")
def _silu(v):
    return v * _sigmoid(v)


@njit(inline="always")
def _silu_slope(v):
    s = _sigmoid(v)
    return s * (ONE + v * (ONE - s))


# The kernels below take float32, or bfloat16 given as uint16: read by `wide`, written by `narrow`.


def wide(value):
    """A float32, or the float32 that a bfloat16's bits stand for."""
    raise NotImplementedError  # the overload below takes its place in kernels


def narrow(value, like):
    """A float32, or its nearest bfloat16's bits where `like` is uint16."""
    raise NotImplementedError  # likewise


@overload(wide, inline="always")
def _wide(value):
    if value == types.uint16:
        return lambda value: np.uint32(np.uint32(value) << np.uint32(16)).view(np.float32)
    return lambda value: value


@overload(narrow, inline="always")
def _narrow(value, like):
    if like != types.uint16:
        return lambda value, like: value

    def rounded(value, like):
        bits = np.float32(value).view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        return np.uint16((bits + np.uint32(32767) + odd) >> np.uint32(16))

    return rounded


CHUNK = 1024  # pixels summed in float32 before float64 takes over; a constant, for repeatable sums


@kernel(parallel=True, fastmath={"nsz"})
def _moments(x):
    """Sums and sums of squares over pixels, float64 [B,C], of x [B,pixels,C]."""
    B, n, C = x.shape
    chunks = (n + CHUNK - 1) // CHUNK
    sums = np.zeros((B, chunks, C), np.float64)
    squares = np.zeros((B, chunks, C), np.float64)
    for job in prange(B * chunks):
        b, k = job // chunks, job % chunks
        for i in range(k * CHUNK, min(n, (k + 1) * CHUNK)):
            for c in range(C):
                v = np.float64(wide(x[b, i, c]))
                sums[b, k, c] += v
                squares[b, k, c] += v * v
    return sums.sum(1), squares.sum(1)


@kernel(parallel=True, fastmath={"nsz"})
def _normalise(x, scale, shift, out, edge):
    """silu(x scale + shift) into out, whose border is `edge` wide."""
    B, H, W, C = x.shape
    for job in prange(B * H):
        b, r = job // H, job % H
        for w in range(W):
            for c in range(C):
                v = wide(x[b, r, w, c]) * scale[b, c] + shift[b, c]
                out[b, r + edge, w + edge, c] = narrow(_silu(v), out[b, r + edge, w + edge, c])


@kernel(parallel=True, fastmath={"nsz"})
def _slope_moments(x, g, scale, shift):
    """With d the gradient g of silu(x scale + shift) brought to its inside: sums of d and of d x,
    float64 [B,C] each, of x and g [B,pixels,C]."""
    B, n, C = x.shape
    chunks = (n + CHUNK - 1) // CHUNK
    sums = np.zeros((B, chunks, C), np.float64)
    products = np.zeros((B, chunks, C), np.float64)
    for job in prange(B * chunks):
        b, k = job // chunks, job % chunks
        for i in range(k * CHUNK, min(n, (k + 1) * CHUNK)):
            for c in range(C):
                v = wide(x[b, i, c])
                d = wide(g[b, i, c]) * _silu_slope(v * scale[b, c] + shift[b, c])
                sums[b, k, c] += np.float64(d)
                products[b, k, c] += np.float64(d) * np.float64(v)
    return sums.sum(1), products.sum(1)


@kernel(parallel=True, fastmath={"nsz"})
def _slope(x, g, scale, shift, by_x, constant, out):
    """d scale + x by_x + constant into out [B,pixels,C]; d as in `_slope_moments`."""
    B, n, C = x.shape
    chunks = (n + CHUNK - 1) // CHUNK
    for job in prange(B * chunks):
        b, k = job // chunks, job % chunks
        for i in range(k * CHUNK, min(n, (k + 1) * CHUNK)):
            for c in range(C):
                v = wide(x[b, i, c])
                d = wide(g[b, i, c]) * _silu_slope(v * scale[b, c] + shift[b, c])
                d = d * scale[b, c] + v * by_x[b, c] + constant[b, c]
                out[b, i, c] = narrow(d, out[b, i, c])


@kernel(parallel=True, fastmath={"nsz"})
def _spread(x, start, count, columns, out):
    """B^T d B of tiles start, start+1, ...: x [H',W',C] -> out [16,block,C]."""
    C = x.shape[2]
    for i in prange(count):
        r, w = 2 * ((start + i) // columns), 2 * ((start + i) % columns)
        for c in range(C):
            a0, a1, a2, a3 = (
                wide(x[r, w, c]),
                wide(x[r, w + 1, c]),
                wide(x[r, w + 2, c]),
                wide(x[r, w + 3, c]),
            )
            b0, b1, b2, b3 = (
                wide(x[r + 1, w, c]),
                wide(x[r + 1, w + 1, c]),
                wide(x[r + 1, w + 2, c]),
                wide(x[r + 1, w + 3, c]),
            )
            c0, c1, c2, c3 = (
                wide(x[r + 2, w, c]),
                wide(x[r + 2, w + 1, c]),
                wide(x[r + 2, w + 2, c]),
                wide(x[r + 2, w + 3, c]),
            )
            d0, d1, d2, d3 = (
                wide(x[r + 3, w, c]),
                wide(x[r + 3, w + 1, c]),
                wide(x[r + 3, w + 2, c]),
                wide(x[r + 3, w + 3, c]),
            )
            e0, e1, e2, e3 = a0 - c0, a1 - c1, a2 - c2, a3 - c3
            f0, f1, f2, f3 = b0 + c0, b1 + c1, b2 + c2, b3 + c3
            g0, g1, g2, g3 = c0 - b0, c1 - b1, c2 - b2, c3 - b3
            h0, h1, h2, h3 = b0 - d0, b1 - d1, b2 - d2, b3 - d3
            out[0, i, c] = narrow(e0 - e2, out[0, i, c])
            out[1, i, c] = narrow(e1 + e2, out[1, i, c])
            out[2, i, c] = narrow(e2 - e1, out[2, i, c])
            out[3, i, c] = narrow(e1 - e3, out[3, i, c])
            out[4, i, c] = narrow(f0 - f2, out[4, i, c])
            out[5, i, c] = narrow(f1 + f2, out[5, i, c])
            out[6, i, c] = narrow(f2 - f1, out[6, i, c])
            out[7, i, c] = narrow(f1 - f3, out[7, i, c])
            out[8, i, c] = narrow(g0 - g2, out[8, i, c])
            out[9, i, c] = narrow(g1 + g2, out[9, i, c])
            out[10, i, c] = narrow(g2 - g1, out[10, i, c])
            out[11, i, c] = narrow(g1 - g3, out[11, i, c])
            out[12, i, c] = narrow(h0 - h2, out[12, i, c])
            out[13, i, c] = narrow(h1 + h2, out[13, i, c])
            out[14, i, c] = narrow(h2 - h1, out[14, i, c])
            out[15, i, c] = narrow(h1 - h3, out[15, i, c])


@kernel(parallel=True, fastmath={"nsz"})
def _gather(m, start, count, columns, bias, residual, adds, out):
    """A^T m A of tiles, plus bias and residual: m [16,block,K] -> out [H,W,K]."""
    H, W, K = out.shape
    for i in prange(count):
        r, w = 2 * ((start + i) // columns), 2 * ((start + i) % columns)
        below, right = r + 1 < H, w + 1 < W
        r1, w1 = r + 1 if below else r, w + 1 if right else w
        for k in range(K):
            s0 = wide(m[0, i, k]) + wide(m[4, i, k]) + wide(m[8, i, k])
            s1 = wide(m[1, i, k]) + wide(m[5, i, k]) + wide(m[9, i, k])
            s2 = wide(m[2, i, k]) + wide(m[6, i, k]) + wide(m[10, i, k])
            s3 = wide(m[3, i, k]) + wide(m[7, i, k]) + wide(m[11, i, k])
            t0 = wide(m[4, i, k]) - wide(m[8, i, k]) - wide(m[12, i, k])
            t1 = wide(m[5, i, k]) - wide(m[9, i, k]) - wide(m[13, i, k])
            t2 = wide(m[6, i, k]) - wide(m[10, i, k]) - wide(m[14, i, k])
            t3 = wide(m[7, i, k]) - wide(m[11, i, k]) - wide(m[15, i, k])
            # at an odd edge the neighbours coincide: the true pixel is written last
            out[r1, w1, k] = narrow(t1 - t2 - t3 + bias[k], out[r1, w1, k])
            out[r1, w, k] = narrow(
                (t0 + t1 + t2 if below else s0 + s1 + s2) + bias[k], out[r1, w, k]
            )
            out[r, w1, k] = narrow(
                (s1 - s2 - s3 if right else s0 + s1 + s2) + bias[k], out[r, w1, k]
            )
            out[r, w, k] = narrow(s0 + s1 + s2 + bias[k], out[r, w, k])
        if adds:
            for k in range(K):
                v = wide(out[r, w, k]) + wide(residual[r, w, k])
                out[r, w, k] = narrow(v, out[r, w, k])
            if right:
                for k in range(K):
                    v = wide(out[r, w1, k]) + wide(residual[r, w1, k])
                    out[r, w1, k] = narrow(v, out[r, w1, k])
            if below:
                for k in range(K):
                    v = wide(out[r1, w, k]) + wide(residual[r1, w, k])
                    out[r1, w, k] = narrow(v, out[r1, w, k])
            if below and right:
                for k in range(K):
                    v = wide(out[r1, w1, k]) + wide(residual[r1, w1, k])
                    out[r1, w1, k] = narrow(v, out[r1, w1, k])


@torch.inference_mode()
def compile_convolutions() -> None:
    """Have numba compile what inference needs, in the usual type of this CPU."""
    x = torch.zeros(1, LEAST_CHANNELS, 16, 16, dtype=choose_dtype("auto", "cpu"))
    conv = nn.Conv2d(LEAST_CHANNELS, LEAST_CHANNELS, 3, padding=1).to(x.dtype)
    norm_silu_conv(x, nn.GroupNorm(4, LEAST_CHANNELS).to(x.dtype), conv, x)


def prepare_kernels(model: nn.Module) -> None:
    """Begin to compile what a model will need on the CPU; `runtime.kernels.wait_for_kernels`."""
    some = next(model.parameters())
    convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
    wide = any(min(m.in_channels, m.out_channels) >= LEAST_CHANNELS for m in convolutions)
    if wide and some.device.type == "cpu" and some.dtype == choose_dtype("auto", "cpu"):
        compile_ahead(CONVOLUTIONS)


CONVOLUTIONS = WarmUp(compile_convolutions, (_moments, _normalise, _spread, _gather))
