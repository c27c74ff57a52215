"""A stand-in for a GPU: tensors that are on cuda:0 for torch and for the product; the CPU computes their numbers.

`install` replaces the GPU of this process; `FAULTS` collects what it finds. test_cuda.py says what of it is real.
"""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import DispatchKey
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[2]
DEVICE = torch.device("cuda", 0)
aten = torch.ops.aten


@dataclass(frozen=True)
class Fault:
    """A call that waits for the GPU, or computes otherwise there: what, in which part of a training, and where."""

    what: str
    part: str
    where: str


FAULTS: list[Fault] = []
"""Those found inside `part`."""
_parts = [""]


@contextmanager
def part(name: str) -> Iterator[None]:
    """Look for faults inside the block, under this name; with an empty one, for none."""
    _parts.append(name)
    try:
        yield
    finally:
        _parts.pop()


def _found(what: str) -> None:
    if _parts[-1] and threading.current_thread() is threading.main_thread():  # others may wait
        FAULTS.append(Fault(what, _parts[-1], _where()))


def _where() -> str:
    """Return the innermost line of the project that is running."""
    frame = sys._getframe()
    while frame := frame.f_back:
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(ROOT) and ".venv" not in file.parts and file != Path(__file__):
            return f"{file.relative_to(ROOT)}:{frame.f_lineno} in {frame.f_code.co_name}"
    raise AssertionError("called by nobody of the project")


