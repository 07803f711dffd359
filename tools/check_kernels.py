"""Run the CPU kernels, built with a sanitizer of GCC, on random arguments, forward and backward.

    python tools/check_kernels.py address --minutes 10    # or: undefined, thread

Shapes, strides, types, instruction sets and threads are random; some arguments do not fit together and must
be refused. Each result is compared with the reference. A report of the sanitizer ends the check with a
status other than 0; the same seed gives the same calls again.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from convattn import ops
from convattn.layers import mean_over_symmetries
from convattn.ops.cpu import allocator
from convattn.ops.cpu import library as kernels

FLAGS = {
    "address": ["-fsanitize=address"],
    "undefined": ["-fsanitize=undefined,float-cast-overflow", "-fno-sanitize-recover=all"],
    "thread": ["-fsanitize=thread"],
}
_RUNTIME = {"address": "libasan.so", "undefined": "libubsan.so", "thread": "libtsan.so"}
_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    # The interpreter and torch are not built for it; the kernels start threads of their own (see main).
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:halt_on_error=1:report_signal_unsafe=0",
}
_INSTRUCTION_SETS = ("sse2", "avx2", "avx512", "avx512_bf16", "vector128")
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 4e-2}
_DTYPES = tuple(_TOLERANCE)

Call = Callable[..., Tensor]


def _library(name: str) -> str | None:
    """Return the path of a library of GCC; None where there is none."""
    try:
        command = ["g++", f"-print-file-name={name}"]
        path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return path if Path(path).is_absolute() else None


def build(sanitizer: str, folder: Path) -> None:
    """Compile the kernels with a sanitizer into a folder."""
    source = Path(kernels.__file__).parent / "kernels/convattn_kernels.cpp"
    common = (
        "-std=c++17 -O1 -g1 -fno-omit-frame-pointer -fno-math-errno -fno-trapping-math -ffp-contract=fast"
    )
    more = "-fvisibility=hidden -pthread -Wno-psabi -fPIC -shared"
    command = ["g++", *common.split(), *more.split(), *FLAGS[sanitizer], str(source)]
    subprocess.run([*command, "-o", str(folder / "_kernels.so")], check=True)


class Arguments:
    """Random arguments of the operators.

    Args:
        seed: The same one gives the same arguments.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.dtype = self.random.choice(_DTYPES)

    def size(self, most: int) -> int:
        """Return a size, which is small more often than large."""
        return self.random.randint(1, self.random.choice([2, most // 2 + 1, most]))

    def parameter(self, *shape: int) -> Tensor:
        """Return random numbers, contiguous or not."""
        fan_in = max(1, torch.Size(shape[1:]).numel())
        x = torch.randn(*shape, generator=self.generator) / fan_in**0.5
        if len(shape) > 1 and self.random.random() < 0.2:
            x = x.transpose(0, 1).contiguous().transpose(0, 1)
        return x.to(self.dtype)

    def feature_map(self, *shape: int) -> Tensor:
        """Return a map (N, C, H, W) in one of many memory formats."""
        images, channels, height, width = shape
        x = torch.randn(images, channels + 3, height + 2, width + 3, generator=self.generator)
        x = x.to(self.dtype)
        way = self.random.randrange(6)
        if way in (1, 2):  # the channels of a pixel lie together, or are a part of more
            x = x.contiguous(memory_format=torch.channels_last)
        cut = x[:, :channels, 1 : height + 1, 2 : width + 2]
        if way == 3:
            return cut.transpose(2, 3).contiguous().transpose(2, 3)
        if way == 4:
            return cut[:1].expand(shape)
        return cut.contiguous(memory_format=torch.channels_last) if way in (0, 1) else cut

    def norm(self, channels: int) -> list[Any]:
        """Return weight and bias of a normalization, or nothing."""
        few = channels < 8  # over which a variance may be close to zero
        return [] if few or self.random.random() < 0.5 else [self.parameter(channels) for _ in range(2)]


def feed_forward(given: Arguments) -> tuple[Call, list[Tensor]]:
    """Return the operator and its arguments, as the functions below."""
    channels, hidden, shape = given.size(50), given.size(80), (given.size(40), given.size(40))
    shapes = [
        (hidden, channels, 1, 1),
        (hidden,),
        (hidden, 1, 3, 3),
        (hidden,),
        (channels, hidden, 1, 1),
        (channels,),
    ]
    x = given.feature_map(given.size(3), channels, *shape)
    args = [x, *(given.parameter(*s) for s in shapes), *given.norm(channels)]
    return lambda *a, **k: ops.feed_forward(
        a[0], ops.FeedForwardWeights(*a[1:7]), norm=_norm(a[7:]), **k
    ), args


def convolution(given: Arguments) -> tuple[Call, list[Tensor]]:
    """1×1 or 3×3, with a residual."""
    images, channels, outs = given.size(3), given.size(50), given.size(50)
    shape, side = (given.size(40), given.size(40)), given.random.choice([1, 3])
    args = [
        given.feature_map(images, channels, *shape),
        given.parameter(outs, channels, side, side),
        given.parameter(outs),
        given.feature_map(images, outs, *shape),
        *given.norm(channels),
    ]
    return lambda *a, **k: ops.convolution(*a[:3], residual=a[3], norm=_norm(a[4:]), **k), args


def joined_convolution(given: Arguments) -> tuple[Call, list[Tensor]]:
    """1×1 over two maps."""
    images, channels, others, outs = given.size(3), given.size(50), given.size(20), given.size(50)
    shape, side = (given.size(40), given.size(40)), given.random.choice([1, 1, 3])
    args = [
        given.feature_map(images, channels, *shape),
        given.parameter(outs, channels + others, side, side),
        given.parameter(outs),
        given.feature_map(images, others, *shape),
        *given.norm(channels),
    ]
    return lambda *a, **k: ops.convolution(*a[:3], other=a[3], norm=_norm(a[4:]), **k), args


def conv_attention(given: Arguments) -> tuple[Call, list[Tensor]]:
    """With a dynamic kernel that is given."""
    images, channels = given.size(3), given.size(32)
    size, small = given.random.choice([1, 3, 7, 13]), given.random.choice([1, 3, 5])
    kernel = given.parameter(channels, channels, size, size)
    args = [
        given.feature_map(images, channels, given.size(40), given.size(40)),
        mean_over_symmetries(kernel) if given.random.random() < 0.8 else kernel,
        given.parameter(images, channels, small, small),
    ]

    def call(x: Tensor, kernel: Tensor, dynamic: Tensor, **backend: Any) -> Tensor:
        is_square = kernel.shape[2] == kernel.shape[3]
        kernel = mean_over_symmetries(kernel) if is_square else kernel
        return ops.conv_attention(x, kernel, dynamic, symmetric=True, **backend)

    return call, args


def predicted_conv_attention(given: Arguments) -> tuple[Call, list[Tensor]]:
    """With a dynamic kernel that is predicted."""
    channels, hidden, small = given.size(32), given.size(16), given.random.choice([1, 3, 5])
    size = given.random.choice([1, 3, 7, 13])
    args = [
        given.feature_map(given.size(3), channels, given.size(40), given.size(40)),
        mean_over_symmetries(given.parameter(channels, channels, size, size)),
        given.parameter(hidden, channels, 1, 1),
        given.parameter(hidden),
        given.parameter(channels * small**2, hidden, 1, 1),
        given.parameter(channels * small**2),
    ]
    return ops.predicted_conv_attention, args


def window_attention(given: Arguments) -> tuple[Call, list[Tensor]]:
    """Of three maps."""
    heads, depth, window = given.size(4), given.size(24), given.size(33)
    shape = given.size(2), heads * depth, given.size(40), given.size(40)
    table = given.parameter(heads, (2 * window - 1) ** 2)
    return ops.window_attention, [*(given.feature_map(*shape) for _ in range(3)), table]


def window_self_attention(given: Arguments) -> tuple[Call, list[Tensor]]:
    """Of one map."""
    heads, depth, window = given.size(4), given.size(20), given.size(33)
    channels = heads * depth
    args = [
        given.feature_map(given.size(2), channels, given.size(40), given.size(40)),
        given.parameter(3 * channels, channels, 1, 1),
        given.parameter(3 * channels),
        given.parameter(heads, (2 * window - 1) ** 2),
        *given.norm(channels),
    ]
    return lambda *a, **k: ops.window_self_attention(*a[:4], norm=_norm(a[4:]), **k), args


OPERATORS = (
    feed_forward,
    convolution,
    joined_convolution,
    conv_attention,
    predicted_conv_attention,
    window_attention,
    window_self_attention,
)


def _norm(args: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, float] | None:
    return (args[0], args[1], 1e-6) if args else None


def misfit(given: Arguments, args: list[Tensor]) -> list[Tensor]:
    """Return the arguments with one of them shortened, emptied or lengthened along an axis."""
    which = given.random.randrange(len(args))
    axis = given.random.randrange(args[which].ndim)
    size = given.random.choice([0, args[which].shape[axis] - 1, args[which].shape[axis] + 1])
    indices = torch.arange(size) % max(1, args[which].shape[axis])
    return [x.index_select(axis, indices) if i == which else x for i, x in enumerate(args)]


def gradients(call: Call, args: list[Tensor], backend: str) -> tuple[Tensor, ...]:
    """Return the result of an operator and the gradients of all its arguments."""
    leaves = [x.detach().requires_grad_() for x in args]
    out = call(*leaves, backend=backend)
    slope = torch.linspace(-1, 1, out.numel()).view(out.shape).to(out.dtype)
    return out.detach(), *torch.autograd.grad(out, leaves, slope)


def check(seed: int) -> str:
    """Call one operator with the arguments of a seed, and compare its result and its gradients.

    Returns:
        The name of the operator, and what was called.

    Raises:
        AssertionError: They differ from the reference.
    """
    given = Arguments(seed)
    operator = given.random.choice(OPERATORS)
    call, args = operator(given)
    if given.random.random() < 0.1:
        try:
            call(*misfit(given, args), backend="cpu")
        except ValueError:
            return f"{operator.__name__}, refused"
        return f"{operator.__name__}, another size"
    learns = given.random.random() < 0.6
    compute = gradients if learns else lambda call, args, backend: (call(*args, backend=backend),)
    ours = compute(call, args, "cpu")
    theirs = compute(call, [x.double() for x in args], "reference")
    terms = max(x.norm().item() for x in theirs)
    for number, (result, expected) in enumerate(zip(ours, theirs, strict=True)):
        allowed = _TOLERANCE[given.dtype] * (expected.norm() + terms)
        assert (result - expected).norm() <= allowed, f"{operator.__name__}, seed {seed}: number {number}"
    return f"{operator.__name__}, {'backward' if learns else 'forward'}"


def check_many(seed: int, calls: int | None, seconds: float, threads: bool) -> Counter[str]:
    """Check until the time or the calls are used up, and count what was called."""
    done: Counter[str] = Counter()
    until, choice = time.monotonic() + seconds, random.Random(seed)
    with ThreadPoolExecutor(3) as pool:
        while time.monotonic() < until and (calls is None or done.total() < calls):
            while not kernels.library.convattn_use_instruction_set(choice.choice(_INSTRUCTION_SETS).encode()):
                pass
            torch.set_num_threads(choice.choice([1, 2, 3, 5]))
            seeds = [seed + done.total() + n for n in range(6)]
            done.update((pool.map if threads else map)(check, seeds))
    return done


def run_checks(arguments: argparse.Namespace) -> None:
    """Load the library that was built, and check."""
    kernels.library = kernels._load(Path(arguments.library))
    allocator._SMALLEST = 2**62  # every map from the allocator that the sanitizer watches
    torch.manual_seed(arguments.seed)
    if arguments.sanitizer == "thread":  # which does not see the barriers of OpenMP: threads of our own
        kernels.library.convattn_use_openmp(None)
    done = check_many(
        arguments.seed, arguments.calls, arguments.minutes * 60, arguments.sanitizer == "thread"
    )
    for name, count in sorted(done.items()):
        print(f"{count:6} {name}")
    print(f"{done.total():6} calls without a report of the {arguments.sanitizer} sanitizer")


def main() -> None:
    """Build the kernels, and run the checks in a process that loads the sanitizer first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sanitizer", choices=FLAGS)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--calls", type=int, help="at most so many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--library", help="a folder with kernels that are built already")
    arguments = parser.parse_args()
    path = _library(_RUNTIME[arguments.sanitizer])
    if path is None:
        sys.exit("This needs g++ and its sanitizers.")
    if os.environ.get("CONVATTN_SANITIZED"):
        return run_checks(arguments)
    # The C++ library comes with it, or the sanitizer would not find how exceptions are thrown.
    preload = f"{path}:{_library('libstdc++.so')}"
    environment = os.environ | _OPTIONS | {"LD_PRELOAD": preload, "CONVATTN_SANITIZED": "1"}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.library is None:
            build(arguments.sanitizer, Path(folder))
        command = [sys.executable, *sys.argv, *([] if arguments.library else ["--library", folder])]
        fixed = ["setarch", "--addr-no-randomize"] if arguments.sanitizer == "thread" else []
        sys.exit(subprocess.run([*fixed, *command], env=environment).returncode)


if __name__ == "__main__":
    main()