class OnGpu(Tensor):
    """A tensor on the stand-in. Its numbers, and what autograd knows of it, are those of `own` on the CPU."""

    own: Tensor

    @staticmethod
    def __new__(cls, own: Tensor) -> "OnGpu":
        """Wrap a tensor of the CPU."""
        with torch.inference_mode(False):  # a view of an ordinary tensor has to be one, in inference mode, too
            tensor = Tensor._make_wrapper_subclass(
                *(cls, own.shape, own.stride(), own.storage_offset()),
                dtype=own.dtype,
                layout=own.layout,
                device=DEVICE,
            )
        tensor.own = own
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"OnGpu({self.own})"

    requires_grad = property(
        lambda self: self.own.requires_grad, lambda self, value: setattr(self.own, "requires_grad", value)
    )
    grad = property(
        lambda self: None if self.own.grad is None else OnGpu(self.own.grad),
        lambda self, value: setattr(self.own, "grad", _own(value)),
    )
    grad_fn = property(lambda self: self.own.grad_fn)
    is_leaf = property(lambda self: self.own.is_leaf)

    def requires_grad_(self, requires_grad: bool = True) -> "OnGpu":
        self.own.requires_grad_(requires_grad)
        return self

    def backward(self) -> None:
        self.own.backward()

    def numpy(self, **_: Any) -> None:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    __array__ = numpy

    # What follows is here because torch's own methods would first make cuda:0 the present device.

    def item(self) -> float:
        _found("a number is read")
        return self.own.item()

    def __bool__(self) -> bool:
        return bool(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        return int(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def contiguous(self, memory_format: torch.memory_format = torch.contiguous_format) -> Tensor:
        return self if self.is_contiguous(memory_format=memory_format) else self.clone(memory_format=memory_format)

    def copy_(self, source: Tensor, non_blocking: bool = False) -> Tensor:
        return aten.copy_(self, source, non_blocking)

    def new_tensor(self, data: Any, *, dtype: torch.dtype | None = None) -> Tensor:
        return torch.tensor(data, dtype=dtype or self.dtype, device=DEVICE)

    def __getitem__(self, index: Any) -> Tensor:
        _look_at_indices(_leaves([index]))
        return OnGpu(self.own[_own(index)])

    def __setitem__(self, index: Any, value: Any) -> None:
        own = _own(index)
        if not isinstance(value, OnGpu):
            # torch fills many places with one number, but copies it to a single one (TensorIndexing.h, `copy_to`).
            if isinstance(value, Tensor) or not self.own[own].ndim:
                _found("a blocking copy to the GPU")
            _look_at_indices([each for each in _leaves([index]) if not _mask(each)])  # `masked_fill_`
        else:
            _look_at_indices(_leaves([index]))
        self.own[own] = _own(value)


def _mask(index: object) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


def _look_at_indices(indices: list[Any]) -> None:
    for each in indices:
        if not isinstance(each, Tensor):
            continue
        if _mask(each):
            _found("a selection by a mask, whose size only the GPU knows")
        elif not isinstance(each, OnGpu) and each.ndim:
            _found("indices of the CPU")
        elif isinstance(each, OnGpu) and not each.ndim:
            _found("a number is read")


class _Gpu(TorchDispatchMode):
    """Sees the calls that have no argument on the stand-in, such as those that create tensors there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})


_GPU = _Gpu()


def _run(func: OpOverload, args: tuple, kwargs: dict) -> Any:
    """Compute an operation on the CPU as a GPU would, or fail as it would."""
    given = [*_leaves(args), *_leaves(kwargs.values())]
    on_gpu = [each for each in given if isinstance(each, OnGpu)]
    elsewhere = [each for each in given if isinstance(each, Tensor) and not isinstance(each, OnGpu)]
    onto_gpu = any(isinstance(each, torch.device) and each.type == "cuda" for each in given)
    if not on_gpu and not onto_gpu:
        return _on_the_cpu(func, args, kwargs)
    if _composite(func):
        with _GPU:  # in inference mode, torch has not divided it into its parts
            return func.decompose(*args, **kwargs)
    if any(isinstance(each, torch.Generator) for each in given):
        raise RuntimeError(f"{func}: expected a 'cuda' device type for generator but found 'cpu'")
    if func in _COPIES:
        with _autograd():
            return _COPIES[func](*args, **kwargs)
    # A single number of the CPU's is a parameter of a kernel.
    if on_gpu and func not in _INDEXING and any(each.ndim for each in elsewhere):
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, but found cuda:0 and cpu")
    _look_for_waits(func, args, kwargs)
    with _autograd():
        found = func(*_own(args), **{name: _own(value) for name, value in kwargs.items()})
    if torch.Tag.inplace_view in func.tags:
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)  # changes the shape of the OnGpu, too
    return _wrapped(found, {id(each.own): each for each in on_gpu})


@cache
def _composite(func: OpOverload) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _leaves(values: Iterable[Any]) -> list[Any]:
    """Return what is in lists and tuples; torch's pytree takes several times as long."""
    found = []
    for each in values:
        if isinstance(each, list | tuple):
            found += _leaves(each)
        else:
            found.append(each)
    return found


def _own(value: Any) -> Any:
    """Return the tensors of the CPU in place of those on the stand-in, and the CPU in place of it."""
    if isinstance(value, OnGpu):
        return value.own
    if isinstance(value, list | tuple):
        return type(value)(map(_own, value))
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _wrapped(value: Any, known: dict[int, OnGpu]) -> Any:
    """Return tensors on the stand-in for those of the CPU; `known` has the ones of an operation in place by id."""
    if isinstance(value, Tensor):
        return known[id(value)] if id(value) in known else OnGpu(value)
    return type(value)(_wrapped(each, known) for each in value) if isinstance(value, list | tuple) else value


@contextmanager
def _autograd() -> Iterator[None]:
    """Let autograd record what happens to `own`: in torch's order of things it has had its turn already."""
    excluded = torch._C._SetExcludeDispatchKeyGuard
    with excluded(DispatchKey.AutogradFunctionality, False), excluded(DispatchKey.ADInplaceOrView, False):
        yield


_INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)


def _look_for_waits(func: OpOverload, args: tuple, kwargs: dict) -> None:
    if func in _INDEXING:
        _look_at_indices(args[1])
    elif torch.Tag.data_dependent_output in func.tags:
        _found(f"{func}, which reads a number")
    elif torch.Tag.dynamic_output_shape in func.tags and kwargs.get("output_size") is None:
        _found(f"{func}, whose result has a size that only the GPU knows")


_pinned: dict[int, torch.UntypedStorage] = {}
"""Pinned memory of the CPU by its address; a reference to it, so that the address is not used again."""
_under_way: list[tuple[Tensor, Tensor]] = []
"""Copies to the CPU that are complete once one has waited for them: the targets, and what they will hold."""


def _pin(tensor: Tensor) -> Tensor:
    storage = tensor.untyped_storage()
    _pinned[storage.data_ptr()] = storage
    return tensor


def _is_pinned(tensor: Tensor) -> bool:
    return tensor.untyped_storage().data_ptr() in _pinned


def _on_the_cpu(func: OpOverload, args: tuple, kwargs: dict) -> Any:
    if not kwargs.get("pin_memory"):
        return func(*args, **kwargs)
    return _pin(func(*args, **{**kwargs, "pin_memory": False}))


def _to_copy(
    source: Tensor, *, device: torch.device | None = None, non_blocking: bool = False, **options: Any
) -> Tensor:
    options.pop("pin_memory", None)
    if device is None or device.type == source.device.type:
        return OnGpu(aten._to_copy(source.own, **options))
    if device.type == "cuda":
        _look_at_a_copy_to_the_gpu(source, non_blocking)
        return OnGpu(aten._to_copy(source, **options))
    target = aten._to_copy(source.own, **options)
    if non_blocking:
        return _slowly(_pin(target), target.clone())
    _found("a copy to the CPU")
    return target


def _copy(target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    if isinstance(target, OnGpu):
        if not isinstance(source, OnGpu):
            _look_at_a_copy_to_the_gpu(source, non_blocking)
        target.own.copy_(_own(source))
    elif non_blocking and _is_pinned(target):
        _slowly(target, source.own.clone())
    else:
        _found("a copy to the CPU")
        target.copy_(source.own)
    return target


def _slowly(target: Tensor, value: Tensor) -> Tensor:
    """Let the target hold nonsense until one waits for the copy."""
    _under_way.append((target, value))
    return target.fill_(torch.nan if target.is_floating_point() else 1)


def _look_at_a_copy_to_the_gpu(source: Tensor, non_blocking: bool) -> None:
    if not non_blocking:
        _found("a blocking copy to the GPU")
    elif not _is_pinned(source):
        _found("a copy of pageable memory to the GPU")


def _foreach_copy(targets: list[Tensor], sources: list[Tensor], non_blocking: bool = False) -> None:
    for target, source in zip(targets, sources, strict=True):
        _copy(target, source, non_blocking)


_COPIES: dict[OpOverload, Callable[..., Any]] = {
    aten._to_copy.default: _to_copy,
    aten.copy_.default: _copy,
    aten._foreach_copy_.default: _foreach_copy,
    aten.record_stream.default: lambda tensor, stream: None,
}


class Stream:
    """All streams are one: what is asked for happens at once, except for copies to the CPU."""

    device = DEVICE

    def __init__(self, device: Any = None, priority: int = 0) -> None:
        """Take what torch's takes."""

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""

    def wait_stream(self, stream: Any) -> None:
        """Let the GPU wait, not the CPU."""

    def wait_event(self, event: Any) -> None:
        """Let the GPU wait, not the CPU."""

    def record_event(self, event: Any = None) -> "Event":
        return event or Event()

    def synchronize(self) -> None:
        synchronize()

    def is_capturing(self) -> bool:
        return False


class Event:
    """A moment in a stream."""

    def __init__(self, **_: Any) -> None:
        """Take what torch's takes."""

    def record(self, stream: Any = None) -> None:
        """Take place now."""

    def wait(self, stream: Any = None) -> None:
        """Let the GPU wait, not the CPU."""

    def query(self) -> bool:
        return not _under_way

    def synchronize(self) -> None:
        synchronize()


def synchronize(device: Any = None) -> None:
    """Wait for all copies to the CPU."""
    _found("a call of synchronize")
    while _under_way:
        target, value = _under_way.pop(0)
        target.copy_(value)


def _recurrent(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return torch.lstm or torch.gru for the stand-in, which finds where cuDNN would compute in fp16."""

    def compute(x: Tensor, state: Tensor | tuple[Tensor, ...], weights: list[Tensor], *options: Any) -> Any:
        if not isinstance(x, OnGpu):
            return function(x, state, weights, *options)
        if not all(isinstance(each, OnGpu) for each in _leaves([state, weights])):
            raise RuntimeError("expected all tensors to be on the same device, but found cuda:0 and cpu")
        dtype = x.dtype
        if torch.is_autocast_enabled("cuda"):
            _found("a recurrent layer under autocast, which cuDNN computes in fp16")
            dtype = torch.float16
        found = function(*_rounded(_own((x, state, weights)), dtype), *options)
        return tuple(OnGpu(each.to(dtype)) for each in found)

    return compute


def _rounded(value: Any, dtype: torch.dtype) -> Any:
    if isinstance(value, Tensor):
        return value.to(dtype).float()
    return type(value)(_rounded(each, dtype) for each in value)


def _moved(module: nn.Module, *args: Any, move: Callable[..., nn.Module] = nn.Module._apply) -> nn.Module:
    """Move a module as torch does, but exchange the parameters' Python objects, too, for they have `own`."""
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return move(module, *args)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def _created(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return torch.tensor or torch.as_tensor for the stand-in: for a GPU, it copies what it makes on the CPU."""

    def create(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
        if device is None or torch.device(device).type == "cpu":
            return function(*args, **kwargs)
        return function(*args, **kwargs).to(device)

    return create


def _ran(thread: threading.Thread, run: Callable[[threading.Thread], None] = threading.Thread.run) -> None:
    """Run a thread, which has dispatch modes of its own."""
    with _Gpu():
        run(thread)


def _applied(function: Any, *args: Any, **kwargs: Any) -> Any:
    """Apply a torch.autograd.Function to the CPU's tensors only: it would see no gradient of `own`."""
    if any(isinstance(each, OnGpu) and each.requires_grad for each in args):
        raise NotImplementedError(f"the stand-in for a GPU has no gradients of {function.__name__}")
    return super(torch.autograd.Function, function).apply(*args, **kwargs)


def install() -> None:
    """Replace the GPU of this process."""
    for name in ("lstm", "gru"):
        setattr(torch._VF, name, _recurrent(getattr(torch._VF, name)))
    for name in ("tensor", "as_tensor"):
        setattr(torch, name, _created(getattr(torch, name)))
    # Without cuDNN and fused attention, torch calls operations of its own, which the CPU has, too.
    torch.backends.cudnn.enabled = False
    for attention in ("flash", "mem_efficient", "cudnn"):
        getattr(torch.backends.cuda, f"enable_{attention}_sdp")(False)
    torch.nn.utils.clip_grad._has_foreach_support = lambda tensors, device: True  # of OnGpu, too
    nn.Module._apply = _moved
    torch.autograd.Function.apply = classmethod(_applied)
    Tensor.pin_memory = lambda self, device=None: self if _is_pinned(self) else _pin(self.clone())
    Tensor.is_pinned = lambda self, device=None: _is_pinned(self)
    answers: dict[str, Any] = {
        "is_available": True,
        "is_bf16_supported": True,
        "is_current_stream_capturing": False,
        "device_count": 1,
        "current_device": 0,
        "get_device_name": "a stand-in",
        "get_device_capability": (9, 0),
        "current_stream": Stream(),
        "default_stream": Stream(),
        "_lazy_init": None,
        "set_device": None,
        "empty_cache": None,
    }
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    torch.accelerator.current_device_index = lambda: 0
    torch.accelerator.current_stream = lambda device=None: Stream()
    torch.cuda.synchronize = synchronize
    torch.cuda.Stream, torch.cuda.Event = Stream, Event
    torch.cuda.stream = lambda stream: stream
    threading.Thread.run = _ran
    _GPU.__enter__()
